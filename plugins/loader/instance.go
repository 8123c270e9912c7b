package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc/status"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/fault"
	"github.com/teal-deploy/teal/plugins/internal/wire"
)

// An instance is a process that serves a plugin's calls until it dies.
type instance struct {
	client  *goplugin.Client
	process *process
	runtime plugins.Runtime
	caps    *wire.Capabilities
	broken  atomic.Bool // a call has found the connection broken
}

// launch starts the program at path and returns when it has answered.
func (p *Plugin) launch(ctx context.Context, path string) (*instance, error) {
	limit := cmp.Or(p.spec.StartTimeout, defaultStartTimeout)
	i := &instance{process: newProcess(path, p.spec.Cmd, environment(p.dir), p.keeper)}
	i.client = goplugin.NewClient(i.config(p.spec, p.dir, limit))
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	err := i.connect(ctx, p.spec.Settings)
	if err == nil {
		return i, nil
	}
	i.close()
	_, setting := errors.AsType[*plugins.SettingError](err)
	_, told := errors.AsType[*fault.Error](err)
	if setting || told {
		return nil, err
	}
	if last := i.process.tail.String(); last != "" {
		err = fmt.Errorf("%w: %s", err, last)
	}
	return nil, err
}

func (i *instance) config(spec Spec, dir string, limit time.Duration) *goplugin.ClientConfig {
	told := hclog.NewNullLogger() // which spares the work of parsing what nobody reads
	emit := func(string) {}
	if spec.Log != nil {
		log := spec.Log.With("plugin", spec.Name)
		told = hclogTo(log)
		emit = func(line string) { log.Info(line) }
	}
	return &goplugin.ClientConfig{
		HandshakeConfig: wire.Handshake(),
		VersionedPlugins: map[int]goplugin.PluginSet{
			wire.Version: {wire.Name: &wire.Plugin{RuntimeName: spec.Name, Died: func() error {
				i.broken.Store(true)
				return i.process.died(spec.Name)
			}}},
		},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		GRPCDialOptions:  wire.DialOptions(),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		// go-plugin gives a Cmd the operator's standard input whatever the Cmd
		// says; a runner of our own takes from it the environment alone.
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			return i.process, i.process.prepare(cmd.Env)
		},
		StartTimeout: limit + time.Second, // ours is up first, and says so better
		Logger:       told,
		Stderr:       &i.process.tail,
		SyncStdout:   &fault.Lines{Emit: emit},
		SyncStderr:   io.MultiWriter(&i.process.tail, &fault.Lines{Emit: emit}),
	}
}

// connect starts the process and proves that it answers: the handshake alone
// says nothing of the socket behind it.
func (i *instance) connect(ctx context.Context, settings map[string]any) error {
	// go-plugin knows no context, but it ends its waits when the process ends.
	defer context.AfterFunc(ctx, func() { _ = i.process.Kill(ctx) })()
	client, err := i.dispense()
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		err = client.Configure(ctx, settings)
	} else if ctx.Err() == nil {
		err = i.explain(err)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	i.runtime, i.caps = client.Runtime(), client.Capabilities()
	return nil
}

func (i *instance) dispense() (*wire.Client, error) {
	protocol, err := i.client.Client()
	if err != nil {
		return nil, err
	}
	if err := protocol.Ping(); err != nil {
		return nil, fmt.Errorf("it does not answer: %s", status.Convert(err).Message())
	}
	raw, err := protocol.Dispense(wire.Name)
	if err != nil {
		return nil, err
	}
	client, ok := raw.(*wire.Client)
	if !ok {
		return nil, fmt.Errorf("dispensed a %T", raw)
	}
	return client, nil
}

// explain makes one line of what go-plugin says: it goes on to guess at
// reasons, and what the plugin wrote is a better one.
func (i *instance) explain(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	var theirs int
	if _, none := fmt.Sscanf(first, "incompatible API version with plugin. Plugin version: %d", &theirs); none == nil {
		return fault.Skew(theirs, wire.Version)
	}
	// go-plugin says the one or the other, whichever it notices first.
	if strings.HasPrefix(first, "Unrecognized remote plugin message: ") || first == "plugin exited before we could connect" {
		return i.noPlugin()
	}
	if first != err.Error() {
		return errors.New(first)
	}
	return err
}

// noPlugin is the error of a program that printed no handshake. The library has
// read what it printed to its end, or to that of a line.
func (i *instance) noPlugin() error {
	if line := i.process.stdout.line(); line != "" {
		return fmt.Errorf("it is no plugin of teal: it printed %q", line)
	}
	if how := i.process.how(); how != "" {
		return fmt.Errorf("it ended before it became a plugin (%s)", how)
	}
	return errors.New("it closed its standard output before it became a plugin")
}

// alive reports whether the instance can be asked.
func (i *instance) alive() bool {
	select {
	case <-i.process.exited:
		return false
	default:
		return !i.broken.Load()
	}
}

// close ends the process, by force when it does not leave by itself.
func (i *instance) close() {
	i.process.told.Store(true)
	defer time.AfterFunc(closeTimeout, i.process.abandon).Stop()
	i.client.Kill()
}
