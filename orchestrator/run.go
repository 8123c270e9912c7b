package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// undoLimit bounds how long undoing may take on a host.
const undoLimit = 90 * time.Second

// A run is one deployment or rollback from its start to its result.
type run struct {
	d       *Deployer
	req     Request
	id      string
	command string
	started time.Time

	rollout spec.Rollout
	hooks   spec.Hooks
	hosts   []*hostRun // in the inventory's order
	plan    *Plan
	secrets map[string]string // values by name, of the environment of containers
	auth    *plugins.Auth     // for the registry
	source  *source.Source    // nil: the app has no code of its own
	redact  redactor

	mu       sync.Mutex // of Emit, and of digest
	digest   string     // that all hosts must have
	returned error      // why the run took its switch back
}

// A hostRun is how a run stands on one host.
type hostRun struct {
	host
	plan  *HostPlan
	state HostState
	step  Step  // that failed
	err   error // why

	image     plugins.Image
	codeDir   string
	green     []plugins.Container // of the release to be
	made      bool                // green was made by this run
	remembers record.State        // what the host has on disk
	result    HostResult
}

// active reports whether the host still takes part.
func (h *hostRun) active() bool {
	if h.err != nil {
		return false
	}
	switch h.state {
	case Pending, Ready, Switched, Verified:
		return h.plan == nil || h.plan.Deploys()
	default:
		return false
	}
}

func (r *run) active() []*hostRun {
	var active []*hostRun
	for _, h := range r.hosts {
		if h.active() {
			active = append(active, h)
		}
	}
	return active
}

// emit hands an event on, with secrets blacked out.
func (r *run) emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.d.Emit == nil {
		return
	}
	e.Time, e.Run = time.Now(), r.id
	e.Text, e.Err = r.redact.text(e.Text), r.redact.err(e.Err)
	r.d.Emit(e)
}

func (r *run) say(h *hostRun, step Step, status Status, format string, args ...any) {
	e := Event{Step: step, Status: status, Text: fmt.Sprintf(format, args...)}
	if h != nil {
		e.Host = h.inv.Name
	}
	r.emit(e)
}

// errTooMany ends a run when more hosts failed than its limits allow.
var errTooMany = errors.New("more hosts failed than the rollout allows")

// carryOut does a stage on every host that takes part, and drops the hosts
// that fail. It returns an error when the run must not go on.
func (r *run) carryOut(ctx context.Context, s stage) error {
	hosts := r.active()
	if s.first && len(hosts) > 1 {
		hosts = hosts[:1]
	}
	each(hosts, func(h *hostRun) error {
		hctx, done := h.guard(ctx)
		defer done()
		if err := s.do(hctx, h); err != nil {
			r.drop(ctx, hctx, h, s.step, err)
		}
		return nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.first && hosts[0].err != nil {
		return fmt.Errorf("%w: %s does for all hosts what is done once", errTooMany, hosts[0].inv.Name)
	}
	return r.limits()
}

// guard returns a context that also ends when the host's connection or its
// lock is lost.
func (h *hostRun) guard(ctx context.Context) (context.Context, func()) {
	gctx, cancel := context.WithCancelCause(ctx)
	lost := make(<-chan struct{})
	if h.lock != nil {
		lost = h.lock.Lost()
	}
	go func() {
		select {
		case <-gctx.Done():
		case <-h.conn.Done():
			cancel(&plugins.Error{Host: h.inv.Name, Kind: plugins.Lost, Err: errors.New("the connection is lost")})
		case <-lost:
			cancel(&plugins.Error{Host: h.inv.Name, Kind: plugins.Lost, Err: errors.New("the lock is lost")})
		}
	}()
	return gctx, func() { cancel(nil) }
}

// drop notes that a step failed on a host. When the whole run was told to end
// the host did not fail.
func (r *run) drop(ctx, hctx context.Context, h *hostRun, step Step, err error) {
	if ctx.Err() != nil {
		return
	}
	if hctx.Err() != nil {
		err = context.Cause(hctx)
	}
	h.step, h.err = step, r.redact.err(err)
	if lost := errors.Is(err, plugins.Lost); lost && !h.result.SwitchAt.IsZero() {
		// The switch is confirmed and written down. What is left the host
		// does by itself.
		r.emit(Event{
			Host: h.inv.Name, Step: step, Status: StatusWarning, Err: err,
			Text: h.plan.To.Version + " serves; the host goes on without teal",
		})
		return
	} else if lost {
		h.state = Unreachable
	} else {
		h.state = Failed
	}
	e := Event{Host: h.inv.Name, Step: step, Status: StatusFailed, Err: err}
	r.emit(e)
}

// limits returns an error when more hosts are lost to the run than its
// rollout allows, counted over the whole run.
func (r *run) limits() error {
	failed, unreachable := 0, 0
	for _, h := range r.hosts {
		switch h.state {
		case Failed:
			failed++
		case Unreachable:
			unreachable++
		default:
		}
	}
	n := len(r.hosts)
	switch {
	case failed > r.rollout.MaxFailed.Of(n):
		return fmt.Errorf("%w: %d of %d, max_failed is %d", errTooMany, failed, n, r.rollout.MaxFailed.Of(n))
	case unreachable > r.rollout.MaxUnreachable.Of(n):
		return fmt.Errorf("%w: %d of %d are unreachable, max_unreachable is %d", errTooMany, unreachable, n,
			r.rollout.MaxUnreachable.Of(n))
	case failed+unreachable > 0 && len(r.active()) == 0 && !slices.ContainsFunc(r.hosts, func(h *hostRun) bool { return h.state == Skipped }):
		return fmt.Errorf("%w: no host is left", errTooMany)
	}
	return nil
}

// deploy carries the plan out.
func (r *run) deploy(ctx context.Context) error {
	defer r.writeHistory(ctx)
	if err := r.hook(ctx, "before_deploy", r.hooks.BeforeDeploy); err != nil {
		return err
	}
	for _, s := range r.prepare() {
		if err := r.carryOut(ctx, s); err != nil {
			r.removeGreen(ctx)
			return err
		}
	}
	r.removeGreen(ctx) // of hosts that failed within the limits
	if err := r.switchAll(ctx); err != nil {
		return err
	}
	if err := r.hook(ctx, "after_switch", r.hooks.AfterSwitch); err != nil {
		r.say(nil, StepSwitch, StatusWarning, "%v", err)
	}
	for _, s := range r.settle() {
		if err := r.carryOut(ctx, s); err != nil {
			return r.settleFailed(ctx, s, err)
		}
	}
	for _, h := range r.active() {
		h.state = Done
	}
	return nil
}

// removeGreen removes what the run made on hosts that have not switched: all
// of them when the run ends here, else those that failed.
func (r *run) removeGreen(ctx context.Context) {
	ending := ctx.Err() != nil || r.limits() != nil
	var hosts []*hostRun
	for _, h := range r.hosts {
		undo := h.state == Failed || h.state == Unreachable || (ending && h.active())
		if undo && h.made {
			hosts = append(hosts, h)
		}
	}
	each(hosts, func(h *hostRun) error {
		ctx, cancel := orphan(ctx, undoLimit)
		defer cancel()
		r.undo(ctx, h)
		return nil
	})
}

// undo removes green and its code from a host.
func (r *run) undo(ctx context.Context, h *hostRun) {
	if h.state == Unreachable {
		if err := r.reconnect(ctx, h); err != nil {
			r.emit(Event{
				Host: h.inv.Name, Step: StepUndo, Status: StatusWarning, Err: err,
				Text: "green was left behind; the next deployment removes it",
			})
			return
		}
	}
	r.keepLog(ctx, h)
	var errs []error
	labels := map[string]string{LabelApp: h.app.Name, LabelRelease: h.plan.To.ID}
	found, err := h.runtime.List(ctx, h.conn, labels)
	errs = append(errs, err)
	for _, c := range found {
		errs = append(errs, r.removeContainer(ctx, h, c, 0))
	}
	if h.app.Code != nil {
		errs = append(errs, source.Remove(ctx, h.conn, r.d.Store.Dir(h.app.Name), h.plan.To.ID))
	}
	if err := errors.Join(errs...); err != nil {
		r.emit(Event{Host: h.inv.Name, Step: StepUndo, Status: StatusFailed, Err: err})
		return
	}
	h.made, h.green = false, nil
	r.say(h, StepUndo, StatusDone, "green removed, blue serves on")
}

func (r *run) removeContainer(ctx context.Context, h *hostRun, c plugins.Container, grace time.Duration) error {
	if grace > 0 {
		if err := h.runtime.Stop(ctx, h.conn, c.ID, grace); err != nil {
			return err
		}
	}
	return h.runtime.Remove(ctx, h.conn, c.ID)
}

// reconnect makes a new connection to a host whose old one was lost, and
// takes the lock again, which the host frees within seconds.
func (r *run) reconnect(ctx context.Context, h *hostRun) error {
	_ = h.conn.Close()
	wait := time.NewTicker(time.Second)
	defer wait.Stop()
	var err error
	for {
		if err = r.reconnectOnce(ctx, h); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-wait.C:
		}
	}
}

func (r *run) reconnectOnce(ctx context.Context, h *hostRun) error {
	conn, err := r.d.Dial(ctx, h.inv)
	if err != nil {
		return err
	}
	lock, err := r.d.Store.Acquire(ctx, conn, h.app.Name, r.owner())
	if err != nil {
		_ = conn.Close()
		return err
	}
	h.conn, h.lock = conn, lock
	return nil
}

func (r *run) owner() record.Owner {
	return record.Owner{By: r.d.By, PID: r.d.PID, Run: r.id, Command: r.command, Since: r.started}
}

// connect reaches every host and takes its lock. All locks or none.
func (r *run) connect(ctx context.Context) error {
	errs := each(r.hosts, func(h *hostRun) error {
		r.say(h, StepConnect, StatusStarted, "")
		conn, err := r.d.Dial(ctx, h.inv)
		if err != nil {
			if ctx.Err() == nil {
				h.state, h.step, h.err = Unreachable, StepConnect, err
				r.emit(Event{Host: h.inv.Name, Step: StepConnect, Status: StatusFailed, Err: err})
			}
			return nil
		}
		h.conn = conn
		h.lock, err = r.d.Store.Acquire(ctx, conn, h.app.Name, r.owner())
		if err == nil {
			return nil
		}
		if held := (*record.HeldError)(nil); errors.As(err, &held) {
			return err
		}
		r.drop(ctx, ctx, h, StepConnect, err)
		return nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.limits()
}

// close frees the locks and closes the connections.
func (r *run) close(ctx context.Context) {
	ctx, cancel := orphan(ctx, 10*time.Second)
	defer cancel()
	if r.source != nil {
		_ = r.source.Close() // it only read
	}
	each(r.hosts, func(h *hostRun) error {
		if h.lock != nil {
			_ = h.lock.Release(ctx) // a lock dies with its connection anyway
		}
		if h.conn != nil {
			_ = h.conn.Close()
		}
		return nil
	})
}

// newRun starts a run on the request's hosts.
func (d *Deployer) newRun(command string, req Request) *run {
	now := time.Now()
	r := &run{d: d, req: req, id: cmp.Or(req.Run, NewRunID(now)), command: command, started: now}
	for _, h := range req.Hosts {
		r.hosts = append(r.hosts, &hostRun{host: host{inv: h, named: req.File.NameOnly()}, state: Pending})
	}
	return r
}
