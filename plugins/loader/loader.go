package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc/status"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/wire"
)

const (
	defaultStartTimeout = 10 * time.Second
	pingTimeout         = 5 * time.Second
	// lastWords is how long a broken connection waits for the plugin's
	// process to end, so that the error can say what it wrote at last.
	lastWords = time.Second
	// closeTimeout is when Close stops listening to what a plugin left
	// running: longer than go-plugin takes to end the plugin itself.
	closeTimeout = 4 * time.Second
)

// A Spec says which plugin to start.
type Spec struct {
	Name   string   // for messages: the name of the runtime
	Cmd    []string // program and arguments; a program without a slash is looked up in PATH
	SHA256 string   // of the program, in hexadecimal; empty: not checked
	Log    *slog.Logger

	// Settings are for the plugin, as the app file has them: what TOML can
	// hold.
	Settings map[string]any

	// Protocol is what the program speaks; "": GRPC.
	Protocol Protocol

	// StartTimeout bounds the time to the plugin's first answer; 0: 10 s.
	StartTimeout time.Duration
}

// A Protocol is a way to speak with a plugin.
type Protocol string

// The protocols.
const (
	GRPC Protocol = "grpc" // go-plugin: one process as long as teal; package sdk speaks it
	Exec Protocol = "exec" // lines of JSON, one process for each call: for shell scripts
)

// A Plugin is a runtime in a process of its own.
type Plugin struct {
	client  *goplugin.Client
	process *process
	runtime plugins.Runtime
	caps    *wire.Capabilities
	dir     string
	once    sync.Once
	err     error
}

// Start starts a plugin and returns when it has answered. An error tells what
// the plugin wrote to standard error before it gave up; its kind is Denied for
// a program that must not be trusted, NotFound for one that is not there, and
// Unavailable for one that does not become a plugin. What the plugin has
// against Settings is of kind Invalid, with a *plugins.SettingError for each.
func Start(ctx context.Context, spec Spec) (*Plugin, error) {
	path, err := program(spec)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(socketRoot(os.TempDir()), "teal")
	if err != nil {
		return nil, failed(spec, plugins.Unavailable, err)
	}
	if spec.Log == nil {
		spec.Log = slog.New(slog.DiscardHandler)
	}
	if spec.Protocol == Exec {
		return startExec(ctx, spec, path, dir)
	}
	p := &Plugin{dir: dir, process: newProcess(path, spec.Cmd, environment(dir))}
	limit := cmp.Or(spec.StartTimeout, defaultStartTimeout)
	p.client = goplugin.NewClient(p.config(spec, limit))
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	if err := p.connect(ctx, spec.Settings); err != nil {
		_ = p.Close()
		if _, ok := errors.AsType[*plugins.SettingError](err); ok {
			return nil, failed(spec, plugins.Invalid, err)
		}
		if last := p.process.tail.String(); last != "" {
			err = fmt.Errorf("%w: %s", err, last)
		}
		return nil, failed(spec, plugins.Unavailable, err)
	}
	return p, nil
}

// socketRoot is where plugins have their sockets: dir, unless the path of a
// socket in it would be longer than the 104 bytes that every system takes.
func socketRoot(dir string) string {
	const longest = 104 - len("/teal0123456789/plugin-dir0123456789/plugin0123456789\x00")
	if len(dir) > longest {
		return "/tmp"
	}
	return dir
}

func failed(spec Spec, kind plugins.Kind, err error) error {
	return &plugins.Error{Op: "start plugin " + spec.Name, Kind: kind, Err: err}
}

func (p *Plugin) config(spec Spec, limit time.Duration) *goplugin.ClientConfig {
	log := spec.Log.With("plugin", spec.Name)
	return &goplugin.ClientConfig{
		HandshakeConfig: wire.Handshake(),
		VersionedPlugins: map[int]goplugin.PluginSet{
			wire.Version: {wire.Name: &wire.Plugin{RuntimeName: spec.Name, Died: p.process.lastWords}},
		},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		GRPCDialOptions:  wire.DialOptions(),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: p.dir},
		// go-plugin gives a Cmd the operator's standard input whatever the Cmd
		// says; a runner of our own takes from it the environment alone.
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			return p.process, p.process.prepare(cmd.Env)
		},
		StartTimeout: limit,
		Logger:       hclogTo(log),
		Stderr:       &p.process.tail,
		SyncStdout:   lines(func(s string) { log.Info(s) }),
		SyncStderr:   io.MultiWriter(&p.process.tail, lines(func(s string) { log.Info(s) })),
	}
}

// connect starts the process and proves that it answers: the handshake alone
// says nothing of the socket behind it.
func (p *Plugin) connect(ctx context.Context, settings map[string]any) error {
	// go-plugin knows no context, but it ends its waits when the process ends.
	defer context.AfterFunc(ctx, func() { _ = p.process.Kill(ctx) })()
	client, err := p.dispense()
	if err != nil {
		err = explain(err)
	} else {
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		err = client.Configure(ctx, settings)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	p.runtime, p.caps = client.Runtime(), client.Capabilities()
	return nil
}

func (p *Plugin) dispense() (*wire.Client, error) {
	protocol, err := p.client.Client()
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
func explain(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	printed, ok := strings.CutPrefix(first, "Unrecognized remote plugin message: ")
	switch {
	case ok && printed != "":
		return fmt.Errorf("it is no plugin of teal: it printed %.80q", printed)
	case ok:
		return errors.New("it ended before it became a plugin")
	case first != err.Error():
		return errors.New(first)
	}
	return err
}

// Runtime returns the plugin's runtime. It has exactly the optional
// interfaces of package plugins that the runtime in the plugin has. A call on
// a plugin that has died is an error of kind Unavailable with the plugin's
// last words.
func (p *Plugin) Runtime() plugins.Runtime { return p.runtime }

// Version returns what the plugin calls itself, "" when it has no name for it.
func (p *Plugin) Version() string { return p.caps.GetVersion() }

// Abilities returns the names of the optional interfaces of package plugins
// that the runtime has: "restart", "restart-policy", "logs", "local-commands"
// and "settings".
func (p *Plugin) Abilities() []string { return p.caps.Abilities() }

// PID returns the process id of the plugin, 0 when each call has a process of
// its own.
func (p *Plugin) PID() int {
	if p.process == nil {
		return 0
	}
	return p.process.pid()
}

// Close ends the plugin, by force when it does not leave by itself within two
// seconds, and removes its folder. It may be called more than once.
func (p *Plugin) Close() error {
	p.once.Do(func() {
		if p.process != nil {
			defer time.AfterFunc(closeTimeout, p.process.abandon).Stop()
			p.client.Kill()
		}
		p.err = os.RemoveAll(p.dir)
	})
	return p.err
}

// environment is all that a plugin gets to see of teal's.
func environment(dir string) []string {
	env := []string{"TMPDIR=" + dir}
	for _, name := range []string{
		"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"GOCOVERDIR",
	} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// lines calls a function for each line that is written.
type lines func(string)

func (emit lines) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		emit(strings.TrimRight(line, "\r\n"))
	}
	return len(p), nil
}

// executable resolves a program to a path.
func executable(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
