package orchestrator

import (
	"cmp"
	"context"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
)

// A FleetStatus is who serves what everywhere.
type FleetStatus struct {
	Hosts     []HostStatus
	Balancers []BalancerStatus // none where each host has its own proxy
}

// A HostStatus is who serves what on a host: as recorded, as it stands on
// disk, and as the proxy answers now.
type HostStatus struct {
	Host     string
	Err      error           // why nothing else is known
	Recorded *record.Release // nil: the app was never deployed here
	Disk     string          // the slot, or how the requests are divided; "" without a proxy
	Live     string
	Release  string             // in the live slot, by its ID, as the proxy itself names it; "" when it names none
	Open     map[proxy.Slot]int // requests and tunnels that the proxy has open to each slot; nil: it cannot tell
	Problem  string             // what does not agree, or does not work; "": all is well
	Running  int                // containers of Recorded that run
	Kept     []record.Release
	Pending  string        // what is still to be removed and when; "": nothing
	Holder   *record.Owner // who deploys at this moment; nil: nobody
}

// A BalancerStatus is what a load balancer does with the app's servers.
type BalancerStatus struct {
	Host    string
	Err     error // why nothing else is known
	Members []MemberStatus
	Problem string
	Holder  *record.Owner
}

// A MemberStatus is what a load balancer does with one server.
type MemberStatus struct {
	Name string
	Disk string // the slot, or how the requests are divided
	Live string
	Open map[proxy.Slot]int

	Release string // in the live slot, by its ID, as the load balancer itself names it; "" when it names none
	Version string // of Release, as the server remembers it; "" when it does not
}

// Status looks at every host and changes nothing but what is overdue: a
// teardown that a reboot interrupted goes on.
func (d *Deployer) Status(ctx context.Context, req Request) (FleetStatus, error) {
	r := d.newRun("status", req)
	if err := r.lookOnly(ctx); err != nil {
		return FleetStatus{}, err
	}
	defer r.close(ctx)
	s := FleetStatus{Hosts: make([]HostStatus, len(r.hosts)), Balancers: make([]BalancerStatus, len(r.balancers))}
	views := make([]BalancerView, len(r.balancers))
	each(indices(r.balancers), func(i int) error {
		s.Balancers[i], views[i] = r.balancerStatus(ctx, r.balancers[i])
		return nil
	})
	each(indices(r.hosts), func(i int) error {
		s.Hosts[i] = r.statusOf(ctx, r.hosts[i], views)
		return nil
	})
	s.nameVersions()
	return s, context.Cause(ctx)
}

// nameVersions says of what the load balancers serve which versions that are.
func (s *FleetStatus) nameVersions() {
	versions := map[string]string{}
	for _, h := range s.Hosts {
		for _, r := range h.Kept {
			versions[r.ID] = r.Version
		}
		if h.Recorded != nil {
			versions[h.Recorded.ID] = h.Recorded.Version
		}
	}
	for _, b := range s.Balancers {
		for i := range b.Members {
			b.Members[i].Version = versions[b.Members[i].Release]
		}
	}
}

func (r *run) balancerStatus(ctx context.Context, h *host) (BalancerStatus, BalancerView) {
	s := BalancerStatus{Host: h.inv.Name}
	var v BalancerView
	if s.Err = r.dial(ctx, h); s.Err == nil {
		v, s.Err = r.d.observeBalancer(ctx, h)
	}
	if s.Err != nil {
		return s, BalancerView{Host: h.inv}
	}
	s.Problem, s.Holder = v.Proxy.Problem, v.Record.Holder
	if state := v.Record.State; state != nil {
		for _, m := range state.Members {
			sight := sightOf(v.Proxy, m.Name)
			disk, live := sight.text()
			s.Members = append(s.Members, MemberStatus{Name: m.Name, Disk: disk, Live: live, Open: sight.Open, Release: sight.release()})
			if s.Problem == "" && disk != live {
				s.Problem = "it is told " + disk + " for " + m.Name + " and serves " + cmp.Or(live, "nothing that it tells")
			}
		}
	}
	return s, v
}

// text is a sight in words; "" where nothing is known.
func (s Sight) text() (disk, live string) {
	if !s.Prepared {
		return "", ""
	}
	disk = s.Disk.String()
	if s.Live != silent {
		live = s.Live.String()
	}
	return disk, live
}

// release is what the proxies name in the slot that they serve.
func (s Sight) release() string {
	slot, whole := s.Live.Slot()
	if !whole {
		return ""
	}
	return s.Holds[slot]
}

// lookOnly prepares a command that needs no secret and no lock.
func (r *run) lookOnly(ctx context.Context) error {
	if len(r.hosts) == 0 {
		return &UsageError{ErrNoHosts}
	}
	for _, h := range r.hosts {
		app, err := r.appFor(h, "")
		if err != nil {
			return &UsageError{err}
		}
		h.app = app
	}
	return r.parts(ctx)
}

func (r *run) statusOf(ctx context.Context, h *hostRun, balancers []BalancerView) HostStatus {
	s := HostStatus{Host: h.inv.Name}
	if s.Err = r.dial(ctx, &h.host); s.Err != nil {
		return s
	}
	v := r.d.observe(ctx, &h.host)
	if len(balancers) > 0 {
		v.Proxy = sightOfAll(balancers, h.inv.Name)
	}
	if s.Err = v.Err; s.Err != nil {
		return s
	}
	if s.Err = r.d.Store.Reap(ctx, h.conn, h.app.Name); s.Err != nil {
		return s
	}
	s.Holder, s.Pending = v.Record.Holder, pendingText(v.Record.Pending)
	s.Disk, s.Live = v.Proxy.text()
	s.Open, s.Problem, s.Release = v.Proxy.Open, v.Proxy.Problem, v.Proxy.release()
	state := v.Record.State
	if state == nil {
		return s
	}
	s.Recorded, s.Kept = state.Active, state.Kept
	if state.Active != nil {
		s.Running = len(v.running(state.Active.ID))
	}
	if s.Problem == "" {
		s.Problem = disagreement(v, s)
	}
	return s
}

// disagreement says what of recorded, disk, live and containers differs.
func disagreement(v HostView, s HostStatus) string {
	active := v.Record.State.Active
	switch {
	case v.Record.State.Switching != nil && s.Holder == nil:
		return "a run died while it switched; the next deployment puts that right"
	case active == nil:
		return ""
	case v.Proxy.Mixed && s.Holder == nil:
		return "a run left a switch half done; the next deployment puts that right"
	case v.Proxy.Prepared && !v.Proxy.Mixed && v.Proxy.Disk != active.Slot.All():
		return "the record says " + string(active.Slot) + ", the proxy is told " + s.Disk
	case v.Proxy.Prepared && s.Live != s.Disk:
		return "the proxy is told " + s.Disk + " and serves " + cmp.Or(s.Live, "nothing that it tells")
	case s.Release != "" && s.Release != active.ID:
		return "the record says release " + active.ID + ", the proxy serves " + s.Release
	case s.Running < active.App.Container.Replicas:
		return count(s.Running, "container") + " of " + count(active.App.Container.Replicas, "container") + " run"
	}
	return ""
}

// A HostHistory is what a host remembers of earlier runs, the newest first.
type HostHistory struct {
	Host    string
	Err     error
	Entries []record.Entry
}

// History reads every host's history, at most n entries each.
func (d *Deployer) History(ctx context.Context, req Request, n int) ([]HostHistory, error) {
	r := d.newRun("history", req)
	if len(r.hosts) == 0 {
		return nil, &UsageError{ErrNoHosts}
	}
	defer r.close(ctx)
	app := req.File.App().Name
	list := make([]HostHistory, len(r.hosts))
	each(indices(r.hosts), func(i int) error {
		h, l := r.hosts[i], &list[i]
		l.Host = h.inv.Name
		if l.Err = r.dial(ctx, &h.host); l.Err != nil {
			return nil
		}
		l.Entries, l.Err = d.Store.History(ctx, h.conn, app, n)
		return nil
	})
	return list, context.Cause(ctx)
}
