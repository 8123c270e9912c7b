package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// The headings under which help shows flags. Those of the command itself have
// none and come first.
const (
	headingKey    = "heading" // of a flag's annotation
	headingWhere  = "Where and what"
	headingAdHoc  = "An app without an app file"
	headingCommon = "Flags of every command"
)

// under adds flags to a command below a heading.
func under(cmd *cobra.Command, heading string, add func(f *pflag.FlagSet)) {
	f := pflag.NewFlagSet(heading, pflag.ContinueOnError)
	f.SortFlags = false
	add(f)
	f.VisitAll(func(flag *pflag.Flag) {
		flag.Annotations = map[string][]string{headingKey: {heading}}
	})
	cmd.Flags().AddFlagSet(f)
}

// usage prints how a command is called, with its flags below their headings.
func usage(cmd *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if cmd.Runnable() && !cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s\n", cmd.UseLine())
	} else {
		fmt.Fprintf(&b, "  %s [command]\n", cmd.CommandPath())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() || c.Name() == "help" {
				fmt.Fprintf(&b, "  %-*s %s\n", cmd.NamePadding(), c.Name(), c.Short)
			}
		}
	}
	flags := map[string]*pflag.FlagSet{}
	cmd.Flags().SortFlags = false
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		heading := "Flags"
		switch a := flag.Annotations[headingKey]; {
		case len(a) == 1:
			heading = a[0]
		case flag.Name == "help":
			heading = headingCommon
		}
		if flags[heading] == nil {
			flags[heading] = pflag.NewFlagSet(heading, pflag.ContinueOnError)
			flags[heading].SortFlags = false
		}
		flags[heading].AddFlag(flag)
	})
	for _, heading := range []string{"Flags", headingWhere, headingAdHoc, headingCommon} {
		if flags[heading] != nil {
			fmt.Fprintf(&b, "\n%s:\n%s", heading, flags[heading].FlagUsagesWrapped(88))
		}
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\nSay %s COMMAND --help for more about a command.\n", cmd.CommandPath())
	}
	_, err := io.WriteString(cmd.OutOrStderr(), b.String())
	return err
}

// explainFlag says what is wrong with a flag.
func explainFlag(cmd *cobra.Command, err error) error {
	var missing *pflag.NotExistError
	var value *pflag.InvalidValueError
	var required *pflag.ValueRequiredError
	switch {
	case errors.As(err, &missing) && missing.GetSpecifiedShortnames() == "":
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		name := "--" + missing.GetSpecifiedName()
		return withHint("there is no flag "+name, tomlfile.DidYouMean(name, names))
	case errors.As(err, &missing):
		return fmt.Errorf("there is no flag -%s", missing.GetSpecifiedName())
	case errors.As(err, &required):
		return fmt.Errorf("--%s needs a value", required.GetFlag().Name)
	case errors.As(err, &value):
		switch flag := value.GetFlag(); flag.Value.Type() {
		case "int":
			return fmt.Errorf("--%s: %q is not a whole number", flag.Name, value.GetValue())
		case "bool":
			return fmt.Errorf("--%s takes no value, and got %q", flag.Name, value.GetValue())
		default:
			return fmt.Errorf("--%s: %w", flag.Name, value.Unwrap())
		}
	}
	return err
}

// noEmptyFlag refuses flags that were given without a value, as an unset
// variable of a shell gives them: --limit "" would mean every host.
func noEmptyFlag(cmd *cobra.Command) error {
	var err error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if value := f.Value.String(); value == "" || value == "[]" {
			err = fmt.Errorf("--%s is given without a value", f.Name)
		}
	})
	return err
}

// assignments collects name=value of a flag that can be given several times.
// A value is free text; nothing in it separates or quotes.
type assignments map[string]string

var _ pflag.Value = assignments{}

func (a assignments) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	switch _, twice := a[name]; {
	case !ok:
		return errors.New("write name=value")
	case twice:
		return fmt.Errorf("%q is set twice", name)
	}
	a[name] = value
	return nil
}

func (assignments) Type() string { return "name=value" }

// String is not what was set, which may be long or private.
func (a assignments) String() string {
	if len(a) == 0 {
		return ""
	}
	return fmt.Sprintf("%d variables", len(a))
}
