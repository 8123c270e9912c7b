package execruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/fault"
	"github.com/teal-deploy/teal/plugins/internal/wire"
)

// A Program is the executable behind a runtime.
type Program struct {
	Name     string   // of the runtime, for messages
	Path     string   // of the executable
	Argv     []string // of it; the first is its name
	Env      []string
	Settings map[string]any

	// Verify is asked before each start; nil: all is well.
	Verify func() error
	// Log gets each line of standard error; nil: nobody does.
	Log func(line string)
	// Started is told the id of each process, which leads a group of its own,
	// and returns what is called when that has ended; nil: nobody asks.
	Started func(pid int) (ended func())
}

// New asks p what it can do and returns it as a runtime with exactly those
// optional interfaces, and what it said. What p has against its settings is a
// *plugins.SettingError.
func New(ctx context.Context, p Program) (plugins.Runtime, *wire.Capabilities, error) {
	rt := &runtime{program: p}
	if rt.program.Settings == nil {
		rt.program.Settings = map[string]any{}
	}
	var can struct {
		Protocol int      `json:"protocol"`
		Calls    []string `json:"calls"`
		Settings bool     `json:"settings"`
		Plugin   string   `json:"plugin_version"`
	}
	if err := rt.call(ctx, nil, "describe", request{Call: "describe"}, streams{}, &can); err != nil {
		return nil, nil, err
	}
	if can.Protocol != 0 && can.Protocol != version {
		return nil, nil, &plugins.Error{Op: "describe", Kind: plugins.Unsupported, Err: fault.Skew(can.Protocol, version)}
	}
	if len(p.Settings) > 0 && !can.Settings {
		return nil, nil, &plugins.SettingError{Err: fmt.Errorf("the plugin %s takes none", p.Name)}
	}
	caps := &wire.Capabilities{Settings: can.Settings, Version: can.Plugin}
	for _, call := range can.Calls {
		switch call {
		case "restart":
			caps.Restart = true
		case "restart-policy":
			caps.SetRestartPolicy = true
		case "logs":
			caps.Logs = true
		case "local-commands":
			caps.LocalCommands = true
		default:
			return nil, nil, &plugins.Error{Op: "describe", Kind: plugins.Unsupported, Err: fmt.Errorf("there is no optional call %q", call)}
		}
	}
	return wire.Limit(rt, caps), caps, nil
}

type runtime struct{ program Program }

var _ wire.Every = (*runtime)(nil)

func (r *runtime) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	var info struct {
		Name     string   `json:"name"`
		Version  string   `json:"version"`
		Warnings []string `json:"warnings"`
	}
	err := r.call(ctx, h, "probe", request{Call: "probe"}, streams{}, &info)
	return plugins.Info{Name: info.Name, Version: info.Version, Warnings: info.Warnings}, err
}

func (r *runtime) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	var image struct {
		Reference string `json:"reference"`
		Digest    string `json:"digest"`
	}
	ask := request{Call: "pull", Image: req.Image, Policy: req.Policy}
	if req.Auth != nil {
		ask.Auth = &auth{Username: req.Auth.Username, Password: req.Auth.Password}
	}
	err := r.call(ctx, h, "pull "+req.Image, ask, both(req.Progress), &image)
	return plugins.Image{Reference: image.Reference, Digest: image.Digest}, err
}

func (r *runtime) Create(ctx context.Context, h plugins.Host, s plugins.Spec) (plugins.Container, error) {
	var c container
	err := r.call(ctx, h, "create "+s.Name, request{Call: "create", Spec: specOf(s)}, streams{}, &c)
	return plugins.Container(c), err
}

func (r *runtime) Exec(ctx context.Context, h plugins.Host, id string, cmd *plugins.Command) error {
	var end struct {
		Code int `json:"code"`
	}
	ask := request{Call: "exec", ID: id, Command: &command{Args: cmd.Args, Env: cmd.Env}}
	s := streams{in: cmd.Stdin, out: cmd.Stdout, err: cmd.Stderr, last: new(plugins.ExitError)}
	if err := r.call(ctx, h, "exec in "+id, ask, s, &end); err != nil || end.Code == 0 {
		return err
	}
	return &plugins.ExitError{Host: h.String(), Args: cmd.Args, Code: end.Code, Stderr: s.last.Stderr}
}

func (r *runtime) List(ctx context.Context, h plugins.Host, labels map[string]string) ([]plugins.Container, error) {
	var found struct {
		Containers []container `json:"containers"`
	}
	if err := r.call(ctx, h, "list containers", request{Call: "list", Labels: labels}, streams{}, &found); err != nil {
		return nil, err
	}
	var list []plugins.Container
	for _, c := range found.Containers {
		list = append(list, plugins.Container(c))
	}
	return list, nil
}

func (r *runtime) Stop(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return r.call(ctx, h, "stop "+id, request{Call: "stop", ID: id, Grace: grace.Seconds()}, streams{}, nil)
}

func (r *runtime) Remove(ctx context.Context, h plugins.Host, id string) error {
	return r.call(ctx, h, "remove "+id, request{Call: "remove", ID: id}, streams{}, nil)
}

func (r *runtime) Restart(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return r.call(ctx, h, "restart "+id, request{Call: "restart", ID: id, Grace: grace.Seconds()}, streams{}, nil)
}

func (r *runtime) SetRestartPolicy(ctx context.Context, h plugins.Host, id string, policy plugins.RestartPolicy) error {
	return r.call(ctx, h, "set restart policy of "+id, request{Call: "restart-policy", ID: id, Restart: policy}, streams{}, nil)
}

func (r *runtime) Logs(ctx context.Context, h plugins.Host, id string, lines int, w io.Writer) error {
	return r.call(ctx, h, "read logs of "+id, request{Call: "logs", ID: id, Lines: lines}, both(w), nil)
}

func (r *runtime) LocalCommands(ctx context.Context, h plugins.Host, id string, grace time.Duration) (plugins.LocalCommands, error) {
	var local struct {
		PID    []string `json:"pid"`
		Stop   []string `json:"stop"`
		Remove []string `json:"remove"`
		Port   uint16   `json:"port"`
	}
	err := r.call(ctx, h, "local commands for "+id, request{Call: "local-commands", ID: id, Grace: grace.Seconds()}, streams{}, &local)
	return plugins.LocalCommands(local), err
}

// call starts the program for one call and stores its result in into.
func (r *runtime) call(ctx context.Context, h plugins.Host, op string, req request, s streams, into any) error {
	host := ""
	if h != nil {
		host = h.String()
	}
	req.Version, req.Host, req.Settings = version, host, r.program.Settings
	err := r.program.converse(ctx, h, req, s, into)
	if broken, ok := errors.AsType[*brokenError](err); ok {
		return &plugins.Error{
			Op: op, Host: host, Kind: plugins.Unavailable,
			Err: &fault.Error{Plugin: r.program.Name, What: broken.text, Said: broken.stderr},
		}
	}
	if said, ok := errors.AsType[*saidError](err); ok {
		return said.failure.err(op, host)
	}
	return err
}
