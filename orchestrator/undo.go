package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/plugins"
)

// undoLimit bounds how long undoing may take on a host.
const undoLimit = 90 * time.Second

// removeGreen removes what the run made on hosts that have not switched: on
// those that failed, and when the run ends also on those that it did not come
// to switch, or that it has to connect to again.
func (r *run) removeGreen(ctx context.Context, ending bool) {
	var hosts []*hostRun
	for _, h := range r.hosts {
		rest := h.state == Pending || h.state == Ready || h.state == Unreachable
		if h.made && (h.state == Failed || ending && rest) {
			hosts = append(hosts, h)
		}
	}
	each(hosts, func(h *hostRun) error {
		ctx, cancel := orphan(ctx, cmp.Or(r.d.undoing, undoLimit))
		defer cancel()
		r.undo(ctx, h)
		return nil
	})
}

// undo removes green and its code from a host.
func (r *run) undo(ctx context.Context, h *hostRun) {
	if err := r.connected(ctx, &h.host); err != nil {
		r.warn(h, StepUndo, "green was left behind; the next deployment removes it", err)
		return
	}
	r.keepLog(ctx, h)
	err := r.neverRouted(ctx, h)
	if err == nil {
		if err = r.removeRelease(ctx, h); err != nil {
			err = fmt.Errorf("green is left behind, the next deployment removes it: %w", err)
		}
	}
	if err != nil {
		r.emit(Event{Host: h.inv.Name, Step: StepUndo, Status: StatusFailed, Err: err})
		return
	}
	h.made, h.green = false, nil
	if h.state == Ready {
		h.state = Pending
	}
	r.say(h, StepUndo, StatusDone, "green removed, blue serves on")
}

// neverRouted makes sure, where a switch may have been tried, that the proxy
// does not route to green.
func (r *run) neverRouted(ctx context.Context, h *hostRun) error {
	if h.front == nil || h.step != StepSwitch {
		return nil
	}
	s, err := h.front.sight(ctx, h.inv.Name)
	slot := h.plan.To.Slot
	switch {
	case err != nil:
		return fmt.Errorf("green is left behind: %w", err)
	case s.Live == silent:
		return fmt.Errorf("green is left behind, the next deployment removes it: %s", s.Problem)
	case s.Disk.Of(slot) > 0 || s.Live.Of(slot) > 0:
		return fmt.Errorf("green is left behind: the proxy routes to %s", slot)
	}
	return nil
}

func (r *run) removeRelease(ctx context.Context, h *hostRun) error {
	labels := map[string]string{LabelApp: h.app.Name, LabelRelease: h.plan.To.ID}
	found, err := h.runtime.List(ctx, h.conn, labels)
	errs := []error{err}
	for _, c := range found {
		errs = append(errs, r.removeContainer(ctx, h, c, 0))
	}
	if h.app.Code != nil {
		errs = append(errs, source.Remove(ctx, h.conn, r.d.Store.Dir(h.app.Name), h.plan.To.ID))
	}
	return errors.Join(errs...)
}

func (r *run) removeContainer(ctx context.Context, h *hostRun, c plugins.Container, grace time.Duration) error {
	if grace > 0 {
		if err := h.runtime.Stop(ctx, h.conn, c.ID, grace); err != nil {
			return err
		}
	}
	return h.runtime.Remove(ctx, h.conn, c.ID)
}

// connected makes a new connection where the old one is lost.
func (r *run) connected(ctx context.Context, h *host) error {
	select {
	case <-h.conn.Done():
	case <-h.lock.Lost():
	default:
		return nil
	}
	return r.reconnect(ctx, h)
}

// reconnect makes a new connection to a host whose old one was lost, and
// takes the lock again, which the host frees within seconds.
func (r *run) reconnect(ctx context.Context, h *host) error {
	_ = h.conn.Close()
	wait := time.NewTicker(time.Second)
	defer wait.Stop()
	for {
		err := r.reconnectOnce(ctx, h)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-wait.C:
		}
	}
}

func (r *run) reconnectOnce(ctx context.Context, h *host) error {
	conn, err := r.d.Dial(ctx, h.inv)
	if err != nil {
		return err
	}
	lock, err := r.d.Store.Acquire(ctx, conn, h.remembersAs(), r.owner())
	if err != nil {
		_ = conn.Close()
		return err
	}
	h.conn, h.lock = conn, lock
	return nil
}

// keep takes the order to remove a release back, where there is one.
func (h *hostRun) keep(ctx context.Context, release string) error {
	err := h.lock.Cancel(ctx, release)
	if errors.Is(err, record.ErrNoTeardown) {
		return nil
	}
	return err
}

// goBack switches every host that this run switched back to blue, which the
// run has kept alive.
func (r *run) goBack(ctx context.Context) {
	var hosts []*hostRun
	for _, h := range r.hosts {
		if h.onGreen() {
			hosts = append(hosts, h)
		}
	}
	r.goBackOn(ctx, hosts)
}

// goBackAlone switches a host back that failed behind its switch while the
// others go on. At once: blue does not live for long.
func (r *run) goBackAlone(ctx context.Context, h *hostRun) {
	if !h.onGreen() || errors.Is(h.err, plugins.Lost) || r.rollout.OnFailure != "rollback" {
		return
	}
	r.goBackOn(ctx, []*hostRun{h})
}

// errBlueGone says that a host cannot go back.
var errBlueGone = errors.New("blue is gone: there is nothing to go back to")

// goBackOn switches hosts back to blue, together. A host that cannot go back
// serves green on.
func (r *run) goBackOn(ctx context.Context, hosts []*hostRun) {
	ctx, cancel := orphan(ctx, cmp.Or(r.d.switching, switchLimit))
	defer cancel()
	back := make([]*move, len(hosts))
	each(indices(hosts), func(i int) error {
		h := hosts[i]
		if h.plan.From == nil {
			r.say(h, StepUndo, StatusWarning, "there is no blue to go back to: this is the first release, and it serves on")
			return nil
		}
		to := h.plan.To
		m := &move{hostRun: h, next: *h.plan.From, last: &to}
		if err := r.beforeReturn(ctx, m); err != nil {
			r.stays(ctx, m, err)
			return nil
		}
		back[i] = m
		return nil
	})
	back = slices.DeleteFunc(back, func(m *move) bool { return m == nil })
	r.direct(ctx, back, 100, (*front).insist)
	each(back, func(m *move) error {
		gctx, done := m.guard(ctx)
		defer done()
		r.afterReturn(gctx, m)
		return nil
	})
}

// beforeReturn prepares a host for blue to serve again. Its teardown must be
// off for certain and it must run before anything is routed to it.
func (r *run) beforeReturn(ctx context.Context, m *move) error {
	if err := r.connected(ctx, &m.host); err != nil {
		return fmt.Errorf("%w: %w", proxy.ErrUnknown, err)
	}
	ctx, done := m.guard(ctx)
	defer done()
	r.keepLog(ctx, m.hostRun)
	err := m.keep(ctx, m.next.ID)
	if errors.Is(err, record.ErrTooLate) {
		return errBlueGone
	}
	if err != nil {
		return err
	}
	found, err := m.runtime.List(ctx, m.conn, map[string]string{LabelApp: m.app.Name, LabelRelease: m.next.ID})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(found, func(c plugins.Container) bool { return c.Status == plugins.StatusRunning }) {
		return errBlueGone
	}
	return r.intend(ctx, m)
}

// afterReturn writes down what became of a return.
func (r *run) afterReturn(ctx context.Context, m *move) {
	if err := m.err; err != nil {
		if !errors.Is(err, proxy.ErrUnknown) && !errors.Is(err, plugins.Lost) {
			err = errors.Join(err, m.strikeOut(ctx))
		}
		r.stays(ctx, m, err)
		return
	}
	err := m.writeDown(ctx)
	m.state = RolledBack
	r.say(m.hostRun, StepUndo, StatusDone, "%s serves again from %s", m.next.Version, m.next.Slot)
	if err = errors.Join(err, r.forgetGreen(ctx, m.hostRun)); err != nil {
		r.warn(m.hostRun, StepUndo, "the next deployment puts the rest right", err)
	}
}

// stays notes that a host could not go back.
func (r *run) stays(ctx context.Context, m *move, err error) {
	if errors.Is(err, proxy.ErrUnknown) || errors.Is(err, plugins.Lost) || ctx.Err() != nil {
		m.state = Unknown
	}
	if m.hostRun.err == nil {
		m.step, m.hostRun.err = StepUndo, r.redact.err(err)
	}
	r.emit(Event{Host: m.inv.Name, Step: StepUndo, Status: StatusFailed, Text: "could not go back to blue", Err: err})
}

// forgetGreen lets the host remove green. What failed is no release to go back
// to.
func (r *run) forgetGreen(ctx context.Context, h *hostRun) error {
	to := h.plan.To.ID
	h.remembers.Kept = slices.DeleteFunc(h.remembers.Kept, func(k record.Release) bool { return k.ID == to })
	return errors.Join(
		h.lock.Write(ctx, h.remembers),
		r.setRestart(ctx, h, to, plugins.RestartNever),
		h.lock.Let(ctx, to),
	)
}
