package orchestrator

import (
	"context"
	"errors"
	"time"

	"github.com/teal-deploy/teal/orchestrator/record"
)

// A ProxySetup is what stands, or is to stand, in the configuration of one
// proxy for an app.
type ProxySetup struct {
	Host     string   // where the proxy runs
	Err      error    // what keeps teal from putting its part there, with the remedy
	Warnings []string // what would break the promise of no failed request
	Missing  bool     // teal's part is not there, or not as it should be
	Changed  bool     // it was written, reloaded and verified
	Usage    string   // the lines that the user's own configuration needs; "": none
}

// Setup looks whether the proxies of an app can be switched, and with apply
// puts teal's part into their configuration, so that the user's own can refer
// to it before the first deployment. Until then requests are answered with
// 503. Where everything stands it changes nothing.
func (d *Deployer) Setup(ctx context.Context, req Request, apply bool) ([]ProxySetup, error) {
	r := d.newRun("setup", req)
	if err := r.lookOnly(ctx); err != nil {
		return nil, err
	}
	if r.app().Proxy == nil {
		return nil, &UsageError{errors.New("the app has no proxy: there is nothing to set up")}
	}
	defer r.close(ctx)
	connect := r.dial
	if apply {
		connect = r.take
	}
	failed := r.reach(ctx, connect)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if failed != nil {
		return nil, failed
	}
	if err := r.decideSetup(ctx); err != nil {
		return nil, err
	}
	var all []ProxySetup
	for i, h := range r.hosts {
		if p := r.plan.Hosts[i]; p.Err != nil || r.shared == nil {
			all = append(all, ProxySetup{Host: h.inv.Name, Err: p.Err})
		}
	}
	for _, b := range r.balancers {
		all = append(all, ProxySetup{Host: b.inv.Name})
	}
	each(indices(all), func(i int) error {
		s := &all[i]
		if p := r.proxyOn(s.Host); p != nil && s.Err == nil {
			s.Err = r.setUp(ctx, p, apply, s)
		}
		return nil
	})
	return all, context.Cause(ctx)
}

// reach connects to all hosts: what is to stand on each depends on the others.
func (r *run) reach(ctx context.Context, connect func(context.Context, *host) error) error {
	errs := each(r.hosts, func(h *hostRun) error {
		err := connect(ctx, &h.host)
		if err != nil && h.conn == nil {
			return &unreachedError{err}
		}
		return err
	})
	return errors.Join(append(errs, r.connectBalancers(ctx, connect)...)...)
}

// decideSetup plans the slots of every host, as if a release was about to
// come.
func (r *run) decideSetup(ctx context.Context) error {
	state, err := r.observe(ctx)
	if err != nil {
		return err
	}
	r.plan = &Plan{}
	for _, v := range state.Hosts {
		r.plan.Hosts = append(r.plan.Hosts, planHost(v, wants{release: record.Release{App: v.App, At: time.Now()}}))
	}
	if err := r.plan.planBalancers(state); err != nil {
		return err
	}
	for i, h := range r.hosts {
		p := &r.plan.Hosts[i]
		h.plan, h.remembers = p, record.State{Schema: 1, App: h.app.Name}
		if s := p.view.Record.State; s != nil {
			h.remembers = *s
		}
		h.remembers.Ports = p.Ports
	}
	r.arrange()
	return nil
}

// proxyOn is the proxy of the run that is on the host with that name.
func (r *run) proxyOn(name string) *proxyAt {
	fronts := []*front{r.shared}
	if r.shared == nil {
		fronts = nil
		for _, h := range r.hosts {
			if h.front != nil {
				fronts = append(fronts, h.front)
			}
		}
	}
	for _, f := range fronts {
		for _, p := range f.proxies {
			if p.inv.Name == name {
				return p
			}
		}
	}
	return nil
}

// setUp checks one proxy, and with apply prepares it.
func (r *run) setUp(ctx context.Context, p *proxyAt, apply bool, s *ProxySetup) error {
	gctx, done := p.guard(ctx)
	defer done()
	s.Usage = p.proxy.Usage(p.layout)
	o, err := p.proxy.Observe(gctx, p.conn, p.layout)
	if err != nil {
		return err
	}
	s.Missing = !o.Prepared || o.Outdated
	if s.Warnings, err = p.proxy.Check(gctx, p.conn, p.layout); err != nil || !apply {
		return err
	}
	s.Changed = s.Missing
	if p.balances {
		err = r.prepareBalancer(gctx, p)
	} else {
		err = r.prepareOwn(gctx, p)
	}
	s.Missing, s.Changed = s.Missing && err != nil, s.Changed && err == nil
	return err
}

// prepareOwn prepares a host's own proxy, whose ports the host remembers.
func (r *run) prepareOwn(ctx context.Context, p *proxyAt) error {
	if err := p.lock.Write(ctx, p.remembers); err != nil {
		return err
	}
	_, err := p.proxy.Prepare(ctx, p.conn, p.layout)
	return err
}
