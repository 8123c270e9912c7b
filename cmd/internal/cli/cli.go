package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/inventory/tomlfile"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/plugins/docker"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/podman"
	"github.com/teal-deploy/teal/plugins/sdk"
)

// version is set when a release is built.
var version = "devel"

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs teal with args, the first of which is the program's name, and
// returns its exit code. When teal was started by itself as the process of a
// built-in runtime, it serves that instead.
func Main(args []string, s Streams) int {
	if name, ok := loader.BuiltinRequested(args[1:]); ok {
		switch name {
		case "docker":
			sdk.Serve(docker.New())
			return 0
		case "podman":
			sdk.Serve(podman.New())
			return 0
		default:
			fmt.Fprintf(s.Err, "teal: no built-in runtime is called %q\n", name)
			return orchestrator.OutcomeUsage.Code()
		}
	}
	ctx, stop := interruptible(context.Background(), s.Err)
	defer stop()
	return Run(ctx, args[1:], s)
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// interruptible returns a context that ends with the first SIGINT, SIGTERM or
// SIGHUP. The second one ends the process at once: what is on the hosts is
// defined at every moment, and the next command puts it right.
func interruptible(ctx context.Context, out io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		select {
		case sig := <-signals:
			fmt.Fprintf(out, "\nteal: %s: ending in a safe state; once more ends at once\n", sig)
			cancel(errInterrupted)
		case <-ended:
			return
		}
		select {
		case sig := <-signals:
			// The default is restored and the signal sent again, so that the
			// parent sees what ended teal.
			signal.Reset(sig)
			fmt.Fprintln(out, "teal: ended at once; run `teal status`, and the next `teal deploy` puts right what is left")
			_ = syscall.Kill(os.Getpid(), sig.(syscall.Signal)) //nolint:forcetypeassert // on unix it is one
		case <-ended:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		cancel(nil)
	}
}

// An exitError carries the exit code of a command that has said everything
// already.
type exitError struct{ outcome orchestrator.Outcome }

func (e *exitError) Error() string { return string(e.outcome) }

// Run runs one command line and returns its exit code.
func Run(ctx context.Context, args []string, s Streams) int {
	started := false
	root := newRoot(s) //nolint:contextcheck // commands get it from cobra
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		err := noEmptyFlag(cmd)
		started = err == nil
		return err
	}
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if !started {
		err = &orchestrator.UsageError{Err: fmt.Errorf("%s: %w; see %[1]s --help", cmd.CommandPath(), err)}
	}
	return finish(cmd, err, s)
}

// finish says why a command ended, as far as nobody has yet, and returns its
// exit code.
func finish(cmd *cobra.Command, err error, s Streams) int {
	if exit, said := errors.AsType[*exitError](err); said {
		return exit.outcome.Code()
	}
	outcome := orchestrator.OutcomeOf(err)
	switch {
	case errors.Is(err, errInterrupted):
		outcome = orchestrator.OutcomeAborted
	case outcome == orchestrator.OutcomeUsage:
		fmt.Fprintf(s.Err, "%v\n", err)
	default:
		fmt.Fprintf(s.Err, "teal: %v\n", err)
	}
	if asJSON, ferr := cmd.Flags().GetBool("json"); ferr == nil && asJSON {
		now := time.Now()
		_ = display.NewJSON(s.Out).Finish(orchestrator.Result{ // to write is all that is left to do
			Command: cmd.Name(), Outcome: outcome, Started: now, Ended: now, Err: err,
		})
	}
	return outcome.Code()
}

func newRoot(s Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "teal",
		Short: "Blue-green deployment to any server that answers SSH",
		Long: `teal deploys a new release of an app to every server of an inventory, with no
failed request and nothing installed on the servers.

Blue is what serves now, green is what is about to. On each server teal renews
the image, downloads the code, creates green, installs in it, tests it, directs
all new connections to it, and has blue removed ten seconds later.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(explainFlag)
	root.SetUsageFunc(usage)
	root.SetHelpCommand(newHelp())
	root.AddCommand(
		newDeploy(s), newPlan(s), newSetup(s), newStatus(s), newRollback(s), newHistory(s), newConfig(s), newPlugins(s), newVersion(s),
	)
	return root
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Say what a command does and which flags it has",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err == nil {
				err = knownCommand(about, rest)
			}
			if err != nil {
				return &orchestrator.UsageError{Err: fmt.Errorf("%s: %w; see %[1]s --help", cmd.Root().Name(), err)}
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// knownCommand refuses the name of a command that does not exist.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return withHint(fmt.Sprintf("there is no command %q", args[0]), tomlfile.DidYouMean(args[0], names))
}

// noArguments refuses whatever is neither a command nor a flag.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("takes no arguments, and got %q", strings.Join(args, " "))
	}
	return nil
}

// withHint makes an error of a sentence and advice that may be empty.
func withHint(text, hint string) error {
	if hint != "" {
		text += " (" + hint + ")"
	}
	return errors.New(text)
}
