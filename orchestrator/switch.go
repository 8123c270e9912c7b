package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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

// switchAll switches every host at the same time. When a host cannot be
// switched, those that were go back, unless the rollout says to stop.
func (r *run) switchAll(ctx context.Context) error {
	if ctx.Err() != nil { // the last chance to turn around
		return context.Cause(ctx)
	}
	if err := r.shared.ready(ctx); err != nil {
		return err
	}
	err := r.commit(ctx)
	r.strikeOutAll(ctx)
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

// commit makes green serve on every host. But for the shares that may go
// before, it is not interrupted.
func (r *run) commit(ctx context.Context) error {
	for _, s := range r.turn() {
		sctx, cancel := ctx, context.CancelFunc(func() {})
		if s.through {
			sctx, cancel = orphan(ctx, cmp.Or(r.d.switching, switchLimit))
		}
		err := r.carryOut(sctx, s)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// A move makes one release serve on a host in place of another. It is one way
// for a switch, a rollback and the return after a failure.
type move struct {
	*hostRun
	next   record.Release
	last   *record.Release
	before record.State // what the host has on disk, but for the intent

	percent int   // of the requests that next gets so far
	sick    error // why next is not to get more
	took    time.Duration
	err     error // why the proxies did not make it come about, or are not known to have
}

// share is what the member gets when next has so many percent of the requests.
func (m *move) share(percent int) proxy.Share {
	if m.next.Slot == proxy.Green {
		return proxy.Share(percent)
	}
	return proxy.Share(100 - percent)
}

// holds is which release each of the host's slots holds.
func (m *move) holds() map[proxy.Slot]string {
	holds := map[proxy.Slot]string{m.next.Slot: m.next.ID}
	if m.last != nil {
		holds[m.last.Slot] = m.last.ID
	}
	return holds
}

// announce writes down on one host that green is about to serve. The order
// matters: at whatever moment teal, the connection or the host dies, what is
// on the host says what to do.
func (r *run) announce(ctx context.Context, h *hostRun) error {
	to := h.plan.To
	to.At = time.Now()
	r.say(h, StepSwitch, StatusStarted, "to %s", to.Slot)
	if h.plan.Instant {
		// Blue of the last deployment serves again: its teardown must be off
		// for certain before anything else.
		err := h.lock.Cancel(ctx, to.ID)
		if errors.Is(err, record.ErrTooLate) || errors.Is(err, record.ErrNoTeardown) {
			return fmt.Errorf("%s has just left: roll back again, then its container is made anew: %w", to.Version, err)
		}
		if err != nil {
			return r.notSwitched(ctx, h, to, err)
		}
	}
	m := &move{hostRun: h, next: to, last: h.plan.From}
	if err := r.intend(ctx, m); err != nil {
		return r.notSwitched(ctx, h, to, err)
	}
	h.move = m
	return nil
}

// notSwitched decides what follows when a host could not be switched: it
// returns why, or finds out what serves when that is not known.
func (r *run) notSwitched(ctx context.Context, h *hostRun, to record.Release, err error) error {
	known := ctx.Err() == nil && !errors.Is(err, proxy.ErrUnknown) && !errors.Is(err, plugins.Lost) && !errors.Is(err, errUnwritten)
	if !known {
		r.settleUnknown(ctx, h, to, err)
		return nil
	}
	return errors.Join(err, r.condemnAgain(ctx, h))
}

// intend writes down which release is about to serve, and arms the teardown of
// the one that leaves. When it fails that is undone, unless the error is of
// kind plugins.Lost.
func (r *run) intend(ctx context.Context, m *move) error {
	m.before = m.remembers
	intent := m.before
	intent.Switching = &m.next
	if err := m.lock.Write(ctx, intent); err != nil {
		return err
	}
	if err := r.setRestart(ctx, m.hostRun, m.next.ID, plugins.RestartAlways); err != nil {
		if !m.onGreen() {
			return errors.Join(err, m.strikeOut(ctx))
		}
		// To go back matters more than what a reboot would do.
		r.warn(m.hostRun, StepUndo, m.next.Version+" may not come back when the host restarts", err)
	}
	if err := r.arm(ctx, m.hostRun, m.last, m.next); err != nil {
		return errors.Join(err, m.strikeOut(ctx))
	}
	return nil
}

// strikeOut takes an intent back: nothing was switched.
func (m *move) strikeOut(ctx context.Context) error {
	var errs []error
	if m.last != nil {
		errs = append(errs, m.keep(ctx, m.last.ID))
	}
	return errors.Join(append(errs, m.lock.Write(ctx, m.before))...)
}

// strikeOutAll takes back what was announced on hosts that did not come to be
// switched.
func (r *run) strikeOutAll(ctx context.Context) {
	ctx, cancel := orphan(ctx, cmp.Or(r.d.switching, switchLimit))
	defer cancel()
	each(r.hosts, func(h *hostRun) error {
		m := h.move
		if m == nil || h.err != nil || h.onGreen() {
			return nil
		}
		h.move = nil
		err := r.connected(ctx, &h.host)
		if err == nil {
			err = errors.Join(m.strikeOut(ctx), r.condemnAgain(ctx, h))
		}
		if err != nil {
			r.warn(h, StepUndo, "the next deployment puts the rest right", err)
		}
		if m.sick != nil {
			r.note(h, Failed, StepSwitch, m.sick)
		}
		return nil
	})
}

// moves are the switches that stand before the run.
func (r *run) moves() []*move {
	var moves []*move
	for _, h := range r.active() {
		if h.move != nil {
			moves = append(moves, h.move)
		}
	}
	return moves
}

// switchToGreen directs all new connections to green, on all proxies at the
// same time, and writes down on every host what serves.
func (r *run) switchToGreen(ctx context.Context) error {
	moves := r.moves()
	r.direct(ctx, moves, 100, (*front).switchTo)
	each(moves, func(m *move) error {
		gctx, done := m.guard(ctx)
		defer done()
		if err := r.confirm(gctx, m); err != nil {
			r.drop(gctx, m.hostRun, StepSwitch, err)
		}
		if m.hostRun.err != nil && r.tooMany() == nil {
			r.goBackAlone(ctx, m.hostRun)
		}
		return nil
	})
	return r.tooMany()
}

// confirm writes down on one host that green serves, or deals with that it
// does not.
func (r *run) confirm(ctx context.Context, m *move) error {
	h, refused := m.hostRun, m.err
	err := refused
	if err == nil {
		err = m.writeDown(ctx)
	}
	if err == nil {
		h.switched(m.next, m.took)
		r.say(h, StepSwitch, StatusDone, "%s serves from %s, switched in %s", m.next.Version, m.next.Slot, m.took.Round(100*time.Microsecond))
		return nil
	}
	if refused != nil && m.percent > 0 { // that is what it still gets
		if err := r.withdraw(ctx, []*move{m}); err != nil {
			return nil // it is known to be unknown
		}
	}
	h.move = nil
	if refused != nil && !errors.Is(err, proxy.ErrUnknown) && !errors.Is(err, plugins.Lost) {
		err = errors.Join(err, m.strikeOut(ctx))
	}
	return r.notSwitched(ctx, h, m.next, err)
}

// direct gives the releases that come their percent of the requests, on all
// proxies at the same time by the front's switchTo or insist, and notes in each
// move what became of it.
func (r *run) direct(ctx context.Context, moves []*move, percent int, by func(*front, context.Context, change) error) {
	fronts := map[*front][]*move{}
	for _, m := range moves {
		m.took, m.err = 0, nil
		if m.front != nil {
			fronts[m.front] = append(fronts[m.front], m)
		}
	}
	each(slices.Collect(maps.Keys(fronts)), func(f *front) error {
		to := change{proxy.Route{}, proxy.Releases{}}
		for _, m := range fronts[f] {
			to.route[m.inv.Name], to.holds[m.inv.Name] = m.share(percent), m.holds()
		}
		began := time.Now()
		err := by(f, ctx, to)
		for _, m := range fronts[f] {
			m.took, m.err = time.Since(began), err
		}
		return nil
	})
}

// errUnwritten says that a switch has happened and could not be written down.
// The intent stands on the host: whoever looks next understands it.
var errUnwritten = errors.New("it serves, and could not be written down")

// writeDown makes the host remember that next serves.
func (m *move) writeDown(ctx context.Context) error {
	m.remembers = remember(m.before, m.next, m.app.Keep.Releases)
	if err := m.lock.Write(ctx, m.remembers); err != nil {
		return fmt.Errorf("%w: %w", errUnwritten, err)
	}
	return nil
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
	switch f := h.front; {
	case f == nil:
	case f.shared: // whom the host cannot ask: it goes by what this run writes down
		t.RoutedScript, t.RoutedArgs = r.d.Store.ServesScript(h.app.Name, leaving.Slot)
	default:
		t.RoutedScript, t.RoutedArgs = h.proxy.RoutedScript(f.proxies[0].layout, h.inv.Name, leaving.Slot)
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
		list = append(list, record.Condemned{ID: c.ID, Port: cmp.Or(commands.Port, release.App.Container.Port), Commands: commands})
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
		r.note(h, Failed, StepSwitch, errors.Join(cause, r.forgetSwitch(ctx, h)))
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
	again := r.reconnect
	if h.front != nil && h.front.shared { // it is not this connection that is to blame
		again = r.connected
	}
	if err := again(ctx, &h.host); err != nil {
		return nil, err
	}
	view := r.d.observe(ctx, &h.host)
	if h.front != nil && h.front.shared && view.Err == nil {
		view.Proxy, view.Err = h.front.sight(ctx, h.inv.Name)
	}
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

// forgetSwitch takes back what was prepared for a switch that did not happen.
func (r *run) forgetSwitch(ctx context.Context, h *hostRun) error {
	h.remembers.Switching = nil
	var errs []error
	if h.plan.From != nil {
		errs = append(errs, h.keep(ctx, h.plan.From.ID))
	}
	return errors.Join(append(errs, h.lock.Write(ctx, h.remembers), r.condemnAgain(ctx, h))...)
}

// verify sends a request through the public listener of the host's own proxy.
func (r *run) verify(ctx context.Context, h *hostRun) error {
	p := h.app.Proxy
	if p == nil || p.Verify == nil {
		return nil
	}
	if !h.front.shared {
		r.say(h, StepSwitch, StatusInfo, "verify %s", p.Verify.HTTP)
		if err := health.Verify(ctx, h.conn, *p.Verify); err != nil {
			return err
		}
	}
	h.state = Verified
	return nil
}

// verifyShared sends a request through the public listener of every load
// balancer. One that is lost has confirmed, and does not speak against green.
func (r *run) verifyShared(ctx context.Context) error {
	if r.shared == nil || r.app().Proxy.Verify == nil {
		return nil
	}
	v := *r.app().Proxy.Verify
	return errors.Join(each(r.shared.proxies, func(p *proxyAt) error {
		gctx, done := p.guard(ctx)
		defer done()
		r.balancerSays(p, StatusInfo, "verify "+v.HTTP, nil)
		err := health.Verify(gctx, p.conn, v)
		if err == nil {
			return nil
		}
		if gctx.Err() == nil { // a silence is not an answer
			err = errors.Join(err, r.shared.believes(gctx, p))
		}
		if lost := proxy.CutShort(gctx, err); errors.Is(lost, plugins.Lost) {
			r.balancerSays(p, StatusWarning, "it has confirmed what it serves, and could not be verified", lost)
			r.unverified.Store(true)
			return nil
		}
		return &balancerError{p.inv.Name, false, err}
	})...)
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
