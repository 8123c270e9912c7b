package engine

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/teal-deploy/teal/plugins"
)

// inspectAtOnce bounds the requests that List makes at a time.
const inspectAtOnce = 4

// List implements plugins.Runtime.
func (e *Engine) List(ctx context.Context, h plugins.Host, labels map[string]string) ([]plugins.Container, error) {
	s, err := e.open(ctx, h)
	if err != nil {
		return nil, err
	}
	defer s.close()
	filters := client.Filters{}
	for k, v := range labels {
		filters.Add("label", k+"="+v)
	}
	found, err := s.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, s.wrap(ctx, "list containers", err)
	}
	// A summary lacks the process id, the health and the exit code.
	all := make([]plugins.Container, len(found.Items))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inspectAtOnce)
	for i, item := range found.Items {
		g.Go(func() error {
			c, err := s.inspect(gctx, item.ID)
			if errors.Is(err, plugins.NotFound) {
				return nil // removed in between
			}
			all[i] = c
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(c plugins.Container) bool { return c.ID == "" })
	slices.SortStableFunc(all, func(a, b plugins.Container) int { return a.Created.Compare(b.Created) })
	return all, nil
}

// inspect returns a container by its id or name.
func (s *session) inspect(ctx context.Context, id string) (plugins.Container, error) {
	found, err := s.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return plugins.Container{}, s.wrap(ctx, "inspect "+id, err)
	}
	return fromInspect(found.Container), nil
}

// imageLabel keeps Spec.Image on containers of an engine that reports another
// name of the same image. It is not shown.
const imageLabel = "teal.image"

// shown are labels without imageLabel.
func shown(labels map[string]string) map[string]string {
	rest := maps.Clone(labels)
	delete(rest, imageLabel)
	return rest
}

func fromInspect(in container.InspectResponse) plugins.Container {
	c := plugins.Container{ID: in.ID, Name: strings.TrimPrefix(in.Name, "/"), Status: plugins.StatusOther}
	if in.Config != nil {
		c.Image, c.Labels = in.Config.Image, in.Config.Labels
	}
	if image, ok := c.Labels[imageLabel]; ok {
		c.Image, c.Labels = image, shown(c.Labels)
	}
	if t, err := time.Parse(time.RFC3339Nano, in.Created); err == nil {
		c.Created = t
	}
	st := in.State
	if st == nil {
		return c
	}
	switch st.Status {
	case container.StateRunning:
		c.Status, c.PID = plugins.StatusRunning, st.Pid
	case container.StateExited:
		c.Status, c.ExitCode = plugins.StatusExited, st.ExitCode
	case container.StateCreated, container.StatePaused, container.StateRestarting, container.StateRemoving, container.StateDead:
	}
	if st.Health != nil {
		switch st.Health.Status {
		case container.Starting:
			c.Health = plugins.HealthStarting
		case container.Healthy:
			c.Health = plugins.HealthHealthy
		case container.Unhealthy:
			c.Health = plugins.HealthUnhealthy
		case container.NoHealthcheck:
		}
	}
	return c
}

// Stop implements plugins.Runtime.
func (e *Engine) Stop(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return e.on(ctx, h, "stop "+id, func(s *session) error {
		_, err := s.api.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: seconds(grace)})
		return unlessGone(err)
	})
}

// Restart implements plugins.Restarter.
func (e *Engine) Restart(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return e.on(ctx, h, "restart "+id, func(s *session) error {
		_, err := s.api.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: seconds(grace)})
		return err
	})
}

// SetRestartPolicy implements plugins.RestartPolicySetter.
func (e *Engine) SetRestartPolicy(ctx context.Context, h plugins.Host, id string, policy plugins.RestartPolicy) error {
	op := "set restart policy of " + id
	mode, err := restartMode(policy)
	if err != nil {
		return &plugins.Error{Op: op, Host: h.String(), Kind: plugins.Invalid, Err: err}
	}
	return e.on(ctx, h, op, func(s *session) error { return s.update(ctx, id, mode) })
}

const (
	// updateEvery is the pause before a container that has just ended is
	// updated once more.
	updateEvery = 200 * time.Millisecond
	updateTries = 10
)

// update changes the restart policy. For a moment an engine takes a process
// that has ended for one that runs, and fails to update it.
func (s *session) update(ctx context.Context, id string, mode container.RestartPolicyMode) error {
	tick := time.NewTicker(updateEvery)
	defer tick.Stop()
	for tries := 1; ; tries++ {
		_, err := s.api.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{
			RestartPolicy: &container.RestartPolicy{Name: mode},
		})
		if err == nil || tries == updateTries || !contains(err, "cannot update a deleted process", "cannot update a stopped container") {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Remove implements plugins.Runtime. Volumes without a name go with the
// container.
func (e *Engine) Remove(ctx context.Context, h plugins.Host, id string) error {
	return e.on(ctx, h, "remove "+id, func(s *session) error { return s.remove(ctx, id) })
}

func (s *session) remove(ctx context.Context, id string) error {
	if s.engine.StopsFirst {
		_, err := s.api.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: seconds(0)})
		if err := unlessGone(err); err != nil && !contains(err, "container state improper") {
			return err
		}
	}
	_, err := s.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && contains(err, "removal of container", "is already in progress") {
		return s.awaitGone(ctx, id)
	}
	return unlessGone(err)
}

// goneEvery is the pause between two looks at a container that somebody else
// is removing.
const goneEvery = 100 * time.Millisecond

func (s *session) awaitGone(ctx context.Context, id string) error {
	tick := time.NewTicker(goneEvery)
	defer tick.Stop()
	for {
		if _, err := s.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); err != nil {
			return unlessGone(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// on runs do in a session and classes its error.
func (e *Engine) on(ctx context.Context, h plugins.Host, op string, do func(*session) error) error {
	s, err := e.open(ctx, h)
	if err != nil {
		return err
	}
	defer s.close()
	return s.wrap(ctx, op, do(s))
}

func unlessGone(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// seconds rounds up: an engine knows whole seconds, and a grace is a promise.
func seconds(d time.Duration) *int {
	n := int(math.Ceil(max(d, 0).Seconds()))
	return &n
}

// Logs implements plugins.LogStreamer.
func (e *Engine) Logs(ctx context.Context, h plugins.Host, id string, lines int, w io.Writer) error {
	return e.on(ctx, h, "read logs of "+id, func(s *session) error {
		found, err := s.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		stream, err := s.api.ContainerLogs(ctx, id, client.ContainerLogsOptions{
			ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(max(lines, 0)),
		})
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		return demultiplex(found.Container.Config.Tty, w, w, stream)
	})
}
