package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

const (
	// defaultCheckImage is small, public, and has what the test needs.
	defaultCheckImage = "docker.io/library/busybox:stable"
	// noImage says that a runtime has no images.
	noImage = "none"
)

func newPluginsCheck(s Streams) *cobra.Command {
	o := &options{streams: s}
	c := &pluginCheck{options: o}
	cmd := &cobra.Command{
		Use:   "check name|path [flags] [-- command]",
		Short: "Try on a server whether a runtime keeps its promises",
		Long: `Check runs the conformance test of runtimes on a server: every operation, done
once and again, cancelled in the middle, with nonsense, with several at a time, and
what another process of the plugin finds after the first one was killed. It makes
containers whose names begin with teal-test, publishes one of them on loopback, and
removes them.

The runtime is docker, podman, the name of a plugin, or the path of one, with a
slash. What the app file says of the plugin counts, if there is an app file. What a
plugin does not claim to be able to do is no failure. It exits with 4 when a promise
is broken, and with 5 when a server cannot be reached.`,
		Example: `  teal plugins check process --on root@203.0.113.7 --image none
  teal plugins check ./teal-runtime-mine -i inventory.toml --limit web1
  teal plugins check podman --on deploy@203.0.113.7`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args, c.serve = args[:n], args[n:]
			}
			if len(args) != 1 {
				return errors.New("name one runtime, or the path of one")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&c.image, "image", defaultCheckImage, "an `image` with the tools of busybox, or none for a runtime that has no images; a command behind -- listens on port 8080 in place of its httpd")
	f.DurationVar(&c.timeout, "timeout", 0, "how `long` each part of the test may take (default 30s)")
	f.StringVar(&c.publish, "publish", "", "an `address:port` of the server to publish at; the next port must be free as well (default: one of loopback that is)")
	o.bind(cmd)
	return cmd
}

// A pluginCheck is what teal plugins check is to do.
type pluginCheck struct {
	*options
	image   string
	publish string
	timeout time.Duration
	serve   []string
}

// A checkedHost is what the test came to on a host.
type checkedHost struct {
	host   string
	checks []plugintest.Check
	err    error // the host cannot be reached
}

func (c *pluginCheck) run(ctx context.Context, runtime string) error {
	opts, err := c.testOptions()
	if err != nil {
		return &orchestrator.UsageError{Err: err}
	}
	launch, launchErr := c.candidate(runtime)
	hosts, hostsErr := c.hosts()
	if err := errors.Join(launchErr, hostsErr); err != nil {
		return &orchestrator.UsageError{Err: err}
	}
	launch.Log = c.logger()
	// What cannot be started is known before anything is connected to.
	plugin, err := loader.Start(ctx, launch)
	if err != nil {
		return &orchestrator.UsageError{Err: err}
	}
	about := strings.TrimSpace(launch.Name + " " + plugin.Version())
	if err := plugin.Close(); err != nil {
		return err
	}
	if !c.json {
		fmt.Fprintf(c.streams.Err, "teal: checking %s on %s; it takes up to a few minutes\n", about, few(hosts))
	}
	dialer := c.dialer()
	defer func() { _ = dialer.Close() }()
	found := make([]checkedHost, len(hosts))
	var all sync.WaitGroup
	for i, h := range hosts {
		all.Go(func() { found[i] = checkHost(ctx, dialer, h, launch, opts) })
	}
	all.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := c.show(about, found); err != nil {
		return err
	}
	if outcome := checkOutcome(found); outcome != orchestrator.OutcomeDone {
		return &exitError{outcome}
	}
	return nil
}

func (c *pluginCheck) testOptions() (plugintest.Options, error) {
	opts := plugintest.Options{
		Image: c.image, Policy: plugins.PullMissing, Serve: c.serve, Timeout: c.timeout, Discover: true,
	}
	if c.image == noImage {
		opts.Image = ""
	}
	if c.timeout < 0 {
		return opts, fmt.Errorf("--timeout: %v is not a time to wait", c.timeout)
	}
	if c.publish == "" {
		return opts, nil
	}
	var err error
	if opts.Publish, err = netip.ParseAddrPort(c.publish); err != nil || opts.Publish.Port() == 0 {
		return opts, fmt.Errorf("--publish: %q is no address with a port, such as 127.0.0.1:8080", c.publish)
	}
	return opts, nil
}

// candidate is the runtime to be checked. A path is run as it is: whoever names
// it has the file in mind.
func (c *pluginCheck) candidate(runtime string) (loader.Spec, error) {
	if slices.Contains(spec.Builtins(), runtime) {
		return loader.Builtin(runtime)
	}
	p, err := c.project()
	if err != nil {
		return loader.Spec{}, err
	}
	if !strings.ContainsRune(runtime, filepath.Separator) {
		found, err := p.find(runtime)
		return p.launch(found), err
	}
	path, err := filepath.Abs(runtime)
	if err != nil {
		return loader.Spec{}, err
	}
	name := loader.NameOf(path)
	found, err := loader.Find(name, loader.FindOptions{Path: path, Protocol: loader.Protocol(p.app.Plugins[name].Protocol)})
	return p.launch(found), err
}

// hosts are those to check on. The whole inventory is meant by nobody who says
// nothing: the test makes containers.
func (c *pluginCheck) hosts() ([]inventory.Host, error) {
	inv, err := c.loadInventory()
	if err != nil {
		return nil, err
	}
	pattern := c.limit
	if pattern == "" && len(c.on) == 0 {
		return nil, errors.New("say on which server to check: --on user@host, or --limit with a host of the inventory")
	}
	hosts, err := inv.Select(cmp.Or(pattern, "all"))
	if err != nil {
		return nil, fmt.Errorf("--limit: %w", err)
	}
	return hosts, nil
}

// checkHost runs the test on one host, with processes of the plugin for it
// alone: one of them is killed.
func checkHost(ctx context.Context, dialer *remote.Dialer, h inventory.Host, launch loader.Spec, opts plugintest.Options) checkedHost {
	checked := checkedHost{host: h.Name}
	conn, err := dialer.Dial(ctx, h)
	if err != nil {
		checked.err = err
		return checked
	}
	defer func() { _ = conn.Close() }()
	plugin, err := loader.Start(ctx, launch)
	if err != nil {
		checked.checks = []plugintest.Check{{Name: "start", Err: err}}
		return checked
	}
	defer func() { _ = plugin.Close() }()
	if pid := plugin.PID(); pid != 0 { // else each call has a process of its own
		opts.Crash = func(ctx context.Context) (plugins.Runtime, error) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return nil, err
			}
			fresh, err := loader.Start(ctx, launch)
			if err != nil {
				return nil, err
			}
			_ = plugin.Close() // of the killed one
			plugin = fresh
			return fresh.Runtime(), nil
		}
	}
	checked.checks = plugintest.Report(ctx, plugin.Runtime(), conn, opts)
	return checked
}

func checkOutcome(found []checkedHost) orchestrator.Outcome {
	outcome := orchestrator.OutcomeDone
	for _, h := range found {
		if slices.ContainsFunc(h.checks, func(c plugintest.Check) bool { return c.Err != nil }) {
			return orchestrator.OutcomeFailed
		}
		if h.err != nil {
			outcome = orchestrator.OutcomeUnreachable
		}
	}
	return outcome
}

// checkResult is what a check came to, in words.
func checkResult(c plugintest.Check) string {
	switch {
	case c.Err != nil:
		return "failed"
	case c.Skipped:
		return "not claimed"
	}
	return "ok"
}

func (c *pluginCheck) show(about string, found []checkedHost) error {
	if c.json {
		return c.showJSON(about, found)
	}
	var errs []error
	for i, h := range found {
		if i > 0 {
			fmt.Fprintln(c.streams.Out)
		}
		if h.err != nil {
			errs = append(errs, display.Text(c.streams.Out, h.host+": "+reason(h.host, h.err)))
			continue
		}
		var rows [][]string
		var failures strings.Builder
		counts := map[string]int{}
		for _, check := range h.checks {
			result := checkResult(check)
			counts[result]++
			rows = append(rows, []string{h.host, check.Name, result, check.Took.Round(10 * time.Millisecond).String()})
			if check.Err != nil {
				fmt.Fprintf(&failures, "\n%s: %s\n  %s\n", h.host, check.Name, strings.ReplaceAll(reason(h.host, check.Err), "\n", "\n  "))
			}
		}
		fmt.Fprintf(&failures, "\n%s on %s: %d ok, %d failed, %d not claimed\n", about, h.host, counts["ok"], counts["failed"], counts["not claimed"])
		errs = append(errs, display.Table(c.streams.Out, []string{"HOST", "CHECK", "RESULT", "TOOK"}, rows), display.Text(c.streams.Out, failures.String()))
	}
	return errors.Join(errs...)
}

func (c *pluginCheck) showJSON(about string, found []checkedHost) error {
	out := json.NewEncoder(c.streams.Out)
	var errs []error
	for _, h := range found {
		if h.err != nil {
			errs = append(errs, out.Encode(map[string]any{"schema": 1, "plugin": about, "host": h.host, "result": "unreachable", "error": h.err.Error()}))
		}
		for _, check := range h.checks {
			row := map[string]any{
				"schema": 1, "plugin": about, "host": h.host, "check": check.Name, "result": checkResult(check), "took_ms": check.Took.Milliseconds(),
			}
			if check.Err != nil {
				row["error"] = check.Err.Error()
			}
			errs = append(errs, out.Encode(row))
		}
	}
	return errors.Join(errs...)
}
