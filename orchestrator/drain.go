package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

// releaseBlue lets go of the armed teardown: from here on the host removes
// blue by itself.
func (r *run) releaseBlue(ctx context.Context, h *hostRun) error {
	if h.plan.From == nil {
		return nil
	}
	r.say(h, StepTeardown, StatusStarted, "%s leaves %s in %s at the earliest", h.plan.From.Version, h.plan.From.Slot, h.app.Drain.Delay)
	err := r.setRestart(ctx, h, h.plan.From.ID, plugins.RestartNever)
	let := h.lock.Let(ctx, h.plan.From.ID)
	if errors.Is(let, record.ErrNoTeardown) { // blue had no container any more
		let = nil
	}
	err = errors.Join(err, let, r.pruneCode(ctx, h))
	if ctx.Err() != nil || errors.Is(err, plugins.Lost) {
		return err
	}
	h.released = true
	if err != nil { // green serves well, and the host removes blue when the run has ended
		r.warn(h, StepTeardown, "not all is put away", err)
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
	go func() {
		defer cancel() // nobody need wait for blue to leave
		sick <- r.watch(wctx, h)
	}()
	gone := r.awaitBlue(wctx, h)
	cancel()
	if err := <-sick; err != nil {
		return err
	}
	return gone
}

// awaitBlue waits until blue's containers are gone. Before their delay is over
// they are not, and nobody is asked.
func (r *run) awaitBlue(ctx context.Context, h *hostRun) error {
	from := h.plan.From
	patience := time.NewTimer(h.app.Drain.Delay + h.app.Container.StopGrace + 5*time.Second)
	defer patience.Stop()
	next := time.NewTimer(time.Until(h.result.SwitchAt.Add(h.app.Drain.Delay)))
	defer next.Stop()
	warned := false
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			return r.leaveBlue(ctx, h)
		case <-next.C:
			next.Reset(500 * time.Millisecond)
		}
		found, err := h.runtime.List(ctx, h.conn, map[string]string{LabelApp: h.app.Name, LabelRelease: from.ID})
		if errors.Is(err, plugins.Lost) {
			return err
		}
		if err == nil && len(found) == 0 {
			h.result.BlueGone = time.Now()
			r.say(h, StepTeardown, StatusDone, "%s is gone, %s after the switch", from.Version, tidy(time.Since(h.result.SwitchAt)))
			return nil
		}
		if err != nil && ctx.Err() == nil && !warned { // the host removes blue without it
			warned = true
			r.warn(h, StepTeardown, "it is not seen whether blue is gone", err)
		}
	}
}

// leaveBlue ends the watch while blue still has connections: the host removes
// it when they end.
func (r *run) leaveBlue(ctx context.Context, h *hostRun) error {
	o, err := r.d.Store.Observe(ctx, h.conn, h.app.Name)
	if ctx.Err() != nil || errors.Is(err, plugins.Lost) {
		return err
	}
	if err != nil {
		r.warn(h, StepTeardown, "the host was not asked when blue leaves", err)
		return nil
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
	switch {
	case connections < 0: // nobody could count them
		return "connections end"
	case connections == 1:
		return "connection ends"
	}
	return count(connections, "connection") + " end"
}

// letGo lets the hosts that have switched remove blue by themselves.
func (r *run) letGo(ctx context.Context) {
	ctx, cancel := orphan(ctx, cmp.Or(r.d.undoing, undoLimit))
	defer cancel()
	each(r.hosts, func(h *hostRun) error {
		if !h.onGreen() || h.released || errors.Is(h.err, plugins.Lost) {
			return nil
		}
		if err := r.releaseBlue(ctx, h); err != nil {
			r.warn(h, StepTeardown, "the host removes blue when the run has ended", err)
		}
		return nil
	})
}
