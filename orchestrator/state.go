package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// Labels that teal sets on every container that it creates. They are the
// truth about which containers are whose.
const (
	LabelApp     = "teal.app"
	LabelRelease = "teal.release"
	LabelSlot    = "teal.slot"
)

// A HostView is what was observed of one host.
type HostView struct {
	Host       inventory.Host
	App        spec.App // resolved for this host
	Err        error    // why the host could not be observed; everything below is zero then
	Record     record.Observation
	Containers []plugins.Container // of the app, oldest first
	Proxy      Sight               // zero for an app without a proxy, or not yet prepared
	Runtime    plugins.Info
	Warnings   []string // what would break the promise of no failed request
}

// A State is everything that was observed before a decision.
type State struct {
	Hosts     []HostView     // in the inventory's order
	Balancers []BalancerView // likewise; none where each host has its own proxy
	Servers   []string       // see Request
}

// A Sight is what the proxies that lead to a host were found to do with its
// requests.
type Sight struct {
	Prepared bool        // its slots stand in the configuration
	Outdated bool        // but not as they should
	Disk     proxy.Share // what a restart would serve; with Mixed: of one of them
	Live     proxy.Share // what is served now
	Mixed    bool        // load balancers that do not agree with each other
	Open     map[proxy.Slot]int
	Holds    map[proxy.Slot]string // the releases in its slots, as the proxies name them
	Problem  string                // why Live is not known, or what breaks the promise; for people
}

// sightOf is what one proxy does with a member's requests.
func sightOf(o proxy.Observation, member string) Sight {
	disk, known := o.Disk[member]
	if !known {
		return Sight{Problem: o.Problem}
	}
	live, answers := o.Live[member]
	if !answers {
		live = silent
	}
	return Sight{Prepared: o.Prepared, Outdated: o.Outdated, Disk: disk, Live: live, Problem: o.Problem, Open: o.Open[member], Holds: o.Holds[member]}
}

// silent stands for the share of a member for which a proxy does not answer.
const silent proxy.Share = -2

// serving returns the release that new requests reach on the host, going by
// what is on disk where a proxy decides, and nil when nothing serves.
func (v *HostView) serving() *record.Release {
	s := v.Record.State
	if s == nil {
		return nil
	}
	routed := v.App.Proxy == nil
	if s.Switching != nil && v.Proxy.Prepared && !v.Proxy.Mixed {
		routed = v.Proxy.Disk == s.Switching.Slot.All()
	}
	if s.Switching != nil && routed {
		return s.Switching // a run died right behind its switch
	}
	return s.Active
}

// running returns the containers of a release that run.
func (v *HostView) running(release string) []plugins.Container {
	var found []plugins.Container
	for _, c := range v.Containers {
		if c.Labels[LabelRelease] == release && c.Status == plugins.StatusRunning {
			found = append(found, c)
		}
	}
	return found
}

// pending returns the teardown of the containers in slot, or nil.
func (v *HostView) pending(slot proxy.Slot) *record.Pending {
	for i, p := range v.Record.Pending {
		if p.Slot == slot {
			return &v.Record.Pending[i]
		}
	}
	return nil
}

// host is a host that a command is connected to, with the parts that it
// needs there.
type host struct {
	inv     inventory.Host
	app     spec.App
	conn    Connection
	lock    *record.Lock // nil for commands that only look
	runtime plugins.Runtime
	proxy   proxy.Proxy // nil for an app without one, and for a server behind load balancers
	named   bool        // app is a name; the rest is what the host remembers

	balances  bool         // it is a load balancer here, no server
	remembers record.State // what the host has on disk
}

// observe looks at everything on the host once: one command, one list of
// containers, one question to its own proxy.
func (d *Deployer) observe(ctx context.Context, h *host) HostView {
	v := HostView{Host: h.inv, App: h.app}
	if v.Record, v.Err = d.Store.Observe(ctx, h.conn, h.app.Name); v.Err != nil {
		return v
	}
	if v.Err = d.recall(h, v.Record.State); v.Err != nil {
		return v
	}
	v.App = h.app
	if v.Runtime, v.Err = h.runtime.Probe(ctx, h.conn); v.Err != nil {
		return v
	}
	labels := map[string]string{LabelApp: h.app.Name}
	if v.Containers, v.Err = h.runtime.List(ctx, h.conn, labels); v.Err != nil {
		return v
	}
	if s := v.Record.State; h.proxy != nil && s != nil && s.Ports.Stable != 0 {
		var o proxy.Observation
		o, v.Err = h.proxy.Observe(ctx, h.conn, d.ownLayout(h, s.Ports, s.Active, nil))
		v.Proxy = merge([]Sight{sightOf(o, h.inv.Name)})
	}
	return v
}

// recall compares the app with how the host remembers it. One that is only
// named becomes what the host remembers.
func (d *Deployer) recall(h *host, s *record.State) (err error) {
	if s == nil {
		return nil
	}
	last := cmp.Or(s.Active, s.Switching)
	if last == nil {
		return nil
	}
	if last.App.Runtime != h.app.Runtime {
		// Neither runtime knows the other's containers: blue would stay for ever.
		hint := "keep it, or give the app another name"
		if h.named {
			hint = "say --runtime " + last.App.Runtime + ", or name the app file with -f"
		}
		return &plugins.Error{Op: "look for containers of " + h.app.Runtime, Host: h.inv.Name, Kind: plugins.Unsupported, Err: fmt.Errorf(
			"%s has those of the runtime %s here: %s", h.app.Name, last.App.Runtime, hint)}
	}
	if !h.named {
		return nil
	}
	h.app = last.App
	if h.app.Proxy != nil && h.app.Proxy.Hosts == "" {
		h.proxy, err = d.Proxy(h.app.Proxy.Type)
	}
	return err
}

// observe looks at every host that was reached, and at the load balancers.
func (r *run) observe(ctx context.Context) (State, error) {
	s := State{Hosts: make([]HostView, len(r.hosts)), Servers: r.req.Servers}
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { s.Balancers, err = r.observeBalancers(ctx) })
	each(indices(r.hosts), func(i int) error {
		h := r.hosts[i]
		if h.err != nil {
			s.Hosts[i] = HostView{Host: h.inv, App: h.app, Err: h.err}
			return nil
		}
		s.Hosts[i] = r.d.observe(ctx, &h.host)
		return nil
	})
	wg.Wait()
	if ctx.Err() != nil {
		return s, context.Cause(ctx)
	}
	if len(s.Balancers) > 0 {
		for i := range s.Hosts {
			s.Hosts[i].Proxy = sightOfAll(s.Balancers, s.Hosts[i].Host.Name)
		}
	}
	return s, err
}

// ownLayout is what the configuration of a host's own proxy shall hold: one
// member, whose slots are on loopback.
func (d *Deployer) ownLayout(h *host, ports record.Ports, serving, to *record.Release) proxy.Layout {
	l := layout(h.app, d.Store.Dir(h.app.Name))
	m := member(h.inv.Name, loopback(0).Addr(), ports, serving, to)
	m.Stable = loopback(ports.Stable)
	l.Members = []proxy.Member{m}
	return l
}

// layout is what an app's proxies have in common: all but the members.
func layout(app spec.App, dir string) proxy.Layout {
	l := proxy.Layout{App: app.Name, Dir: dir, Protocol: proxy.Protocol(app.Container.Protocol)}
	for _, c := range app.Test.Checks {
		if c.HTTP != "" && len(c.Status) == 0 && len(c.Headers) == 0 {
			l.Up = &proxy.Up{Path: c.HTTP, Host: c.Host}
			break
		}
	}
	l.Sticky.Address = app.Rollout.Sticky == "address"
	l.Sticky.Cookie, _ = strings.CutPrefix(app.Rollout.Sticky, "cookie:")
	if l.Sticky.Address {
		l.Sticky.Cookie = ""
	}
	if p := app.Proxy; p != nil {
		l.Upstream = p.Upstream
		if s := p.Site; s != nil {
			l.Site = &proxy.Site{Listen: s.Listen, Names: s.Names}
		}
	}
	return l
}

// member is a host as a proxy reaches it at an address. A slot has the
// replicas of the release that serves from it or is about to; one that is
// empty has as many as the other, so that the next release changes nothing.
func member(name string, at netip.Addr, ports record.Ports, serving, to *record.Release) proxy.Member {
	n := map[proxy.Slot]int{}
	most := 1
	for _, r := range []*record.Release{serving, to} {
		if r != nil {
			n[r.Slot] = r.App.Container.Replicas
			most = r.App.Container.Replicas
		}
	}
	addresses := func(s proxy.Slot) []netip.AddrPort {
		var list []netip.AddrPort
		for _, p := range ports.Of(s)[:min(cmp.Or(n[s], most), len(ports.Of(s)))] {
			list = append(list, netip.AddrPortFrom(at, p))
		}
		return list
	}
	return proxy.Member{Name: name, Blue: addresses(proxy.Blue), Green: addresses(proxy.Green)}
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// kept returns the release with that id or version among those the host
// remembers, the newest first.
func kept(s *record.State, name string) *record.Release {
	if s == nil {
		return nil
	}
	i := slices.IndexFunc(s.Kept, func(r record.Release) bool {
		return r.ID == name || r.Version == name || (len(name) >= 7 && r.Commit != "" && strings.HasPrefix(r.Commit, name))
	})
	if i < 0 {
		return nil
	}
	return &s.Kept[i]
}

// remember returns the state after a switch to next: what served before is
// kept for rollback, at most keep releases in all.
func remember(s record.State, next record.Release, keep int) record.State {
	var older []record.Release
	if s.Active != nil && s.Active.ID != next.ID {
		older = append(older, *s.Active)
	}
	for _, r := range s.Kept {
		if r.ID != next.ID && (s.Active == nil || r.ID != s.Active.ID) {
			older = append(older, r)
		}
	}
	if most := max(keep-1, 0); len(older) > most {
		older = older[:most]
	}
	s.Active, s.Switching, s.Kept = &next, nil, older
	return s
}

// leaves says when a pending teardown ends at the latest, and when it is due.
func leaves(p *record.Pending) (due, latest time.Time) {
	from := p.Switched
	if from.IsZero() {
		from = p.Armed
	}
	return from.Add(p.Delay), from.Add(p.Max)
}
