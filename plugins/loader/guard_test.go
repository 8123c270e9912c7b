package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/execruntime"
	"github.com/teal-deploy/teal/plugins/internal/wire"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// A stub is a runtime that says what it was told to say.
type stub struct {
	wait  bool // until the context ends
	err   error
	image plugins.Image
	c     plugins.Container
	local plugins.LocalCommands
	log   string
}

func (s *stub) do(ctx context.Context) error {
	if !s.wait {
		return s.err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (s *stub) Probe(ctx context.Context, _ plugins.Host) (plugins.Info, error) {
	return plugins.Info{}, s.do(ctx)
}

func (s *stub) Pull(ctx context.Context, _ plugins.Host, _ plugins.PullRequest) (plugins.Image, error) {
	return s.image, s.do(ctx)
}

func (s *stub) Create(ctx context.Context, _ plugins.Host, _ plugins.Spec) (plugins.Container, error) {
	return s.c, s.do(ctx)
}

func (s *stub) Exec(ctx context.Context, _ plugins.Host, _ string, _ *plugins.Command) error {
	return s.do(ctx)
}

func (s *stub) List(ctx context.Context, _ plugins.Host, _ map[string]string) ([]plugins.Container, error) {
	return []plugins.Container{s.c}, s.do(ctx)
}

func (s *stub) Stop(ctx context.Context, _ plugins.Host, _ string, _ time.Duration) error {
	return s.do(ctx)
}

func (s *stub) Remove(ctx context.Context, _ plugins.Host, _ string) error { return s.do(ctx) }

func (s *stub) Restart(ctx context.Context, _ plugins.Host, _ string, _ time.Duration) error {
	return s.do(ctx)
}

func (s *stub) SetRestartPolicy(ctx context.Context, _ plugins.Host, _ string, _ plugins.RestartPolicy) error {
	return s.do(ctx)
}

func (s *stub) Logs(ctx context.Context, _ plugins.Host, _ string, _ int, w io.Writer) error {
	_, _ = io.WriteString(w, s.log)
	return s.do(ctx)
}

func (s *stub) LocalCommands(ctx context.Context, _ plugins.Host, _ string, _ time.Duration) (plugins.LocalCommands, error) {
	return s.local, s.do(ctx)
}

func guarded(rt plugins.Runtime, limit time.Duration) *guard {
	return &guard{&Plugin{spec: Spec{Name: "mine", CallTimeout: limit}, each: rt}}
}

// calls are all that a runtime has, by what errors call them.
func calls(rt wire.Every) map[string]func(context.Context) error {
	h := plugintest.Local("web1")
	return map[string]func(context.Context) error{
		"probe": func(ctx context.Context) error { _, err := rt.Probe(ctx, h); return err },
		"pull shop:1": func(ctx context.Context) error {
			_, err := rt.Pull(ctx, h, plugins.PullRequest{Image: "shop:1"})
			return err
		},
		"create shop":     func(ctx context.Context) error { _, err := rt.Create(ctx, h, plugins.Spec{Name: "shop"}); return err },
		"exec in c1":      func(ctx context.Context) error { return rt.Exec(ctx, h, "c1", &plugins.Command{}) },
		"list containers": func(ctx context.Context) error { _, err := rt.List(ctx, h, nil); return err },
		"stop c1":         func(ctx context.Context) error { return rt.Stop(ctx, h, "c1", time.Millisecond) },
		"remove c1":       func(ctx context.Context) error { return rt.Remove(ctx, h, "c1") },
		"restart c1":      func(ctx context.Context) error { return rt.Restart(ctx, h, "c1", time.Millisecond) },
		"set restart policy of c1": func(ctx context.Context) error {
			return rt.SetRestartPolicy(ctx, h, "c1", plugins.RestartNever)
		},
		"read logs of c1":       func(ctx context.Context) error { return rt.Logs(ctx, h, "c1", 1, io.Discard) },
		"local commands for c1": func(ctx context.Context) error { _, err := rt.LocalCommands(ctx, h, "c1", 0); return err },
	}
}

func TestEveryCallIsBoundedButPullAndExec(t *testing.T) {
	for op, call := range calls(guarded(&stub{wait: true}, 20*time.Millisecond)) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := call(ctx)
		cancel()
		if strings.HasPrefix(op, "pull") || strings.HasPrefix(op, "exec") {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s has a bound of its own: %v", op, err)
			}
			continue
		}
		want := "web1: " + op + ": plugin mine gave no answer within 2"
		if !errors.Is(err, plugins.Unavailable) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("the error is %v, not %s", err, want)
		}
	}
}

func TestEveryErrorNamesTheCallAndTheHost(t *testing.T) {
	for op, call := range calls(guarded(&stub{err: errors.New("no luck")}, 0)) {
		if err := call(t.Context()); err == nil || err.Error() != "web1: "+op+": no luck" {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestErrorsAreCompletedAndKeepWhatTheyAre(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
		is   error
	}{
		{&plugins.Error{Op: "stop it", Host: "web1", Kind: plugins.Lost, Err: io.EOF}, "web1: stop it: EOF", plugins.Lost},
		{&plugins.Error{Kind: plugins.Denied, Err: io.EOF}, "web1: remove c1: EOF", plugins.Denied},
		{&plugins.Error{Kind: plugins.Denied}, "web1: remove c1: denied", plugins.Denied},
		{&plugins.Error{Host: "web9", Kind: plugins.Denied, Err: io.EOF}, "web1: remove c1: plugin mine spoke of the host web9: EOF", plugins.Denied},
		{&plugins.Error{Host: "web9", Kind: plugins.Denied}, "web1: remove c1: plugin mine spoke of the host web9: denied", plugins.Denied},
		{&plugins.Error{Kind: "odd", Err: io.EOF}, `web1: remove c1: EOF (of the kind "odd", which teal does not know)`, io.EOF},
		{&plugins.Error{Kind: "odd"}, `web1: remove c1: odd (of the kind "odd", which teal does not know)`, plugins.Kind("odd")},
		{fmt.Errorf("really: %w", &plugins.Error{Kind: plugins.Conflict, Err: io.EOF}), "web1: remove c1: really: EOF", plugins.Conflict},
		{plugins.NotFound, "web1: remove c1: not found", plugins.NotFound},
	} {
		err := guarded(&stub{err: tt.err}, 0).Remove(t.Context(), plugintest.Local("web1"), "c1")
		if err == nil || err.Error() != tt.want || !errors.Is(err, tt.is) {
			t.Errorf("the error is %v, not %s", err, tt.want)
		}
	}
	exit := &plugins.ExitError{Host: "web1", Args: []string{"false"}, Code: 1}
	if err := guarded(&stub{err: exit}, 0).Exec(t.Context(), plugintest.Local("web1"), "c1", &plugins.Command{}); err == nil || err.Error() != exit.Error() {
		t.Errorf("the error of a command is %v", err)
	}
}

func TestAnswerOfSomethingElseIsInvalid(t *testing.T) {
	good := plugins.Container{ID: "1", Name: "shop", Labels: map[string]string{"app": "shop", "more": "yes"}}
	local := plugins.LocalCommands{Stop: []string{"stop"}, Remove: []string{"remove"}}
	image := plugins.Image{Reference: "shop:1"}
	labels := map[string]string{"app": "shop"}
	h := plugintest.Local("web1")
	for _, tt := range []struct {
		name   string
		change func(*stub)
		want   string
	}{
		{"as it should be", func(*stub) {}, ""},
		{"another name", func(s *stub) { s.c.Name = "db" }, `create shop: plugin mine answered with another container, "db"`},
		{"no id", func(s *stub) { s.c.ID = "" }, "a container that has no id"},
		{"other labels", func(s *stub) { s.c.Labels = map[string]string{"app": "db"} }, "answered with a container that"},
		{"no reference", func(s *stub) { s.image.Reference = "" }, "answered with an image that has no reference"},
		{"no way to stop", func(s *stub) { s.local.Stop = nil }, "answered with no commands"},
		{"no way to remove", func(s *stub) { s.local.Remove = nil }, "answered with no commands"},
	} {
		s := &stub{c: good, local: local, image: image}
		tt.change(s)
		g := guarded(s, 0)
		_, created := g.Create(t.Context(), h, plugins.Spec{Name: "shop", Labels: labels})
		list, listed := g.List(t.Context(), h, labels)
		_, pulled := g.Pull(t.Context(), h, plugins.PullRequest{})
		_, told := g.LocalCommands(t.Context(), h, "1", 0)
		err := errors.Join(created, listed, pulled, told)
		if tt.want == "" {
			if err != nil || len(list) != 1 {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if !errors.Is(err, plugins.Invalid) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "this is a mistake in the plugin") {
			t.Errorf("%s: %v", tt.name, err)
		}
		if listed != nil && len(list) > 0 {
			t.Errorf("%s: containers were handed on: %+v", tt.name, list)
		}
	}
}

func TestLogsAreTheLastLinesHoweverMuchComes(t *testing.T) {
	s := &stub{log: strings.Repeat("x\n", 1<<20) + "one\r\ntwo"}
	var out bytes.Buffer
	if err := guarded(s, 0).Logs(t.Context(), plugintest.Local("web1"), "c1", 3, &out); err != nil || out.String() != "x\none\ntwo\n" {
		t.Errorf("%.80q, %v", out.String(), err)
	}
}

func TestLastLinesAreInTheErrorOfWhatTookTooLong(t *testing.T) {
	s := &stub{err: &execruntime.CancelledError{Err: errors.New("install.timeout is over"), Said: "thinking"}}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	err := guarded(s, 0).Exec(ctx, plugintest.Local("web1"), "c1", &plugins.Command{})
	if err == nil || err.Error() != "install.timeout is over; plugin mine said last: thinking" {
		t.Error(err)
	}
	s.err = errors.New("cut short")
	if err := guarded(s, 0).Exec(ctx, plugintest.Local("web1"), "c1", &plugins.Command{}); !errors.Is(err, s.err) || err.Error() != "cut short" {
		t.Error(err)
	}
}
