package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// confirmLimit bounds how long one proxy may take to confirm a switch. A load
// balancer that hangs keeps the others divided for that long.
const confirmLimit = 10 * time.Second

// A front is the proxies that decide together where the requests for some
// hosts go: a host's own proxy, or all load balancers of the app.
type front struct {
	run     *run
	shared  bool // load balancers, which are one decision
	proxies []*proxyAt

	mu sync.Mutex // of a change, and of route
	// route is what the proxies of a shared front are known to do with their
	// members: what they go back to when one of them does not confirm.
	route proxy.Route
}

// A proxyAt is a proxy on a host, and what it shall have in its configuration.
type proxyAt struct {
	*host
	layout proxy.Layout
}

// takeBackLimit bounds how long a load balancer that was lost in a switch is
// waited for.
const takeBackLimit = time.Minute

// switchTo changes the shares of members. When it returns nil every proxy has
// confirmed; otherwise the shares are as before, unless the error is
// proxy.ErrUnknown or, of a host's own proxy, of kind plugins.Lost.
func (f *front) switchTo(ctx context.Context, change proxy.Route) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.shared {
		return f.switchOwn(ctx, change)
	}
	errs := each(f.proxies, func(p *proxyAt) error { return p.confirm(ctx, change) })
	cause := errors.Join(errs...)
	if cause == nil {
		maps.Copy(f.route, change)
		return nil
	}
	back := proxy.Route{}
	for member := range change {
		back[member] = proxy.Off
		if share, known := f.route[member]; known {
			back[member] = share
		}
	}
	return f.takeBack(ctx, errs, back, cause)
}

// returnTo changes the shares of members back, away from what has failed. Load
// balancers that can do that do it, whatever becomes of the others: then the
// error is proxy.ErrUnknown.
func (f *front) returnTo(ctx context.Context, change proxy.Route) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.shared {
		return f.switchOwn(ctx, change)
	}
	err := errors.Join(each(f.proxies, func(p *proxyAt) error {
		cctx, cancel := context.WithTimeout(ctx, confirmLimit)
		defer cancel()
		err := f.run.connected(cctx, p.host)
		if err == nil {
			err = p.confirm(ctx, change)
		}
		if err != nil {
			return &balancerError{p.inv.Name, false, err}
		}
		return nil
	})...)
	if err != nil {
		return fmt.Errorf("%w on every load balancer: %w", proxy.ErrUnknown, err)
	}
	maps.Copy(f.route, change)
	return nil
}

// switchOwn switches a host's own proxy.
func (f *front) switchOwn(ctx context.Context, change proxy.Route) error {
	p := f.proxies[0]
	gctx, done := p.guard(ctx)
	defer done()
	return p.proxy.Switch(gctx, p.conn, p.layout, change)
}

// confirm switches one load balancer.
func (p *proxyAt) confirm(ctx context.Context, change proxy.Route) error {
	gctx, done := p.guard(ctx)
	defer done()
	gctx, cancel := context.WithTimeoutCause(gctx, confirmLimit, fmt.Errorf("%s did not confirm within %s", p.inv.Name, confirmLimit))
	defer cancel()
	err := p.proxy.Switch(gctx, p.conn, p.layout, change)
	if cause := context.Cause(gctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", proxy.ErrUnknown, errors.Join(cause, err))
	}
	return err
}

// takeBack undoes a change that some load balancers did not confirm on all of
// them. What became of it on one that was lost is read before it is undone.
func (f *front) takeBack(ctx context.Context, errs []error, back proxy.Route, cause error) error {
	ctx, cancel := orphan(ctx, cmp.Or(f.run.d.switching, takeBackLimit))
	defer cancel()
	undone := each(indices(f.proxies), func(i int) error {
		p, err := f.proxies[i], errs[i]
		if err != nil && !errors.Is(err, proxy.ErrUnknown) && !errors.Is(err, plugins.Lost) {
			return nil // it has said itself that nothing changed
		}
		f.run.balancerSays(p, StatusWarning, "goes back", err)
		if err != nil {
			if err := f.run.reconnect(ctx, p.host); err != nil {
				return err
			}
		}
		gctx, done := p.guard(ctx)
		defer done()
		return p.proxy.Switch(gctx, p.conn, p.layout, back)
	})
	if err := errors.Join(undone...); err != nil {
		return fmt.Errorf("%w: %w; going back: %w", proxy.ErrUnknown, cause, err)
	}
	return fmt.Errorf("not every load balancer confirmed, all serve as before: %s", cause.Error()) // not %w: what was unknown no longer is
}

// ready makes sure that every load balancer answers and serves what is
// believed, right before something is changed: one that does not would make
// of it half a change.
func (f *front) ready(ctx context.Context) error {
	if f == nil || !f.shared {
		return nil
	}
	return errors.Join(each(f.proxies, func(p *proxyAt) error {
		ctx, cancel := context.WithTimeoutCause(ctx, confirmLimit, fmt.Errorf("no answer within %s", confirmLimit))
		defer cancel()
		err := f.run.connected(ctx, p.host)
		if err == nil {
			err = f.believes(ctx, p)
		}
		if err != nil {
			return &balancerError{p.inv.Name, true, err}
		}
		return nil
	})...)
}

// believes asks a load balancer whether it serves what the front thinks.
func (f *front) believes(ctx context.Context, p *proxyAt) error {
	gctx, done := p.guard(ctx)
	defer done()
	o, err := p.proxy.Observe(gctx, p.conn, p.layout)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, member := range slices.Sorted(maps.Keys(f.route)) {
		if s := sightOf(o, member); s.Disk != f.route[member] || s.Live != f.route[member] {
			return fmt.Errorf("it serves %s of %s, not %s as the others: %s", o.Live[member], member, f.route[member],
				cmp.Or(o.Problem, "somebody else has changed it"))
		}
	}
	return nil
}

// sight reads what the front's proxies do with a member's requests.
func (f *front) sight(ctx context.Context, member string) (Sight, error) {
	f.mu.Lock() // it may connect again
	defer f.mu.Unlock()
	if f.shared {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, confirmLimit)
		defer cancel()
	}
	sights := make([]Sight, len(f.proxies))
	errs := each(indices(f.proxies), func(i int) error {
		p := f.proxies[i]
		if f.shared {
			if err := f.run.connected(ctx, p.host); err != nil {
				return &balancerError{p.inv.Name, false, err}
			}
		}
		o, err := p.proxy.Observe(ctx, p.conn, p.layout)
		sights[i] = sightOf(o, member)
		return err
	})
	if err := errors.Join(errs...); err != nil {
		return Sight{}, err
	}
	return merge(sights), nil
}

// merge makes one sight of those of several load balancers.
func merge(sights []Sight) Sight {
	all := sights[0]
	for _, s := range sights[1:] {
		switch {
		case !s.Prepared: // it is new, and is told what the others do
			all.Outdated = true
			continue
		case !all.Prepared:
			all = s
			all.Outdated = true
			continue
		}
		all.Mixed = all.Mixed || s.Mixed || s.Disk != all.Disk
		all.Outdated = all.Outdated || s.Outdated
		if s.Live != s.Disk || s.Problem != "" {
			all.Live, all.Problem = s.Live, cmp.Or(s.Problem, all.Problem)
		}
		for slot, n := range s.Open {
			if all.Open == nil {
				all.Open = map[proxy.Slot]int{}
			}
			all.Open[slot] += n
		}
	}
	if _, whole := all.Disk.Slot(); all.Prepared && !whole && all.Disk != proxy.Off {
		all.Mixed = true // a canary that somebody left
	}
	return all
}

// A balancerError says what a load balancer could not do.
type balancerError struct {
	name      string
	unreached bool // it cannot be asked: nothing was begun
	err       error
}

func (e *balancerError) Error() string {
	return "load balancer " + e.name + ": " + strings.TrimPrefix(e.err.Error(), e.name+": ")
}

func (e *balancerError) Unwrap() error { return e.err }
