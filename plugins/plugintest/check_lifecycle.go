package plugintest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

func (s *suite) list(ctx context.Context) error {
	var want []string
	for _, name := range []string{"l1", "l2", "l3"} {
		c, err := s.rt.Create(ctx, s.h, s.spec(name))
		if err != nil {
			return err
		}
		want = append(want, c.ID)
	}
	if err := s.rt.Stop(ctx, s.h, want[1], time.Second); err != nil {
		return err
	}
	cs, err := s.rt.List(ctx, s.h, map[string]string{s.label: s.value})
	if err != nil {
		return err
	}
	var got []string
	for _, c := range cs {
		got = append(got, c.ID)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %v, not %v, oldest first", got, want)
	}
	if c := cs[1]; c.Status != plugins.StatusExited || c.PID != 0 {
		return fmt.Errorf("the stopped one is %+v", c)
	}
	cs, err = s.rt.List(ctx, s.h, map[string]string{s.label: s.value, "name": "l3"})
	if err != nil || len(cs) != 1 || cs[0].ID != want[2] {
		return fmt.Errorf("by two labels: %+v, %w", cs, cmp.Or(err, errors.New("no error")))
	}
	cs, err = s.rt.List(ctx, s.h, map[string]string{s.label: "none"})
	if err != nil || len(cs) != 0 {
		return fmt.Errorf("by a label that none has: %+v, %w", cs, cmp.Or(err, errors.New("no error")))
	}
	return nil
}

func (s *suite) stop(ctx context.Context) error {
	polite, err := s.rt.Create(ctx, s.h, s.spec("polite"))
	if err != nil {
		return err
	}
	spec := s.spec("deaf")
	spec.Command = []string{"sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"}
	deaf, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return err
	}
	var all []error
	stop := func(c plugins.Container, grace time.Duration) time.Duration {
		began := time.Now()
		all = append(all, s.rt.Stop(ctx, s.h, c.ID, grace))
		return time.Since(began)
	}
	if took := stop(polite, 10*time.Second); took > 8*time.Second {
		all = append(all, fmt.Errorf("one that ends when asked took %v", took))
	}
	if took := stop(deaf, time.Second); took < 900*time.Millisecond || took > 8*time.Second {
		all = append(all, fmt.Errorf("one that does not listen took %v with a grace of 1s", took))
	}
	stop(polite, time.Second)
	stop(plugins.Container{ID: s.label + "-missing"}, time.Second)
	cs, err := s.rt.List(ctx, s.h, map[string]string{s.label: s.value})
	for _, c := range cs {
		if c.Status != plugins.StatusExited {
			all = append(all, fmt.Errorf("%s is %s", c.Name, c.Status))
		}
		if want := map[string]int{polite.ID: 0, deaf.ID: 137}[c.ID]; c.ExitCode != want {
			all = append(all, fmt.Errorf("%s has exit code %d, not %d", c.Name, c.ExitCode, want))
		}
	}
	return errors.Join(append(all, err)...)
}

func (s *suite) remove(ctx context.Context) error {
	c, err := s.rt.Create(ctx, s.h, s.spec("remove"))
	if err != nil {
		return err
	}
	var all []error
	for _, what := range []string{"one that runs", "one that is gone"} {
		if err := s.rt.Remove(ctx, s.h, c.ID); err != nil {
			all = append(all, fmt.Errorf("%s: %w", what, err))
		}
	}
	return errors.Join(append(all, s.absent(ctx, "remove"))...)
}

func (s *suite) restart(ctx context.Context) error {
	rt, ok := s.rt.(plugins.Restarter)
	if !ok {
		return errLacking
	}
	c, err := s.rt.Create(ctx, s.h, s.spec("restart"))
	if err != nil {
		return err
	}
	if err := s.says(ctx, c.ID, "", "touch", "kept"); err != nil {
		return err
	}
	if err := rt.Restart(ctx, s.h, c.ID, time.Second); err != nil {
		return err
	}
	cs, err := s.rt.List(ctx, s.h, c.Labels)
	if err != nil || len(cs) != 1 || cs[0].Status != plugins.StatusRunning || cs[0].PID == c.PID {
		return fmt.Errorf("afterwards: %+v, before: %+v, %w", cs, c, cmp.Or(err, errors.New("no error")))
	}
	return errors.Join(
		s.says(ctx, c.ID, "kept", "ls", "kept"),
		wantKind(rt.Restart(ctx, s.h, s.label+"-missing", 0), plugins.NotFound, "a container that is not there"),
	)
}

// pollEvery is the pause before a runtime, which may be slow, is asked again.
const pollEvery = 100 * time.Millisecond

func (s *suite) policy(ctx context.Context) error {
	rt, ok := s.rt.(plugins.RestartPolicySetter)
	if !ok {
		return errLacking
	}
	spec := s.spec("policy")
	spec.Restart = plugins.RestartAlways
	// It ends by itself, soon the first time, and later the others, so that they
	// are met alive.
	spec.Command = []string{"sh", "-c", `echo x >>starts; sleep 0.3; [ "$(wc -l <starts)" -lt 2 ] || sleep 1`}
	c, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return err
	}
	var seen plugins.Container
	for {
		cs, err := s.rt.List(ctx, s.h, spec.Labels)
		if err != nil || len(cs) != 1 {
			return fmt.Errorf("it is gone: %w", cmp.Or(err, errors.New("no error")))
		}
		if seen = cs[0]; seen.PID != 0 && seen.PID != c.PID {
			break
		}
		if wait(ctx, pollEvery) != nil {
			return fmt.Errorf("with policy %s it was not started again", spec.Restart)
		}
	}
	if err := rt.SetRestartPolicy(ctx, s.h, c.ID, plugins.RestartNever); err != nil {
		return err
	}
	for seen.Status != plugins.StatusExited {
		cs, err := s.rt.List(ctx, s.h, spec.Labels)
		if err != nil || len(cs) != 1 {
			return fmt.Errorf("it is gone: %w", cmp.Or(err, errors.New("no error")))
		}
		if seen = cs[0]; wait(ctx, pollEvery) != nil {
			return fmt.Errorf("with policy %s it is started again and again", plugins.RestartNever)
		}
	}
	return wantKind(rt.SetRestartPolicy(ctx, s.h, s.label+"-missing", plugins.RestartNever), plugins.NotFound, "a container that is not there")
}

func (s *suite) logs(ctx context.Context) error {
	rt, ok := s.rt.(plugins.LogStreamer)
	if !ok {
		return errLacking
	}
	spec := s.spec("logs")
	spec.Command = []string{"sh", "-c", "echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three; sleep 100"}
	c, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for !strings.Contains(out.String(), "three") {
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("they are %q: %w", &out, err)
		}
		out.Reset()
		if err := rt.Logs(ctx, s.h, c.ID, 2, &out); err != nil {
			return err
		}
	}
	if out.String() != "two\nthree\n" {
		return fmt.Errorf("the last two lines are %q", &out)
	}
	return wantKind(rt.Logs(ctx, s.h, s.label+"-missing", 1, io.Discard), plugins.NotFound, "a container that is not there")
}

// local runs the commands as teal's teardown does.
func (s *suite) local(ctx context.Context) error {
	rt, ok := s.rt.(plugins.LocalRemover)
	if !ok {
		return errLacking
	}
	c, err := s.rt.Create(ctx, s.h, s.spec("local"))
	if err != nil {
		return err
	}
	cmds, err := rt.LocalCommands(ctx, s.h, c.ID, time.Second)
	if err != nil {
		return err
	}
	var all []error
	pid, err := plugins.Output(ctx, s.h, cmds.PID...)
	if got := strings.TrimSpace(string(pid)); got != fmt.Sprint(c.PID) {
		all = append(all, fmt.Errorf("the process id is %q, not %d: %w", got, c.PID, cmp.Or(err, errors.New("no error"))))
	}
	for range 2 {
		all = append(all, onlyError(plugins.Output(ctx, s.h, cmds.Stop...)))
	}
	pid, _ = plugins.Output(ctx, s.h, cmds.PID...) // may fail once there is none
	if got := strings.TrimSpace(string(pid)); got != "" && got != "0" {
		all = append(all, fmt.Errorf("the process id of a stopped one is %q", got))
	}
	for range 2 {
		all = append(all, onlyError(plugins.Output(ctx, s.h, cmds.Remove...)))
	}
	all = append(all, onlyError(plugins.Output(ctx, s.h, cmds.Stop...)))
	return errors.Join(append(all, s.absent(ctx, "local"))...)
}
