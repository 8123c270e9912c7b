package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
		r.removeGreen(ctx)
		return context.Cause(ctx)
	}
	sctx, cancel := orphan(ctx, switchLimit)
	defer cancel()
	err := r.carryOut(sctx, r.commit())
	if err == nil {
		return nil
	}
	if r.rollout.OnFailure == "rollback" {
		r.goBack(sctx, err)
	}
	r.removeGreen(sctx)
	return err
}

// switchToGreen is step 6 on one host. The order matters: at whatever moment
// teal, the connection or the host dies, what is on the host says what to do.
func (r *run) switchToGreen(ctx context.Context, h *hostRun) error {
	to := h.plan.To
	to.At = time.Now()
	r.say(h, StepSwitch, StatusStarted, "to %s", to.Slot)
	if h.plan.Instant {
		// Blue of the last deployment serves again: its teardown must be off
		// for certain before anything else.
		if err := h.lock.Cancel(ctx, to.ID); err != nil {
			return err
		}
	}
	took, err := r.route(ctx, h, to, h.plan.From)
	if err != nil {
		if errors.Is(err, proxy.ErrUnknown) || errors.Is(err, plugins.Lost) || ctx.Err() != nil {
			return r.settleUnknown(ctx, h, to, err)
		}
		return err
	}
	h.switched(to, took)
	r.say(h, StepSwitch, StatusDone, "%s serves from %s, switched in %s", to.Version, to.Slot, took.Round(100*time.Microsecond))
	return nil
}

func (h *hostRun) switched(to record.Release, took time.Duration) {
	h.state = Switched
	h.result.Switch, h.result.SwitchAt = took, time.Now()
	h.plan.To = to
}

// route makes next serve in place of last, and arms the teardown of last. It
// is one way for a switch, a rollback and the return after a failure.
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
			errs = append(errs, h.lock.Cancel(ctx, last.ID))
		}
		errs = append(errs, h.lock.Write(ctx, before))
		return errors.Join(append([]error{err}, errs...)...)
	}
	if err := r.setRestart(ctx, h, next.ID, plugins.RestartAlways); err != nil {
		return 0, undo(err)
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
	return took, h.lock.Write(ctx, h.remembers)
}

// setRestart changes the restart policy of a release's containers, where the
// runtime can.
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
		if err := rs.SetRestartPolicy(ctx, h.conn, c.ID, policy); err != nil {
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
func (r *run) settleUnknown(ctx context.Context, h *hostRun, to record.Release, cause error) error {
	r.emit(Event{Host: h.inv.Name, Step: StepSwitch, Status: StatusWarning, Text: "reading what serves", Err: cause})
	unknown := func(err error) error {
		h.state, h.step = Unknown, StepSwitch
		h.err = r.redact.err(errors.Join(cause, err))
		r.emit(Event{Host: h.inv.Name, Step: StepSwitch, Status: StatusFailed, Text: "it is not known what serves", Err: h.err})
		return nil
	}
	rctx, cancel := orphan(ctx, switchLimit)
	defer cancel()
	if err := r.reconnect(rctx, h); err != nil {
		return unknown(err)
	}
	view := r.d.observe(rctx, &h.host)
	switch {
	case view.Err != nil:
		return unknown(view.Err)
	case h.proxy != nil && view.Proxy.Disk != view.Proxy.Live:
		return unknown(errors.New(view.Proxy.Problem))
	}
	if s := view.Record.State; s != nil {
		h.remembers = *s
	}
	serving := view.serving()
	if serving == nil || serving.ID != to.ID {
		h.remembers.Switching = nil
		var errs []error
		if h.plan.From != nil {
			errs = append(errs, h.lock.Cancel(rctx, h.plan.From.ID))
		}
		errs = append(errs, h.lock.Write(rctx, h.remembers))
		return errors.Join(append([]error{cause}, errs...)...)
	}
	h.remembers = remember(h.remembers, to, h.app.Keep.Releases)
	if err := h.lock.Write(rctx, h.remembers); err != nil {
		return unknown(err)
	}
	h.switched(to, 0)
	r.say(h, StepSwitch, StatusDone, "%s serves from %s, as a new connection found", to.Version, to.Slot)
	return nil
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

// releaseBlue lets go of the armed teardown: from here on the host removes
// blue by itself.
func (r *run) releaseBlue(ctx context.Context, h *hostRun) error {
	if h.plan.From == nil {
		return nil
	}
	r.say(h, StepTeardown, StatusStarted, "%s leaves %s in %s at the earliest", h.plan.From.Version, h.plan.From.Slot, h.app.Drain.Delay)
	if err := r.setRestart(ctx, h, h.plan.From.ID, plugins.RestartNever); err != nil {
		return err
	}
	if err := h.lock.Let(ctx, h.plan.From.ID); err != nil {
		return err
	}
	if err := r.pruneCode(ctx, h); err != nil { // space, not safety
		r.emit(Event{Host: h.inv.Name, Step: StepTeardown, Status: StatusWarning, Text: "old code was not removed", Err: err})
	}
	return nil
}

// watchGreen goes on testing green until blue is gone, or stays only because
// somebody is still connected to it.
func (r *run) watchGreen(ctx context.Context, h *hostRun) error {
	if h.plan.From == nil {
		return nil
	}
	if r.req.Detach {
		return r.leaveBlue(ctx, h)
	}
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sick := make(chan error, 1)
	go func() { sick <- health.Watch(wctx, r.subject(h), h.app.Test) }()
	gone := make(chan error, 1)
	go func() { gone <- r.awaitBlue(wctx, h) }()
	select {
	case err := <-sick:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	case err := <-gone:
		return err
	}
}

// awaitBlue waits until blue's containers are gone.
func (r *run) awaitBlue(ctx context.Context, h *hostRun) error {
	from := h.plan.From
	patience := time.NewTimer(h.app.Drain.Delay + h.app.Container.StopGrace + 5*time.Second)
	defer patience.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := h.runtime.List(ctx, h.conn, map[string]string{LabelApp: h.app.Name, LabelRelease: from.ID})
		if err != nil {
			return err
		}
		if len(found) == 0 {
			h.result.BlueGone = time.Now()
			r.say(h, StepTeardown, StatusDone, "%s is gone, %s after the switch", from.Version, tidy(time.Since(h.result.SwitchAt)))
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			return r.leaveBlue(ctx, h)
		case <-tick.C:
		}
	}
}

// leaveBlue ends the watch while blue still has connections: the host removes
// it when they end.
func (r *run) leaveBlue(ctx context.Context, h *hostRun) error {
	o, err := r.d.Store.Observe(ctx, h.conn, h.app.Name)
	if err != nil {
		return err
	}
	h.result.Teardown = pendingText(o.Pending)
	r.say(h, StepTeardown, StatusDone, "%s", h.result.Teardown)
	return nil
}

// pendingText says what is still to be removed and when.
func pendingText(pending []record.Pending) string {
	text := ""
	for _, p := range pending {
		due, latest := leaves(&p)
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("%s leaves %s ", p.Release, p.Slot)
		if p.Connections == 0 || time.Now().Before(due) {
			text += "from " + due.Format(time.TimeOnly) + " on"
		} else {
			text += fmt.Sprintf("when its %s, at the latest at %s", endOf(p.Connections), latest.Format(time.TimeOnly))
		}
	}
	return text
}

func endOf(connections int) string {
	if connections == 1 {
		return "connection ends"
	}
	return count(connections, "connection") + " end"
}

// settleFailed decides what follows when something failed after the switch.
func (r *run) settleFailed(ctx context.Context, s stage, err error) error {
	sctx, cancel := orphan(ctx, switchLimit)
	defer cancel()
	if ctx.Err() != nil { // told to end: all that is left, the hosts do by themselves
		for _, h := range r.active() {
			if s.step == StepSwitch {
				if lerr := r.releaseBlue(sctx, h); lerr != nil {
					r.emit(Event{Host: h.inv.Name, Step: StepTeardown, Status: StatusWarning, Err: lerr})
				}
			}
			h.state = Done
		}
		return err
	}
	if r.rollout.OnFailure == "rollback" {
		r.goBack(sctx, err)
	}
	return err
}

// goBack switches every host that this run switched back to blue, which the
// run has kept alive.
func (r *run) goBack(ctx context.Context, cause error) {
	r.returned = cause
	hosts := slices.DeleteFunc(slices.Clone(r.hosts), func(h *hostRun) bool { return h.result.SwitchAt.IsZero() })
	each(hosts, func(h *hostRun) error {
		if err := r.goBackOn(ctx, h); err != nil {
			h.state = Unknown
			if h.err == nil {
				h.step, h.err = StepUndo, r.redact.err(err)
			}
			r.emit(Event{Host: h.inv.Name, Step: StepUndo, Status: StatusFailed, Text: "could not go back to blue", Err: err})
		}
		return nil
	})
}

func (r *run) goBackOn(ctx context.Context, h *hostRun) error {
	from, to := h.plan.From, h.plan.To
	if from == nil {
		h.state = Switched
		r.say(h, StepUndo, StatusWarning, "there is no blue to go back to: this is the first release, and it serves on")
		return nil
	}
	select {
	case <-h.conn.Done():
		if err := r.reconnect(ctx, h); err != nil {
			return err
		}
	default:
	}
	r.keepLog(ctx, h)
	if err := h.lock.Cancel(ctx, from.ID); err != nil {
		return err
	}
	if _, err := r.route(ctx, h, *from, &to); err != nil {
		return err
	}
	h.state = RolledBack
	r.say(h, StepUndo, StatusDone, "%s serves again from %s", from.Version, from.Slot)
	// What failed is no release to go back to.
	h.remembers.Kept = slices.DeleteFunc(h.remembers.Kept, func(k record.Release) bool { return k.ID == to.ID })
	if err := h.lock.Write(ctx, h.remembers); err != nil {
		return err
	}
	if err := r.setRestart(ctx, h, to.ID, plugins.RestartNever); err != nil {
		return err
	}
	return h.lock.Let(ctx, to.ID)
}
