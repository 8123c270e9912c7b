package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/teal-deploy/teal/examples/runtimes"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins/loader"
)

func newPluginsNew(s Streams) *cobra.Command {
	o := &options{streams: s}
	language := ""
	cmd := &cobra.Command{
		Use:   "new name",
		Short: "Begin a runtime of your own",
		Long: `New writes a plugin to begin with into the folder teal-runtime-NAME, which must
not be there. Processes on the server take the part of containers in it, and it
passes the conformance test as it is: replace them by yours, and keep it passing.

In go the plugin is a module of its own that uses teal's packages, with the
conformance test as a test. In python it speaks the protocol itself, over gRPC. In
sh it is one file, which speaks in lines of JSON and needs jq.`,
		Example: `  teal plugins new mine
  teal plugins new mine --lang sh`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("say one name for the plugin")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return o.newPlugin(args[0], language) },
	}
	cmd.Flags().StringVar(&language, "lang", "go", "the `language`: "+strings.Join(runtimes.Languages(), ", "))
	under(cmd, headingCommon, func(f *pflag.FlagSet) { f.BoolVar(&o.json, "json", false, "print JSON, one object a line") })
	return cmd
}

func (o *options) newPlugin(name, language string) error {
	err := loader.CheckName(name)
	if slices.Contains(spec.Builtins(), name) {
		err = fmt.Errorf("%s is built in: give the plugin another name", name)
	}
	skeleton, langErr := runtimes.NewSkeleton(language, name, released(built()))
	if err := errors.Join(err, langErr); err != nil {
		return &orchestrator.UsageError{Err: err}
	}
	folder := "teal-runtime-" + name
	switch err := writeSkeleton(folder, skeleton); {
	case errors.Is(err, fs.ErrExist):
		return &orchestrator.UsageError{Err: fmt.Errorf("there is a %s here already", folder)}
	case err != nil:
		return err
	}
	check := "teal plugins check ./" + skeleton.Program + " --image none --on root@203.0.113.7"
	if o.json {
		return json.NewEncoder(o.streams.Out).Encode(map[string]any{
			"schema": 1, "name": name, "folder": folder, "program": skeleton.Program, "next": append(slices.Clone(skeleton.Next), check),
		})
	}
	fmt.Fprintf(o.streams.Out, "%s has the plugin %s. Go on with\n\n    cd %[1]s\n", folder, name)
	for _, line := range append(slices.Clone(skeleton.Next), check) {
		fmt.Fprintf(o.streams.Out, "    %s\n", line)
	}
	fmt.Fprintf(o.streams.Out, "\nand a server of yours. An app says runtime = %q, and finds %s\nin .teal/plugins beside its file.\n", name, skeleton.Program)
	return nil
}

// writeSkeleton makes a folder with the files, or nothing.
func writeSkeleton(folder string, skeleton runtimes.Skeleton) (err error) {
	if err := os.Mkdir(folder, 0o755); err != nil { //nolint:gosec // it is source code
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(folder))
		}
	}()
	return skeleton.Write(folder)
}

// built is what this program calls itself, and what go build does.
func built() []string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return []string{version, info.Main.Version}
	}
	return []string{version}
}

// released returns the first that is a version of teal's module which everybody
// can get, and "" when there is none.
func released(candidates []string) string {
	published := regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)[.0-9]*)?$`)
	for _, v := range candidates {
		if published.MatchString(v) {
			return v
		}
	}
	return ""
}
