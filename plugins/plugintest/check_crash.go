package plugintest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// deathTime is how long a call may go on after its plugin has died.
const deathTime = 10 * time.Second

// crash kills the plugin in the middle of a call. The call must end, and
// another process must find the container as it was: a runtime keeps nothing.
func (s *suite) crash(ctx context.Context) error {
	spec := s.spec("crash")
	before, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return err
	}
	interrupted, err := s.killed(ctx, before.ID)
	if err != nil {
		return err
	}
	cs, err := s.rt.List(ctx, s.h, spec.Labels)
	if err != nil || len(cs) != 1 || cs[0].ID != before.ID || cs[0].PID != before.PID || cs[0].Status != plugins.StatusRunning {
		return errors.Join(interrupted, fmt.Errorf("the container is %+v, before: %+v, %w", cs, before, cmp.Or(err, errors.New("no error"))))
	}
	again, err := s.rt.Create(ctx, s.h, spec)
	if err == nil && again.ID != before.ID {
		err = fmt.Errorf("the same once more made another container: %+v, before %+v", again, before)
	}
	return errors.Join(interrupted, err, s.says(ctx, before.ID, "still here", "echo", "still here"))
}

// killed kills the plugin while it runs a command, and goes on with a new one.
// Interrupted is what is wrong with how the command ended.
func (s *suite) killed(ctx context.Context, id string) (interrupted, err error) {
	running, runs := context.WithCancel(ctx)
	defer runs()
	old := s.rt
	ended := make(chan error, 1)
	go func() {
		ended <- old.Exec(ctx, s.h, id, &plugins.Command{
			Args: []string{"sh", "-c", "echo up; sleep 20"}, Stdout: onWrite(runs),
		})
	}()
	select {
	case <-running.Done(): // it is up, or ctx has ended
	case err := <-ended:
		return nil, fmt.Errorf("a command ended before the plugin did: %w", cmp.Or(err, errors.New("no error")))
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	fresh, err := s.opts.Crash(ctx)
	if err != nil {
		return nil, err
	}
	s.rt = fresh
	limit := time.NewTimer(deathTime)
	defer limit.Stop()
	select {
	case err := <-ended:
		return wantKind(err, plugins.Unavailable, "a call whose plugin was killed"), nil
	case <-limit.C:
		return fmt.Errorf("a call goes on %v after its plugin was killed", deathTime), nil
	}
}
