package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
	Proxy      proxy.Observation   // zero for an app without a proxy, or not yet prepared
	Runtime    plugins.Info
	Warnings   []string // what would break the promise of no failed request
}

// A State is everything that was observed before a decision.
type State struct {
	Hosts []HostView // in the inventory's order
}

// serving returns the release that new requests reach on the host, going by
// what is on disk where a proxy decides, and nil when nothing serves.
func (v *HostView) serving() *record.Release {
	s := v.Record.State
	if s == nil {
		return nil
	}
	if died := s.Switching; died != nil && (v.App.Proxy == nil || v.Proxy.Disk.Slot == died.Slot) {
		return died // a run died right behind its switch
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
	proxy   proxy.Proxy // nil for an app without one
	named   bool        // app is a name; the rest is what the host remembers
}

// observe looks at everything on the host once: one command, one list of
// containers, one question to the proxy.
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
	if h.proxy != nil && v.Record.State != nil {
		v.Proxy, v.Err = h.proxy.Observe(ctx, h.conn, d.layout(h.app, h.inv.Name, v.Record.State.Ports))
	}
	return v
}

// recall takes over, for an app that is only named, how the host remembers it.
func (d *Deployer) recall(h *host, s *record.State) (err error) {
	if !h.named || s == nil {
		return nil
	}
	last := cmp.Or(s.Active, s.Switching)
	if last == nil {
		return nil
	}
	if last.App.Runtime != h.app.Runtime {
		return &plugins.Error{Op: "recall " + h.app.Name, Host: h.inv.Name, Kind: plugins.Unsupported, Err: fmt.Errorf(
			"its containers are those of the runtime %s, and only an app file can describe that", last.App.Runtime)}
	}
	h.app = last.App
	if h.app.Proxy != nil {
		h.proxy, err = d.Proxy(h.app.Proxy.Type)
	}
	return err
}

// observe looks at every host that was reached.
func (r *run) observe(ctx context.Context) ([]HostView, error) {
	views := make([]HostView, len(r.hosts))
	each(indices(r.hosts), func(i int) error {
		h := r.hosts[i]
		if h.err != nil {
			views[i] = HostView{Host: h.inv, App: h.app, Err: h.err}
			return nil
		}
		views[i] = r.d.observe(ctx, &h.host)
		return nil
	})
	return views, context.Cause(ctx)
}

// layout is what the proxy's configuration shall hold for an app on a host
// whose own proxy leads to slots on loopback.
func (d *Deployer) layout(app spec.App, name string, ports record.Ports) proxy.Layout {
	l := proxy.Layout{
		App:    app.Name,
		Dir:    d.Store.Dir(app.Name),
		Stable: loopback(ports.Stable),
		Members: []proxy.Member{{
			Name:  name,
			Blue:  []netip.AddrPort{loopback(ports.Blue)},
			Green: []netip.AddrPort{loopback(ports.Green)},
		}},
	}
	if app.Proxy != nil {
		l.Upstream = app.Proxy.Upstream
		if s := app.Proxy.Site; s != nil {
			l.Site = &proxy.Site{Listen: s.Listen, Names: s.Names}
		}
	}
	return l
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
