package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

// A BalancerView is what was observed of one load balancer.
type BalancerView struct {
	Host     inventory.Host
	Record   record.Observation
	Proxy    proxy.Observation
	Warnings []string
}

// A BalancerPlan is what a deployment does to the configuration of one load
// balancer.
type BalancerPlan struct {
	Host    inventory.Host
	Members []proxy.Member // that it shall have
	Reasons []string       // why its configuration changes; empty: it does not
	view    BalancerView
}

// remembersAs is the name under which a host's record of an app stands. A
// server that is a load balancer of the app as well has two, each with its
// own lock and folder.
func (h *host) remembersAs() string {
	if h.balances {
		return h.app.Name + "@lb"
	}
	return h.app.Name
}

// balancerSays emits an event of a load balancer.
func (r *run) balancerSays(p *proxyAt, status Status, text string, err error) {
	r.emit(Event{Host: p.inv.Name, Step: StepSwitch, Status: status, Text: text, Err: err})
}

// balancerParts gives every load balancer the app and its proxy.
func (r *run) balancerParts() error {
	app := r.app()
	if app.Proxy == nil || app.Proxy.Hosts == "" {
		r.balancers = nil
		return nil
	}
	if len(r.balancers) == 0 {
		return &UsageError{r.req.File.Problem("proxy.hosts", "the inventory has no load balancer of this pattern", "")}
	}
	p, err := r.d.Proxy(app.Proxy.Type)
	if err != nil {
		return &UsageError{err}
	}
	r.shared = &front{run: r, shared: true, route: proxy.Route{}, holds: proxy.Releases{}}
	for _, h := range r.balancers {
		h.app, h.proxy, h.balances = app, p, true
		r.shared.proxies = append(r.shared.proxies, &proxyAt{host: h})
	}
	return nil
}

// connectBalancers reaches every load balancer by connect. One that is missing
// is an error: a switch that not all confirm is none.
func (r *run) connectBalancers(ctx context.Context, connect func(context.Context, *host) error) []error {
	return each(r.balancers, func(h *host) error {
		err := connect(ctx, h)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		r.emit(Event{Host: h.inv.Name, Step: StepConnect, Status: StatusFailed, Err: err})
		return &balancerError{h.inv.Name, h.conn == nil, err}
	})
}

// observeBalancers looks at every load balancer.
func (r *run) observeBalancers(ctx context.Context) ([]BalancerView, error) {
	views := make([]BalancerView, len(r.balancers))
	errs := each(indices(r.balancers), func(i int) (err error) {
		h := r.balancers[i]
		views[i], err = r.d.observeBalancer(ctx, h)
		if err != nil {
			return &balancerError{h.inv.Name, errors.Is(err, plugins.Lost), err}
		}
		return nil
	})
	return views, errors.Join(errs...)
}

func (d *Deployer) observeBalancer(ctx context.Context, h *host) (v BalancerView, err error) {
	v.Host = h.inv
	if v.Record, err = d.Store.Observe(ctx, h.conn, h.remembersAs()); err != nil {
		return v, err
	}
	if s := v.Record.State; s != nil && len(s.Members) > 0 {
		v.Proxy, err = h.proxy.Observe(ctx, h.conn, d.balancerLayout(h, s.Members))
	}
	return v, err
}

// balancerLayout is what the configuration of a load balancer shall hold.
func (d *Deployer) balancerLayout(h *host, members []proxy.Member) proxy.Layout {
	l := layout(h.app, d.Store.Dir(h.remembersAs()))
	l.Members = members
	return l
}

// sightOfAll is what all load balancers do with a member's requests.
func sightOfAll(views []BalancerView, member string) Sight {
	sights := make([]Sight, len(views))
	for i, v := range views {
		sights[i] = sightOf(v.Proxy, member)
		if sights[i].Problem != "" {
			sights[i].Problem = v.Host.Name + ": " + sights[i].Problem
		}
	}
	return merge(sights)
}

// planBalancers decides what the load balancers shall have in their
// configuration. It is pure.
func (p *Plan) planBalancers(state State) error {
	for _, v := range state.Balancers {
		b := BalancerPlan{Host: v.Host, view: v}
		var had []proxy.Member
		if v.Record.State != nil {
			had = v.Record.State.Members
		}
		for _, name := range p.memberNames(state) {
			m, ok := p.memberOf(name, had, state)
			if !ok {
				continue
			}
			if !m.Stable.IsValid() {
				port, err := choosePort(p.app()+" "+name, v.Record.Facts, b.Members)
				if err != nil {
					return &balancerError{v.Host.Name, false, err}
				}
				m.Stable = loopback(port)
			}
			b.Members = append(b.Members, m)
		}
		b.Reasons = reasonsOf(had, b.Members, v.Proxy)
		p.Balancers = append(p.Balancers, b)
	}
	return nil
}

// app is the app's name.
func (p *Plan) app() string { return p.Hosts[0].view.App.Name }

// memberNames are the members that the load balancers shall have, in a stable
// order: those that they have and that are still servers of the app, and the
// hosts of the plan.
func (p *Plan) memberNames(state State) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) && (len(state.Servers) == 0 || slices.Contains(state.Servers, name)) {
			names = append(names, name)
		}
	}
	for _, v := range state.Balancers {
		if s := v.Record.State; s != nil {
			for _, m := range s.Members {
				add(m.Name)
			}
		}
	}
	for i := range p.Hosts {
		if p.Hosts[i].Err == nil {
			add(p.Hosts[i].Host.Name)
		}
	}
	slices.Sort(names)
	return names
}

// memberOf is a member as a load balancer that had some shall have it: as the
// plan has it, else as it was, else as another load balancer has it.
func (p *Plan) memberOf(name string, had []proxy.Member, state State) (proxy.Member, bool) {
	is := func(m proxy.Member) bool { return m.Name == name }
	var m proxy.Member
	known := slices.IndexFunc(had, is)
	if known >= 0 {
		m = had[known]
	} else {
		for _, v := range state.Balancers {
			if s := v.Record.State; s != nil {
				if i := slices.IndexFunc(s.Members, is); i >= 0 {
					m = s.Members[i]
					m.Stable = netip.AddrPort{}
					break
				}
			}
		}
	}
	i := slices.IndexFunc(p.Hosts, func(h HostPlan) bool { return h.Host.Name == name && h.Err == nil })
	if i < 0 || p.Hosts[i].From == nil && !p.Hosts[i].Deploys() {
		return m, m.Name != ""
	}
	h := &p.Hosts[i]
	var to *record.Release
	if h.Deploys() {
		to = &h.To
	}
	now := member(name, h.Bind, h.Ports, h.From, to)
	now.Stable = m.Stable
	// What serves stays where it is, whatever has changed since.
	if h.From != nil && m.Name != "" && to == nil {
		return m, true
	}
	if h.From != nil && m.Name != "" {
		if h.From.Slot == proxy.Blue {
			now.Blue = m.Blue
		} else {
			now.Green = m.Green
		}
	}
	return now, true
}

// reasonsOf says why a load balancer's configuration is to change.
func reasonsOf(had, members []proxy.Member, o proxy.Observation) []string {
	if !o.Prepared {
		return []string{"nothing of the app stands in its configuration"}
	}
	var why []string
	for _, m := range members {
		i := slices.IndexFunc(had, func(h proxy.Member) bool { return h.Name == m.Name })
		switch {
		case i < 0:
			why = append(why, m.Name+" is new")
		case !slices.Equal(had[i].Blue, m.Blue) || !slices.Equal(had[i].Green, m.Green):
			why = append(why, "the slots of "+m.Name+" change")
		}
	}
	for _, h := range had {
		if !slices.ContainsFunc(members, func(m proxy.Member) bool { return m.Name == h.Name }) {
			why = append(why, h.Name+" is no server of the app any more")
		}
	}
	if o.Outdated && len(why) == 0 {
		why = append(why, "the settings of the app have changed")
	}
	return why
}

// arrange puts the proxies before the hosts of the plan.
func (r *run) arrange() {
	for i, h := range r.hosts {
		p := &r.plan.Hosts[i]
		switch {
		case p.Err != nil:
		case r.shared != nil:
			h.front = r.shared
		case h.proxy != nil:
			var to *record.Release
			if p.Deploys() {
				to = &p.To
			}
			h.front = &front{run: r, proxies: []*proxyAt{{host: &h.host, layout: r.d.ownLayout(&h.host, p.Ports, p.From, to)}}}
		}
	}
	if r.shared == nil {
		return
	}
	for i, b := range r.plan.Balancers {
		p := r.shared.proxies[i]
		p.layout = r.d.balancerLayout(p.host, b.Members)
		p.remembers = record.State{Schema: 1, App: p.app.Name}
		if s := b.view.Record.State; s != nil {
			p.remembers = *s
		}
	}
	r.shared.route, r.shared.holds = r.plan.routes()
}

// routes is what the load balancers are to do with the members before this
// run changes anything: what they do, or what the hosts remember where no load
// balancer knows a member; and which releases their slots hold.
func (p *Plan) routes() (proxy.Route, proxy.Releases) {
	route, holds := proxy.Route{}, proxy.Releases{}
	var views []BalancerView
	for _, b := range p.Balancers {
		views = append(views, b.view)
	}
	for _, b := range p.Balancers {
		for _, m := range b.Members {
			s := sightOfAll(views, m.Name)
			if s.Prepared && !s.Mixed {
				route[m.Name] = s.Disk
			}
			if len(s.Holds) > 0 {
				holds[m.Name] = s.Holds
			}
		}
	}
	for i := range p.Hosts {
		h := &p.Hosts[i]
		if h.Err != nil || h.From == nil {
			continue
		}
		if _, known := route[h.Host.Name]; !known {
			route[h.Host.Name] = h.From.Slot.All()
		}
		if holds.Of(h.Host.Name, h.From.Slot) == "" {
			holds[h.Host.Name] = map[proxy.Slot]string{h.From.Slot: h.From.ID}
		}
	}
	return route, holds
}

// prepareProxy writes both slots into the configuration of a host's own proxy.
// Only the first deployment of an app finds something to do, and one that
// changes the number of replicas.
func (r *run) prepareProxy(ctx context.Context, h *hostRun) error {
	if h.front == nil || h.front.shared {
		return nil
	}
	changed, err := h.proxy.Prepare(ctx, h.conn, h.front.proxies[0].layout)
	if err != nil {
		return err
	}
	if changed {
		r.say(h, StepSwitch, StatusInfo, "configuration of %s written, reloaded and verified", h.app.Proxy.Type)
	}
	return nil
}

// prepareBalancers writes the slots of all members into the configuration of
// every load balancer that does not have them, and has it do what the others
// do.
func (r *run) prepareBalancers(ctx context.Context) error {
	if r.shared == nil {
		return nil
	}
	return errors.Join(each(r.shared.proxies, func(p *proxyAt) error {
		if _, err := r.shared.reach(ctx, p); err != nil {
			return &balancerError{p.inv.Name, true, err}
		}
		gctx, done := p.guard(ctx)
		defer done()
		err := r.prepareBalancer(gctx, p)
		if cause := context.Cause(gctx); errors.Is(cause, plugins.Lost) {
			err = cause
		}
		if err != nil {
			return &balancerError{p.inv.Name, errors.Is(err, plugins.Lost), err}
		}
		return nil
	})...)
}

func (r *run) prepareBalancer(ctx context.Context, p *proxyAt) error {
	before := p.remembers
	p.remembers.Members = p.layout.Members
	if !slices.EqualFunc(before.Members, p.remembers.Members, func(a, b proxy.Member) bool { return equalJSON(a, b) }) {
		if err := p.lock.Write(ctx, p.remembers); err != nil {
			return err
		}
	}
	changed, err := p.proxy.Prepare(ctx, p.conn, p.layout)
	if err != nil {
		p.remembers = before
		return errors.Join(err, p.lock.Write(ctx, before))
	}
	if changed {
		r.balancerSays(p, StatusInfo, fmt.Sprintf("configuration of %s written, reloaded and verified", p.app.Proxy.Type), nil)
	}
	o, err := p.proxy.Observe(ctx, p.conn, p.layout)
	if err != nil {
		return err
	}
	behind := proxy.Route{}
	for member, share := range r.shared.route {
		if disk, known := o.Disk[member]; known && (disk != share || r.shared.holds.Check(member, o.Holds[member]) != nil) {
			behind[member] = share
		}
	}
	if len(behind) == 0 {
		return nil
	}
	r.balancerSays(p, StatusInfo, "told what the others do: "+routeText(behind), nil)
	return p.proxy.Switch(ctx, p.conn, p.layout, behind, r.shared.holds)
}

// routeText is a route for people.
func routeText(route proxy.Route) string {
	text := ""
	for _, member := range slices.Sorted(maps.Keys(route)) {
		if text != "" {
			text += ", "
		}
		text += member + " " + route[member].String()
	}
	return text
}

// bindAddress is where a host's slots are published: on loopback for its own
// proxy, else where the load balancers reach it.
func bindAddress(v HostView) (netip.Addr, error) {
	p := v.App.Proxy
	if p == nil || p.Hosts == "" {
		return loopback(0).Addr(), nil
	}
	if p.Address != "" {
		return netip.ParseAddr(p.Address)
	}
	a := v.Record.Facts.Address
	if !a.IsValid() || a.IsLoopback() {
		return a, &plugins.Error{
			Op: "find the address for the load balancers", Host: v.Host.Name, Kind: plugins.Invalid,
			Err: fmt.Errorf("the host was reached at %s, where no load balancer reaches it: set proxy.address, "+
				"as in address = \"${private_address}\" with a variable of the inventory", cmp.Or(addressText(a), "an address that it does not tell")),
		}
	}
	return a, nil
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
