package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

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
	// mostAgain is how often a plugin that has died is started again.
	mostAgain = 3
)

// A Spec says which plugin to start.
type Spec struct {
	Name   string       // for messages: the name of the runtime
	Cmd    []string     // program and arguments; a program without a slash is looked up in PATH
	SHA256 string       // of the program, in hexadecimal; empty: not checked
	Log    *slog.Logger // gets what the plugin writes; nil: nobody does

	// Settings are for the plugin, as the app file has them: what TOML can
	// hold.
	Settings map[string]any

	// Protocol is what the program speaks; "": GRPC.
	Protocol Protocol

	// StartTimeout bounds the time to the plugin's first answer; 0: 10 s.
	StartTimeout time.Duration

	// CallTimeout bounds each call but Pull, which has an hour, and Exec, which
	// has its caller's time. 0: five minutes for what makes, restarts or ends a
	// container, one minute for the others.
	CallTimeout time.Duration
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
	spec    Spec
	dir     string
	keeper  *keeper
	each    plugins.Runtime // starts a process for each call; nil: live serves them
	runtime plugins.Runtime // a guard
	caps    *wire.Capabilities
	once    sync.Once
	err     error

	mu     sync.Mutex // of what follows
	live   *instance  // serves all calls; nil: each has a process of its own
	again  int        // how often it was started anew
	closed bool
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
	p := &Plugin{spec: spec, dir: dir}
	if p.keeper, err = newKeeper(dir); err != nil {
		return nil, failed(spec, plugins.Unavailable, errors.Join(err, os.RemoveAll(dir)))
	}
	if err := p.start(ctx, path); err != nil {
		_ = p.Close()
		kind := plugins.Unavailable
		if _, ok := errors.AsType[*plugins.SettingError](err); ok {
			kind = plugins.Invalid
		}
		return nil, failed(spec, kind, err)
	}
	return p, nil
}

func (p *Plugin) start(ctx context.Context, path string) error {
	var err error
	if p.spec.Protocol == Exec {
		p.each, p.caps, err = p.describe(ctx, path)
	} else if p.live, err = p.launch(ctx, path); err == nil {
		p.caps = p.live.caps
	}
	if err != nil {
		return err
	}
	p.runtime = wire.Limit(&guard{p}, p.caps)
	return nil
}

// current returns the runtime of the process that lives. One that has died is
// started again for the next call: none is made twice, since each may be made
// again, and whoever makes it looks at the host before. So what a deployment
// has made can be removed although the plugin died of making it.
func (p *Plugin) current(ctx context.Context) (plugins.Runtime, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, fmt.Errorf("plugin %s has ended", p.spec.Name)
	case p.each != nil:
		return p.each, nil
	case p.live.alive():
		return p.live.runtime, nil
	case p.again == mostAgain:
		return nil, p.live.process.died(p.spec.Name)
	}
	p.again++
	p.live.close()
	path, err := program(p.spec)
	if err != nil {
		return nil, err
	}
	live, err := p.launch(ctx, path)
	if err != nil {
		return nil, failed(p.spec, plugins.Unavailable, err)
	}
	p.live = live
	return live.runtime, nil
}

// said returns the last lines of the process that serves all calls.
func (p *Plugin) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == nil {
		return ""
	}
	return p.live.process.tail.String()
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

// Runtime returns the plugin's runtime. It has exactly the optional
// interfaces of package plugins that the runtime in the plugin has.
//
// A call that takes too long (see Spec.CallTimeout), or that the plugin dies
// of, is an error of kind Unavailable with the plugin's last lines; an answer
// about something else than what was asked is one of kind Invalid.
func (p *Plugin) Runtime() plugins.Runtime { return p.runtime }

// Version returns what the plugin calls itself, "" when it has no name for it.
func (p *Plugin) Version() string { return p.caps.GetVersion() }

// Abilities returns the names of the optional interfaces of package plugins
// that the runtime has: "restart", "restart-policy", "logs", "local-commands"
// and "settings".
func (p *Plugin) Abilities() []string { return p.caps.Names() }

// PID returns the process id of the plugin, 0 when each call has a process of
// its own.
func (p *Plugin) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == nil {
		return 0
	}
	return p.live.process.pid()
}

// Close ends the plugin, by force when it does not leave by itself within two
// seconds, with all that it has started and not detached from its process
// group, and removes its folder. It may be called more than once.
func (p *Plugin) Close() error {
	p.once.Do(func() {
		p.mu.Lock()
		p.closed = true
		live := p.live
		p.mu.Unlock()
		if live != nil {
			live.close()
		}
		p.keeper.close()
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

// executable resolves a program to a path.
func executable(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
