package loader

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/execruntime"
	"github.com/teal-deploy/teal/plugins/internal/fault"
	"github.com/teal-deploy/teal/plugins/internal/wire"
)

// How long a call may take. Exec has no bound here: only its caller knows how
// long a command runs. Stop and Restart get the container's grace besides.
const (
	pullLimit   = time.Hour       // an image may be large and the line thin
	changeLimit = 5 * time.Minute // Create, Stop, Restart, Remove: an engine may be busy
	askLimit    = time.Minute     // what looks, and changes little
)

// A guard is a plugin's runtime as teal uses it. It bounds every call, has a
// plugin that died started again for the next one, lets no answer through that
// speaks of something else than the question, and makes every error name the
// call, the host and the plugin.
type guard struct{ plugin *Plugin }

var _ wire.Every = (*guard)(nil)

// do makes a call within a time; 0: the caller's alone.
func (g *guard) do(ctx context.Context, op string, h plugins.Host, limit time.Duration,
	call func(context.Context, plugins.Runtime) error,
) error {
	rt, err := g.plugin.current(ctx)
	if err != nil {
		return &plugins.Error{Op: op, Host: h.String(), Kind: plugins.Unavailable, Err: err}
	}
	if limit == 0 {
		return g.explain(ctx, op, h, call(ctx, rt))
	}
	over := &lateError{limit}
	within, cancel := context.WithTimeoutCause(ctx, limit, over)
	defer cancel()
	began := time.Now()
	err = call(within, rt)
	// A plugin whose clock is ahead has given up by itself.
	gaveUp := errors.Is(err, context.DeadlineExceeded) && time.Since(began) > limit-time.Second
	if ctx.Err() == nil && (errors.Is(err, over) || gaveUp) {
		return g.late(op, h, over, err)
	}
	return g.explain(ctx, op, h, err)
}

// A lateError is the cause of a context whose call has taken too long.
type lateError struct{ limit time.Duration }

func (e *lateError) Error() string { return fmt.Sprintf("gave no answer within %v", e.limit) }

func (g *guard) late(op string, h plugins.Host, over *lateError, err error) error {
	f := &fault.Error{Plugin: g.plugin.spec.Name, What: over.Error(), Said: g.said(err)}
	if errors.Is(err, wire.ErrCutOff) {
		f.What += " and did not end when it was told to"
	}
	return &plugins.Error{Op: op, Host: h.String(), Kind: plugins.Unavailable, Err: f}
}

// said returns the last lines of a plugin that did not answer in time.
func (g *guard) said(err error) string {
	if c, ok := errors.AsType[*execruntime.CancelledError](err); ok {
		return c.Said
	}
	return g.plugin.said()
}

// explain completes what a plugin says of a failure.
func (g *guard) explain(ctx context.Context, op string, h plugins.Host, err error) error {
	_, exited := errors.AsType[*plugins.ExitError](err)
	_, cancelled := errors.AsType[*execruntime.CancelledError](err)
	switch late := errors.Is(ctx.Err(), context.DeadlineExceeded); {
	case late && (cancelled || errors.Is(err, wire.ErrCutOff)) && g.said(err) != "":
		return fmt.Errorf("%w; plugin %s said last: %s", err, g.plugin.spec.Name, g.said(err))
	case err == nil, exited, ctx.Err() != nil:
		return err
	}
	e, ok := err.(*plugins.Error) //nolint:errorlint // what it wraps is the plugin's business
	if !ok {
		return &plugins.Error{Op: op, Host: h.String(), Kind: plugins.KindOf(err), Err: err}
	}
	full := &plugins.Error{Op: cmp.Or(e.Op, op), Host: h.String(), Kind: e.Kind, Err: e.Err}
	if e.Host != "" && e.Host != h.String() {
		full.Err = fmt.Errorf("plugin %s spoke of the host %s: %w", g.plugin.spec.Name, e.Host, cmp.Or(e.Err, error(e.Kind)))
	}
	if !known(e.Kind) {
		full.Err = fmt.Errorf("%w (of the kind %.40q, which teal does not know)", cmp.Or(full.Err, error(e.Kind)), string(e.Kind))
	}
	return full
}

func known(k plugins.Kind) bool {
	switch k {
	case "", plugins.NotFound, plugins.Exists, plugins.Conflict, plugins.Invalid, plugins.Denied,
		plugins.Unavailable, plugins.Unsupported, plugins.Lost:
		return true
	}
	return false
}

// wrong is the error of an answer that is none.
func (g *guard) wrong(op string, h plugins.Host, format string, args ...any) error {
	return &plugins.Error{Op: op, Host: h.String(), Kind: plugins.Invalid, Err: fmt.Errorf(
		"plugin %s answered with %s: this is a mistake in the plugin", g.plugin.spec.Name, fmt.Sprintf(format, args...))}
}

// errLacks says that a plugin has lost an ability since it was first started.
var errLacks = &plugins.Error{Kind: plugins.Unsupported, Err: errors.New("the plugin cannot do that")}

// asking and changing are the bounds of two sorts of calls, unless the spec
// has one for all.
func (g *guard) asking() time.Duration   { return cmp.Or(g.plugin.spec.CallTimeout, askLimit) }
func (g *guard) changing() time.Duration { return cmp.Or(g.plugin.spec.CallTimeout, changeLimit) }

// Probe implements plugins.Runtime.
func (g *guard) Probe(ctx context.Context, h plugins.Host) (info plugins.Info, err error) {
	err = g.do(ctx, "probe", h, g.asking(), func(ctx context.Context, rt plugins.Runtime) (err error) {
		info, err = rt.Probe(ctx, h)
		return err
	})
	return info, err
}

// Pull implements plugins.Runtime.
func (g *guard) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (image plugins.Image, err error) {
	op := "pull " + req.Image
	err = g.do(ctx, op, h, pullLimit, func(ctx context.Context, rt plugins.Runtime) (err error) {
		image, err = rt.Pull(ctx, h, req)
		return err
	})
	if err == nil && image.Reference == "" {
		return plugins.Image{}, g.wrong(op, h, "an image that has no reference")
	}
	return image, err
}

// Create implements plugins.Runtime. An answer that is another container is
// an error: what teal would do to that it must not.
func (g *guard) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (c plugins.Container, err error) {
	op := "create " + spec.Name
	err = g.do(ctx, op, h, g.changing(), func(ctx context.Context, rt plugins.Runtime) (err error) {
		c, err = rt.Create(ctx, h, spec)
		return err
	})
	switch {
	case err != nil:
		return plugins.Container{}, err
	case c.Name != spec.Name:
		return plugins.Container{}, g.wrong(op, h, "another container, %.80q", c.Name)
	case c.ID == "":
		return plugins.Container{}, g.wrong(op, h, "a container that has no id")
	case !c.HasLabels(spec.Labels):
		return plugins.Container{}, g.wrong(op, h, "a container that lacks the labels that it was to have")
	}
	return c, nil
}

// Exec implements plugins.Runtime.
func (g *guard) Exec(ctx context.Context, h plugins.Host, id string, cmd *plugins.Command) error {
	return g.do(ctx, "exec in "+id, h, 0, func(ctx context.Context, rt plugins.Runtime) error {
		return rt.Exec(ctx, h, id, cmd)
	})
}

// List implements plugins.Runtime. An answer with other containers than those
// that were asked for is an error: teal stops and removes what it finds.
func (g *guard) List(ctx context.Context, h plugins.Host, labels map[string]string) (list []plugins.Container, err error) {
	const op = "list containers"
	err = g.do(ctx, op, h, g.asking(), func(ctx context.Context, rt plugins.Runtime) (err error) {
		list, err = rt.List(ctx, h, labels)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		switch {
		case c.ID == "":
			return nil, g.wrong(op, h, "a container that has no id, %.80q", c.Name)
		case !c.HasLabels(labels):
			return nil, g.wrong(op, h, "a container that has not the labels asked for, %.80q", cmp.Or(c.Name, c.ID))
		}
	}
	return list, nil
}

// Stop implements plugins.Runtime.
func (g *guard) Stop(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return g.do(ctx, "stop "+id, h, g.changing()+grace, func(ctx context.Context, rt plugins.Runtime) error {
		return rt.Stop(ctx, h, id, grace)
	})
}

// Remove implements plugins.Runtime.
func (g *guard) Remove(ctx context.Context, h plugins.Host, id string) error {
	return g.do(ctx, "remove "+id, h, g.changing(), func(ctx context.Context, rt plugins.Runtime) error {
		return rt.Remove(ctx, h, id)
	})
}

// Restart implements plugins.Restarter.
func (g *guard) Restart(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return g.do(ctx, "restart "+id, h, g.changing()+grace, func(ctx context.Context, rt plugins.Runtime) error {
		if rs, ok := rt.(plugins.Restarter); ok {
			return rs.Restart(ctx, h, id, grace)
		}
		return errLacks
	})
}

// SetRestartPolicy implements plugins.RestartPolicySetter.
func (g *guard) SetRestartPolicy(ctx context.Context, h plugins.Host, id string, policy plugins.RestartPolicy) error {
	return g.do(ctx, "set restart policy of "+id, h, g.asking(), func(ctx context.Context, rt plugins.Runtime) error {
		if rs, ok := rt.(plugins.RestartPolicySetter); ok {
			return rs.SetRestartPolicy(ctx, h, id, policy)
		}
		return errLacks
	})
}

// Logs implements plugins.LogStreamer. Only the end of what comes is kept,
// however much that is.
func (g *guard) Logs(ctx context.Context, h plugins.Host, id string, lines int, w io.Writer) error {
	var tail fault.Tail
	err := g.do(ctx, "read logs of "+id, h, g.asking(), func(ctx context.Context, rt plugins.Runtime) error {
		if ls, ok := rt.(plugins.LogStreamer); ok {
			return ls.Logs(ctx, h, id, lines, &tail)
		}
		return errLacks
	})
	var text bytes.Buffer
	for _, line := range tail.Lines(lines) {
		text.WriteString(strings.TrimRight(line, "\r") + "\n")
	}
	if _, werr := text.WriteTo(w); err == nil {
		err = werr
	}
	return err
}

// LocalCommands implements plugins.LocalRemover.
func (g *guard) LocalCommands(ctx context.Context, h plugins.Host, id string, grace time.Duration) (cmds plugins.LocalCommands, err error) {
	op := "local commands for " + id
	err = g.do(ctx, op, h, g.asking(), func(ctx context.Context, rt plugins.Runtime) (err error) {
		if lr, ok := rt.(plugins.LocalRemover); ok {
			cmds, err = lr.LocalCommands(ctx, h, id, grace)
			return err
		}
		return errLacks
	})
	if err == nil && (len(cmds.Stop) == 0 || len(cmds.Remove) == 0) {
		return plugins.LocalCommands{}, g.wrong(op, h, "no commands")
	}
	return cmds, err
}
