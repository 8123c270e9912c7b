package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/teal-deploy/teal/orchestrator/health"
	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// watchShare is how long each share of a canary is watched when nobody says
// otherwise.
const watchShare = 10 * time.Second

// canary gives green a share of the requests, and a larger one when it bore
// that, by the same datum that switches. When it turns bad green gets nothing
// again, on all hosts.
func (r *run) canary(ctx context.Context) error {
	var moves []*move
	for _, m := range r.moves() {
		if m.last != nil && m.front != nil && !m.plan.Instant {
			moves = append(moves, m)
		}
	}
	if r.command != "deploy" || len(moves) == 0 {
		return nil
	}
	for _, percent := range r.rollout.Canary {
		err := r.tryShare(ctx, moves, percent)
		if err == nil {
			continue
		}
		if ctx.Err() == nil {
			r.returned = err
		}
		return errors.Join(err, r.withdraw(ctx, moves))
	}
	return nil
}

// tryShare gives green so many percent, and looks what becomes of it.
func (r *run) tryShare(ctx context.Context, moves []*move, percent int) error {
	octx, cancel := orphan(ctx, cmp.Or(r.d.switching, switchLimit))
	defer cancel()
	r.direct(octx, moves, percent, (*front).switchTo)
	var errs []error
	for _, m := range moves {
		m.percent = percent
		if m.err != nil {
			errs = append(errs, m.err)
			continue
		}
		r.say(m.hostRun, StepSwitch, StatusInfo, "%s gets %d %% of the requests, for %s", m.next.Version, percent, r.watchFor())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := r.watchCanary(ctx, moves); err != nil {
		return err
	}
	return r.commands(ctx, "rollout.check", r.rollout.Check, fmt.Sprintf("TEAL_SHARE=%d", percent))
}

func (r *run) watchFor() time.Duration { return cmp.Or(r.rollout.Watch, watchShare) }

// watchCanary tests green on all hosts for as long as the rollout says. At the
// end each replica must pass, however few failures the time was enough for.
func (r *run) watchCanary(ctx context.Context, moves []*move) error {
	wctx, cancel := context.WithTimeout(ctx, r.watchFor())
	defer cancel()
	errs := eachOf(len(moves), moves, func(m *move) error {
		gctx, done := m.guard(wctx)
		defer done()
		err := r.watch(gctx, m.hostRun)
		switch {
		case err != nil:
		case wctx.Err() == nil: // the connection was lost
			err = context.Cause(gctx)
		case !errors.Is(wctx.Err(), context.Canceled): // that was another host's failure
			err = r.passes(ctx, m.hostRun)
		}
		if err != nil {
			cancel()
			m.sick = err
			return fmt.Errorf("%s: %w", m.inv.Name, err)
		}
		return nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(errs...)
}

// passes tests every replica of green once.
func (r *run) passes(ctx context.Context, h *hostRun) error {
	test := h.app.Test
	test.Successes, test.Stable, test.Within = 1, 0, max(test.Timeout, time.Second)
	return errors.Join(eachOf(len(h.green), indices(h.green), func(i int) error {
		return health.Wait(ctx, r.subject(h, i), test, nil)
	})...)
}

// watch goes on testing every replica of green, until ctx ends or one fails.
func (r *run) watch(ctx context.Context, h *hostRun) error {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return errors.Join(eachOf(len(h.green), indices(h.green), func(i int) error {
		err := health.Watch(wctx, r.subject(h, i), h.app.Test)
		if err != nil {
			cancel()
		}
		return err
	})...)
}

// withdraw takes green's share away.
func (r *run) withdraw(ctx context.Context, moves []*move) error {
	ctx, cancel := orphan(ctx, cmp.Or(r.d.switching, switchLimit))
	defer cancel()
	var shared []*move
	for _, m := range moves {
		if m.percent > 0 {
			shared = append(shared, m)
		}
	}
	each(shared, func(m *move) error { return r.connected(ctx, &m.host) }) // what follows says whether it is
	r.direct(ctx, shared, 0, (*front).insist)
	var errs []error
	for _, m := range shared {
		if m.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.inv.Name, m.err))
			if errors.Is(m.err, proxy.ErrUnknown) {
				m.move = nil
				r.note(m.hostRun, Unknown, StepSwitch, m.err)
			}
			continue
		}
		m.percent = 0
		r.say(m.hostRun, StepUndo, StatusInfo, "%s gets no requests any more", m.next.Version)
	}
	return errors.Join(errs...)
}
