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

// tellLimit bounds how long a load balancer that was lost in a switch is waited
// for, to be told what it shall serve.
const tellLimit = time.Minute

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
	holds proxy.Releases // which releases their slots are known to hold
}

// A change is what proxies are to do with members, and the releases that their
// slots hold.
type change struct {
	route proxy.Route
	holds proxy.Releases
}

// A proxyAt is a proxy on a host, and what it shall have in its configuration.
type proxyAt struct {
	*host
	layout proxy.Layout
	again  sync.Mutex // of connecting again
}

// switchTo changes the shares of members. When it returns nil every proxy has
// confirmed; otherwise the shares are as before, unless the error is
// proxy.ErrUnknown or, of a host's own proxy, of kind plugins.Lost.
func (f *front) switchTo(ctx context.Context, to change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.shared {
		p := f.proxies[0]
		gctx, done := p.guard(ctx)
		defer done()
		return p.proxy.Switch(gctx, p.conn, p.layout, to.route, to.holds)
	}
	errs := f.confirm(ctx, to)
	cause := errors.Join(errs...)
	if cause == nil {
		return nil
	}
	back := change{proxy.Route{}, f.holds}
	for member := range to.route {
		back.route[member] = proxy.Off
		if share, known := f.route[member]; known {
			back.route[member] = share
		}
	}
	return f.takeBack(ctx, errs, back, cause)
}

// insist is switchTo for a change away from what turned out bad. Load balancers
// that confirm stay with it whatever the others do, and those are told again.
// When it returns an error, proxy.ErrUnknown is in its chain.
func (f *front) insist(ctx context.Context, to change) error {
	if !f.shared {
		return f.switchTo(ctx, to)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := f.confirm(ctx, to)
	cause := errors.Join(errs...)
	if cause == nil {
		return nil
	}
	failed := func(err error) bool { return err != nil }
	if err := f.tell(ctx, errs, failed, "is told again", to); err != nil {
		return fmt.Errorf("%w: %w; told again: %w", proxy.ErrUnknown, cause, err)
	}
	f.remember(to)
	return nil
}

// remember notes what the load balancers do from now on.
func (f *front) remember(to change) {
	maps.Copy(f.route, to.route)
	maps.Copy(f.holds, to.holds)
}

// confirm switches all load balancers and remembers it when all have done it.
func (f *front) confirm(ctx context.Context, to change) []error {
	errs := each(f.proxies, func(p *proxyAt) error { return p.confirm(ctx, to) })
	if errors.Join(errs...) == nil {
		f.remember(to)
	}
	return errs
}

// confirm switches one load balancer.
func (p *proxyAt) confirm(ctx context.Context, to change) error {
	gctx, done := p.guard(ctx)
	defer done()
	gctx, cancel := context.WithTimeoutCause(gctx, confirmLimit, fmt.Errorf("%s did not confirm within %s", p.inv.Name, confirmLimit))
	defer cancel()
	err := p.proxy.Switch(gctx, p.conn, p.layout, to.route, to.holds)
	if cause := context.Cause(gctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", proxy.ErrUnknown, cause)
	}
	return err
}

// takeBack undoes a change that some load balancers did not confirm on all of
// them. What became of it on one that was lost is read before it is undone.
func (f *front) takeBack(ctx context.Context, errs []error, back change, cause error) error {
	changed := func(err error) bool { // else it has said itself that nothing changed
		return err == nil || errors.Is(err, proxy.ErrUnknown) || errors.Is(err, plugins.Lost)
	}
	if err := f.tell(ctx, errs, changed, "goes back", back); err != nil {
		return fmt.Errorf("%w: %w; going back: %w", proxy.ErrUnknown, cause, err)
	}
	said := strings.ReplaceAll(cause.Error(), proxy.ErrUnknown.Error()+": ", "") // it is known now
	said = "not every load balancer confirmed, all serve as before: " + said
	if errors.Is(cause, proxy.ErrUnproven) {
		return &undoneError{said, proxy.ErrUnproven}
	}
	return errors.New(said)
}

// An undoneError says why a change was taken back everywhere. Of its causes
// only the kind is left: none of them is unknown or lost any more.
type undoneError struct {
	said string
	kind error
}

func (e *undoneError) Error() string { return e.said }

func (e *undoneError) Unwrap() error { return e.kind }

// tell makes some of the load balancers do something, going by what became of
// the last change on each of them. One that failed is connected to again.
func (f *front) tell(ctx context.Context, errs []error, whom func(error) bool, text string, to change) error {
	ctx, cancel := orphan(ctx, cmp.Or(f.run.d.switching, tellLimit))
	defer cancel()
	return errors.Join(each(indices(f.proxies), func(i int) error {
		p, err := f.proxies[i], errs[i]
		if !whom(err) {
			return nil
		}
		f.run.balancerSays(p, StatusWarning, text, err)
		if err != nil {
			if _, err := p.renew(ctx, f.run.reconnect); err != nil {
				return err
			}
		}
		gctx, done := p.guard(ctx)
		defer done()
		return p.proxy.Switch(gctx, p.conn, p.layout, to.route, to.holds)
	})...)
}

// renew connects to a load balancer by connect, the connected or reconnect of a
// run. Several servers may ask for that at the same time.
func (p *proxyAt) renew(ctx context.Context, connect func(context.Context, *host) error) (Connection, error) {
	p.again.Lock()
	defer p.again.Unlock()
	err := connect(ctx, p.host)
	return p.conn, err
}

// reach makes sure that there is a connection to a load balancer, within a
// time in which one that is there would have answered. That to a server is made
// elsewhere.
func (f *front) reach(ctx context.Context, p *proxyAt) (Connection, error) {
	if !f.shared {
		return p.conn, nil
	}
	ctx, cancel := proxy.Patience(ctx, confirmLimit)
	defer cancel()
	return p.renew(ctx, f.run.connected)
}

// ready makes sure that every load balancer answers and serves what is
// believed, right before something is changed: one that does not would make
// of it half a change.
func (f *front) ready(ctx context.Context) error {
	if f == nil || !f.shared {
		return nil
	}
	return errors.Join(each(f.proxies, func(p *proxyAt) error {
		_, err := f.reach(ctx, p)
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
	ctx, cancel := proxy.Patience(ctx, confirmLimit)
	defer cancel()
	gctx, done := p.guard(ctx)
	defer done()
	o, err := p.proxy.Observe(gctx, p.conn, p.layout)
	if err != nil {
		return proxy.CutShort(gctx, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, member := range slices.Sorted(maps.Keys(f.route)) {
		switch s := sightOf(o, member); {
		case s.Live == silent && o.Problem != "":
			return errors.New(o.Problem)
		case s.Disk != f.route[member] || s.Live != f.route[member]:
			return fmt.Errorf("it serves %s of %s, not %s as the others: %s", s.Live, member, f.route[member],
				cmp.Or(o.Problem, "somebody else has changed it"))
		}
	}
	return nil
}

// sight reads what the front's proxies do with a member's requests.
func (f *front) sight(ctx context.Context, member string) (Sight, error) {
	sights := make([]Sight, len(f.proxies))
	errs := each(indices(f.proxies), func(i int) error {
		p := f.proxies[i]
		conn, err := f.reach(ctx, p)
		if err != nil {
			return &balancerError{p.inv.Name, false, err}
		}
		o, err := p.proxy.Observe(ctx, conn, p.layout)
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
