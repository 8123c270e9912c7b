package orchestrator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/teal-deploy/teal/orchestrator/health"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/plugins"
)

// fetchCode is step 2.
func (r *run) fetchCode(ctx context.Context, h *hostRun) error {
	code := h.app.Code
	if code == nil || h.plan.Instant {
		return nil
	}
	r.say(h, StepCode, StatusStarted, "%s at %s", code.Repository, short(h.plan.To.Commit))
	began := time.Now()
	h.made = true
	dir, err := r.source.Fetch(ctx, h.conn, source.Request{
		Dir: r.d.Store.Dir(h.app.Name), Release: h.plan.To.ID, Commit: h.plan.To.Commit,
	})
	if err != nil {
		return err
	}
	h.codeDir = dir
	r.say(h, StepCode, StatusDone, "%s in %s", short(h.plan.To.Commit), tidy(time.Since(began)))
	return nil
}

// pruneCode removes the code of releases that the host has forgotten. What
// may still run stays: the release that serves and the one before it.
func (r *run) pruneCode(ctx context.Context, h *hostRun) error {
	if h.app.Code == nil {
		return nil
	}
	keep := []string{h.plan.To.ID}
	if h.plan.From != nil {
		keep = append(keep, h.plan.From.ID)
	}
	for _, release := range h.remembers.Kept {
		keep = append(keep, release.ID)
	}
	return source.Prune(ctx, h.conn, r.d.Store.Dir(h.app.Name), keep)
}

// containerName is the name of a release's container on the engine.
func containerName(release record.Release, replica int) string {
	name := "teal-" + release.App.Name + "-" + release.ID
	if replica > 0 {
		name += fmt.Sprintf("-%d", replica+1)
	}
	return name
}

// createGreen is step 3.
func (r *run) createGreen(ctx context.Context, h *hostRun) error {
	if h.plan.Instant {
		return nil
	}
	r.say(h, StepCreate, StatusStarted, "")
	began := time.Now()
	if err := r.freeSlot(ctx, h); err != nil {
		return err
	}
	if h.plan.First {
		// A record before the first container: a host with containers and
		// without a record has lost it, and is not to be cleaned up.
		if err := h.lock.Write(ctx, h.remembers); err != nil {
			return err
		}
	}
	h.made = true
	for i := range h.plan.To.App.Container.Replicas {
		c, err := h.runtime.Create(ctx, h.conn, r.containerSpec(h, i))
		if err != nil {
			return err
		}
		h.green = append(h.green, c)
	}
	r.say(h, StepCreate, StatusDone, "%s in %s", h.plan.place(), tidy(time.Since(began)))
	return nil
}

// containerSpec is a replica of green.
func (r *run) containerSpec(h *hostRun, replica int) plugins.Spec {
	c, to := h.app.Container, h.plan.To
	env := map[string]string{"TEAL_APP": h.app.Name, "TEAL_RELEASE": to.ID, "TEAL_VERSION": to.Version}
	maps.Copy(env, c.Env)
	maps.Copy(env, r.secrets)
	s := plugins.Spec{
		Name: containerName(to, replica), Image: h.image.Reference, Command: c.Command, Env: env,
		Labels: map[string]string{LabelApp: h.app.Name, LabelRelease: to.ID, LabelSlot: string(to.Slot)},
		Memory: c.Memory, CPUs: c.CPUs, StopGrace: c.StopGrace,
		// Until green serves it must not come back by itself: that would hide
		// that it died. An engine that cannot change its mind later gets the
		// final answer now.
		Restart: plugins.RestartAlways,
	}
	if _, ok := h.runtime.(plugins.RestartPolicySetter); ok {
		s.Restart = plugins.RestartNever
	}
	for _, v := range c.Volumes {
		s.Mounts = append(s.Mounts, plugins.Mount{Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	if h.codeDir != "" {
		s.Mounts = append(s.Mounts, plugins.Mount{Source: h.codeDir, Target: h.app.Code.Path})
	}
	if c.Port > 0 {
		s.Port, s.Publish = c.Port, h.plan.address(replica)
	}
	return s
}

// freeSlot waits for an earlier deployment's blue to leave the slot. It waits
// as long as that takes when nobody is connected, then refuses, unless the
// operator said to end the drain.
func (r *run) freeSlot(ctx context.Context, h *hostRun) error {
	w := h.plan.Waits
	if w == nil {
		return nil
	}
	due, _ := leaves(w)
	wait := max(time.Until(due), 0) + h.app.Container.StopGrace + 5*time.Second
	if r.req.EndDrain {
		return r.endDrain(ctx, h, w)
	}
	r.say(h, StepCreate, StatusInfo, "%s must leave %s first", w.Release, w.Slot)
	limit := time.NewTimer(wait)
	defer limit.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		o, err := r.d.Store.Observe(ctx, h.conn, h.app.Name)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(o.Pending, func(p record.Pending) bool { return p.Release == w.Release })
		if i < 0 {
			return nil
		}
		w = &o.Pending[i]
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			_, latest := leaves(w)
			return &plugins.Error{
				Op: "free " + string(w.Slot), Host: h.inv.Name, Kind: plugins.Conflict,
				Err: fmt.Errorf("%s still has %s and leaves at the latest at %s: deploy again then, or end them with --end-drain",
					w.Release, count(w.Connections, "connection"), latest.Format(time.TimeOnly)),
			}
		case <-tick.C:
		}
	}
}

func (r *run) endDrain(ctx context.Context, h *hostRun, w *record.Pending) error {
	r.say(h, StepCreate, StatusWarning, "the drain of %s ends with %s open", w.Release, count(w.Connections, "connection"))
	if err := h.lock.Cancel(ctx, w.Release); err != nil {
		return err
	}
	for _, c := range w.Containers {
		if err := r.removeContainer(ctx, h, plugins.Container{ID: c.ID}, h.app.Container.StopGrace); err != nil {
			return err
		}
	}
	return nil
}

// inFolder runs a line of the app file in the folder of the code. The line is
// the operator's own program and goes over as an argument.
const inFolder = `[ -z "$1" ] || cd -- "$1" || exit 126; exec sh -c "$2"`

// install is step 4: the lines that every host runs.
func (r *run) install(ctx context.Context, h *hostRun) error {
	if h.plan.Instant || len(h.app.Install.Run) == 0 {
		return nil
	}
	for _, c := range h.green { // one after the other: they may share the folder of the code
		if err := r.runLines(ctx, h, c, h.app.Install.Run); err != nil {
			return err
		}
	}
	return nil
}

// installOnce is the part of step 4 that is done once a deployment, whatever
// the number of hosts.
func (r *run) installOnce(ctx context.Context, h *hostRun) error {
	if h.plan.Instant || len(h.app.Install.Once) == 0 || r.command == "rollback" {
		return nil
	}
	return r.runLines(ctx, h, h.green[0], h.app.Install.Once)
}

func (r *run) runLines(ctx context.Context, h *hostRun, c plugins.Container, lines []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, h.app.Install.Timeout,
		fmt.Errorf("install.timeout of %s is over", h.app.Install.Timeout))
	defer cancel()
	folder := ""
	if h.app.Code != nil {
		folder = h.app.Code.Path
	}
	for _, line := range lines {
		began := time.Now()
		r.say(h, StepInstall, StatusStarted, "%s", line)
		out := r.lines(h, StepInstall)
		err := h.runtime.Exec(ctx, h.conn, c.ID, &plugins.Command{
			Args: []string{"sh", "-c", inFolder, "teal", folder, line}, Stdout: out, Stderr: out,
		})
		out.flush()
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) { // whose text may say more
			err = cause
		}
		if err != nil {
			for _, l := range out.last {
				h.result.Log = append(h.result.Log, r.redact.text(l))
			}
			return installError(line, err)
		}
		r.say(h, StepInstall, StatusDone, "%s in %s", line, tidy(time.Since(began)))
	}
	return nil
}

func installError(line string, err error) error {
	if exit, ok := errors.AsType[*plugins.ExitError](err); ok {
		return fmt.Errorf("%q exited with code %d", line, exit.Code)
	}
	return fmt.Errorf("%q: %w", line, err)
}

// restartGreen lets green's main process begin with what was installed.
func (r *run) restartGreen(ctx context.Context, h *hostRun) error {
	if h.plan.Instant || !h.app.Install.Restart {
		return nil
	}
	rs, ok := h.runtime.(plugins.Restarter)
	if !ok {
		return &plugins.Error{
			Op: "restart green", Host: h.inv.Name, Kind: plugins.Unsupported,
			Err: fmt.Errorf("the runtime %s cannot; set install.restart = false", h.app.Runtime),
		}
	}
	return errors.Join(each(h.green, func(c plugins.Container) error {
		return rs.Restart(ctx, h.conn, c.ID, h.app.Container.StopGrace)
	})...)
}

// testGreen is step 5.
func (r *run) testGreen(ctx context.Context, h *hostRun) error {
	if h.plan.Instant {
		h.state = Ready
		return nil
	}
	r.say(h, StepTest, StatusStarted, "")
	began := time.Now()
	errs := eachOf(len(h.green), indices(h.green), func(i int) error {
		return health.Wait(ctx, r.subject(h, i), h.app.Test, func(text string) {
			r.say(h, StepTest, StatusInfo, "%s%s", h.replica(i), text)
		})
	})
	for i, err := range errs {
		if err != nil {
			h.sick = i
			return fmt.Errorf("%s%w", h.replica(i), err)
		}
	}
	h.state = Ready
	r.say(h, StepTest, StatusDone, "passed in %s", tidy(time.Since(began)))
	return nil
}

// replica names a replica of green, where there are several.
func (h *hostRun) replica(i int) string {
	if len(h.green) < 2 {
		return ""
	}
	return fmt.Sprintf("replica %d: ", i+1)
}

// subject is a replica of green as the tests see it.
func (r *run) subject(h *hostRun, replica int) health.Subject {
	var address netip.AddrPort
	if h.app.Container.Port > 0 {
		address = h.plan.address(replica)
	}
	id := h.green[replica].ID
	return health.Subject{
		Host:    h.conn,
		Address: address,
		Redact:  r.redact.text,
		Exec: func(ctx context.Context, args []string) error {
			return h.runtime.Exec(ctx, h.conn, id, &plugins.Command{Args: args})
		},
		Container: func(ctx context.Context) (plugins.Container, error) {
			found, err := h.runtime.List(ctx, h.conn, map[string]string{LabelRelease: h.plan.To.ID})
			if err != nil {
				return plugins.Container{}, err
			}
			i := slices.IndexFunc(found, func(c plugins.Container) bool { return c.ID == id })
			if i < 0 {
				return plugins.Container{}, &plugins.Error{
					Op: "look at green", Host: h.inv.Name, Kind: plugins.NotFound,
					Err: errors.New("the container is gone"),
				}
			}
			return found[i], nil
		},
	}
}

// logLines is how much of a failed green's log is shown.
const logLines = 20

// keepLog notes the last lines that green wrote, before it is removed.
func (r *run) keepLog(ctx context.Context, h *hostRun) {
	logs, ok := h.runtime.(plugins.LogStreamer)
	if !ok || len(h.green) == 0 || h.err == nil {
		return
	}
	var out bytes.Buffer
	if err := logs.Logs(ctx, h.conn, h.green[min(h.sick, len(h.green)-1)].ID, logLines, &out); err != nil {
		r.warn(h, StepUndo, "green's log is not to be had", err)
		return
	}
	for line := range strings.Lines(out.String()) {
		h.result.Log = append(h.result.Log, r.redact.text(strings.TrimRight(line, "\r\n")))
	}
}

// tidy rounds a duration for people.
func tidy(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

func joinReasons(reasons []string) string { return strings.Join(reasons, ", ") }

// equalJSON reports whether two values are the same once written down, which
// is how a host remembers them.
func equalJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
