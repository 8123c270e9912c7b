package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/teal-deploy/teal/orchestrator/health"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

// switchLimit bounds the switch of the whole fleet, which a signal does not
// interrupt.
const switchLimit = 3 * time.Minute

// prepareProxy writes both slots into the proxy's configuration. Only the
// first deployment of an app finds something to do.
func (r *run) prepareProxy(ctx context.Context, h *hostRun) error {
	if h.proxy == nil {
		return nil
	}
	changed, err := h.proxy.Prepare(ctx, h.conn, r.layout(h))
	if err != nil {
		return err
	}
	if changed {
		r.say(h, StepSwitch, StatusInfo, "configuration of %s written, reloaded and verified", h.app.Proxy.Type)
	}
	return nil
}

func (r *run) layout(h *hostRun) proxy.Layout {
	return r.d.layout(h.app, h.inv.Name, h.plan.Ports)
}

// switchAll switches every host at the same time. When a host cannot be
// switched, those that were go back, unless the rollout says to stop.
func (r *run) switchAll(ctx context.Context) error {
	if ctx.Err() != nil { // the last chance to turn around
		return context.Cause(ctx)
	}
	sctx, cancel := orphan(ctx, cmp.Or(r.d.switching, switchLimit))
	defer cancel()
	err := r.carryOut(sctx, r.commit())
	switch {
	case err == nil:
		r.removeGreen(ctx, false)
	case r.rollout.OnFailure == "rollback":
		r.goBack(ctx)
	default:
		r.letGo(ctx)
	}
	return err
}

// switchToGreen is step 6 on one host. The order matters: at whatever moment
// teal, the connection or the host dies, what is on the host says what to do.
func (r *run) switchToGreen(ctx context.Context, h *hostRun) error {
	to := h.plan.To
	to.At = time.Now()
	r.say(h, StepSwitch, StatusStarted, "to %s", to.Slot)
	took, err := r.tryToSwitch(ctx, h, to)
	if err != nil {
		known := ctx.Err() == nil && !errors.Is(err, proxy.ErrUnknown) && !errors.Is(err, plugins.Lost) && !errors.Is(err, errUnwritten)
		if !known {
			r.settleUnknown(ctx, h, to, err)
			return nil
		}
		return errors.Join(err, r.condemnAgain(ctx, h))
	}
	h.switched(to, took)
	r.say(h, StepSwitch, StatusDone, "%s serves from %s, switched in %s", to.Version, to.Slot, took.Round(100*time.Microsecond))
	return nil
}

func (r *run) tryToSwitch(ctx context.Context, h *hostRun, to record.Release) (time.Duration, error) {
	if h.plan.Instant {
		// Blue of the last deployment serves again: its teardown must be off
		// for certain before anything else.
		err := h.lock.Cancel(ctx, to.ID)
		if errors.Is(err, record.ErrTooLate) || errors.Is(err, record.ErrNoTeardown) {
			return 0, fmt.Errorf("%s has just left: roll back again, then its container is made anew: %w", to.Version, err)
		}
		if err != nil {
			return 0, err
		}
	}
	return r.route(ctx, h, to, h.plan.From)
}

// condemnAgain arms the teardown again that an instant return which did not
// come about has cancelled, unless it was too late for that.
func (r *run) condemnAgain(ctx context.Context, h *hostRun) error {
	if !h.plan.Instant || h.plan.From == nil {
		return nil
	}
	err := r.arm(ctx, h, &h.plan.To, *h.plan.From)
	if err == nil {
		err = h.lock.Let(ctx, h.plan.To.ID)
	}
	if errors.Is(err, record.ErrTooLate) || errors.Is(err, record.ErrNoTeardown) {
		return nil
	}
	return err
}

func (h *hostRun) switched(to record.Release, took time.Duration) {
	h.state = Switched
	h.result.Switch, h.result.SwitchAt = took, time.Now()
	h.plan.To = to
}

// errUnwritten says that a switch has happened and could not be written down.
// The intent stands on the host: whoever looks next understands it.
var errUnwritten = errors.New("it serves, and could not be written down")

// route makes next serve in place of last, and arms the teardown of last. It
// is one way for a switch, a rollback and the return after a failure. When it
// fails last serves, unless the error is errUnwritten, proxy.ErrUnknown or of
// kind plugins.Lost.
func (r *run) route(ctx context.Context, h *hostRun, next record.Release, last *record.Release) (time.Duration, error) {
	before := h.remembers
	intent := before
	intent.Switching = &next
	if err := h.lock.Write(ctx, intent); err != nil {
		return 0, err
	}
	undo := func(err error) error { // nothing was switched
		var errs []error
		if last != nil {
			errs = append(errs, h.keep(ctx, last.ID))
		}
		errs = append(errs, h.lock.Write(ctx, before))
		return errors.Join(append([]error{err}, errs...)...)
	}
	if err := r.setRestart(ctx, h, next.ID, plugins.RestartAlways); err != nil {
		if !h.onGreen() {
			return 0, undo(err)
		}
		// To go back matters more than what a reboot would do.
		r.warn(h, StepUndo, next.Version+" may not come back when the host restarts", err)
	}
	if err := r.arm(ctx, h, last, next); err != nil {
		return 0, undo(err)
	}
	began := time.Now()
	if h.proxy != nil {
		err := h.proxy.Switch(ctx, h.conn, r.layout(h), proxy.Route{App: h.app.Name, Slot: next.Slot, Share: 100})
		if errors.Is(err, proxy.ErrUnknown) || errors.Is(err, plugins.Lost) {
			return 0, err // leave everything as it is until somebody has looked
		}
		if err != nil {
			return 0, undo(err)
		}
	}
	took := time.Since(began)
	h.remembers = remember(before, next, h.app.Keep.Releases)
	if err := h.lock.Write(ctx, h.remembers); err != nil {
		return took, fmt.Errorf("%w: %w", errUnwritten, err)
	}
	return took, nil
}

// setRestart changes the restart policy of a release's containers, where the
// runtime can. One that shall not come back may be gone.
func (r *run) setRestart(ctx context.Context, h *hostRun, release string, policy plugins.RestartPolicy) error {
	rs, ok := h.runtime.(plugins.RestartPolicySetter)
	if !ok {
		return nil
	}
	found, err := h.runtime.List(ctx, h.conn, map[string]string{LabelApp: h.app.Name, LabelRelease: release})
	if err != nil {
		return err
	}
	for _, c := range found {
		err := rs.SetRestartPolicy(ctx, h.conn, c.ID, policy)
		if err != nil && (policy != plugins.RestartNever || !errors.Is(err, plugins.NotFound)) {
			return err
		}
	}
	return nil
}

// arm orders the host to remove the release that leaves, once the other one
// serves and nobody uses the first any more. Nothing happens before the run
// lets go of the order, or dies.
func (r *run) arm(ctx context.Context, h *hostRun, leaving *record.Release, staying record.Release) error {
	if leaving == nil {
		return nil
	}
	t := record.Teardown{
		App: h.app.Name, Release: leaving.ID, Slot: leaving.Slot,
		Delay: h.app.Drain.Delay, Max: h.app.Drain.Max, Armed: time.Now(),
	}
	var err error
	if t.Containers, err = r.condemned(ctx, h, *leaving); err != nil || len(t.Containers) == 0 {
		return err
	}
	if t.Successor, err = r.condemned(ctx, h, staying); err != nil {
		return err
	}
	if h.proxy != nil {
		t.RoutedScript, t.RoutedArgs = h.proxy.RoutedScript(r.layout(h), leaving.Slot)
	}
	return h.lock.Arm(ctx, t)
}

// condemned are a release's containers, with the commands by which the host
// ends them itself.
func (r *run) condemned(ctx context.Context, h *hostRun, release record.Release) ([]record.Condemned, error) {
	local, ok := h.runtime.(plugins.LocalRemover)
	if !ok {
		return nil, &plugins.Error{
			Op: "arm the teardown", Host: h.inv.Name, Kind: plugins.Unsupported,
			Err: fmt.Errorf("the runtime %s cannot remove a container without teal", h.app.Runtime),
		}
	}
	found, err := h.runtime.List(ctx, h.conn, map[string]string{LabelApp: h.app.Name, LabelRelease: release.ID})
	if err != nil {
		return nil, err
	}
	var list []record.Condemned
	for _, c := range found {
		commands, err := local.LocalCommands(ctx, h.conn, c.ID, release.App.Container.StopGrace)
		if err != nil {
			return nil, err
		}
		list = append(list, record.Condemned{ID: c.ID, Port: release.App.Container.Port, Commands: commands})
	}
	return list, nil
}

// settleUnknown finds out what serves after a switch whose outcome is not
// known: it connects again and reads, before it decides anything.
func (r *run) settleUnknown(ctx context.Context, h *hostRun, to record.Release, cause error) {
	r.warn(h, StepSwitch, "reading what serves", cause)
	ctx, cancel := orphan(ctx, cmp.Or(r.d.switching, switchLimit))
	defer cancel()
	serving, err := r.lookAgain(ctx, h)
	if err != nil {
		r.note(h, Unknown, StepSwitch, fmt.Errorf("it is not known what serves: %w", errors.Join(cause, err)))
		return
	}
	if serving == nil || serving.ID != to.ID {
		r.note(h, Failed, StepSwitch, errors.Join(cause, r.strikeOut(ctx, h)))
		return
	}
	h.switched(to, 0)
	h.remembers = remember(h.remembers, to, h.app.Keep.Releases)
	err = h.lock.Write(ctx, h.remembers)
	if err == nil {
		// The order stands, but nobody holds it back: it belongs to the lock
		// that is lost.
		err = r.arm(ctx, h, h.plan.From, to)
	}
	if err != nil {
		r.note(h, Switched, StepSwitch, err)
		return
	}
	r.say(h, StepSwitch, StatusDone, "%s serves from %s, as a new connection found", to.Version, to.Slot)
}

// lookAgain reads over a new connection what serves.
func (r *run) lookAgain(ctx context.Context, h *hostRun) (*record.Release, error) {
	if err := r.reconnect(ctx, h); err != nil {
		return nil, err
	}
	view := r.d.observe(ctx, &h.host)
	if err := view.Err; err != nil {
		return nil, err
	}
	if err := trustworthy(view); err != nil {
		return nil, err
	}
	if s := view.Record.State; s != nil {
		h.remembers = *s
	}
	return view.serving(), nil
}

// strikeOut takes back what was prepared for a switch that did not happen.
func (r *run) strikeOut(ctx context.Context, h *hostRun) error {
	h.remembers.Switching = nil
	var errs []error
	if h.plan.From != nil {
		errs = append(errs, h.keep(ctx, h.plan.From.ID))
	}
	return errors.Join(append(errs, h.lock.Write(ctx, h.remembers), r.condemnAgain(ctx, h))...)
}

// verify sends a request through the public listener.
func (r *run) verify(ctx context.Context, h *hostRun) error {
	p := h.app.Proxy
	if p == nil || p.Verify == nil {
		return nil
	}
	r.say(h, StepSwitch, StatusInfo, "verify %s", p.Verify.HTTP)
	if err := health.Verify(ctx, h.conn, *p.Verify); err != nil {
		return err
	}
	h.state = Verified
	return nil
}

// settleFailed decides what follows when something failed after the switch,
// or when the run was told to end.
func (r *run) settleFailed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil: // all that is left, the hosts do by themselves
		r.letGo(ctx)
		for _, h := range r.active() {
			h.state = Done
		}
	case r.rollout.OnFailure == "rollback":
		r.returned = err
		r.goBack(ctx)
	default:
		r.letGo(ctx)
	}
	return err
}
