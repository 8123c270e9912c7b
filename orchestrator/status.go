package orchestrator

import (
	"context"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
)

// A HostStatus is who serves what on a host: as recorded, as it stands on
// disk, and as the proxy answers now.
type HostStatus struct {
	Host     string
	Err      error           // why nothing else is known
	Recorded *record.Release // nil: the app was never deployed here
	Disk     proxy.Slot      // "" without a proxy
	Live     proxy.Slot
	Problem  string // what does not agree, or does not work; "": all is well
	Running  int    // containers of Recorded that run
	Kept     []record.Release
	Pending  string        // what is still to be removed and when; "": nothing
	Holder   *record.Owner // who deploys at this moment; nil: nobody
}

// Status looks at every host and changes nothing but what is overdue: a
// teardown that a reboot interrupted goes on.
func (d *Deployer) Status(ctx context.Context, req Request) ([]HostStatus, error) {
	r := d.newRun("status", req)
	if err := r.lookOnly(ctx); err != nil {
		return nil, err
	}
	defer r.close(ctx)
	list := make([]HostStatus, len(r.hosts))
	each(indices(r.hosts), func(i int) error {
		list[i] = r.statusOf(ctx, r.hosts[i])
		return nil
	})
	return list, context.Cause(ctx)
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

func (r *run) statusOf(ctx context.Context, h *hostRun) HostStatus {
	s := HostStatus{Host: h.inv.Name}
	if h.conn, s.Err = r.d.Dial(ctx, h.inv); s.Err != nil {
		h.conn = nil
		return s
	}
	v := r.d.observe(ctx, &h.host)
	if s.Err = v.Err; s.Err != nil {
		return s
	}
	if s.Err = r.d.Store.Reap(ctx, h.conn, h.app.Name); s.Err != nil {
		return s
	}
	s.Holder, s.Pending = v.Record.Holder, pendingText(v.Record.Pending)
	s.Disk, s.Live, s.Problem = v.Proxy.Disk.Slot, v.Proxy.Live.Slot, v.Proxy.Problem
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
	case v.Proxy.Prepared && s.Disk != active.Slot:
		return "the record says " + string(active.Slot) + ", the proxy is told " + string(s.Disk)
	case v.Proxy.Prepared && s.Live != s.Disk:
		return "the proxy is told " + string(s.Disk) + " and serves " + string(s.Live)
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
		if h.conn, l.Err = d.Dial(ctx, h.inv); l.Err != nil {
			h.conn = nil
			return nil
		}
		l.Entries, l.Err = d.Store.History(ctx, h.conn, app, n)
		return nil
	})
	return list, context.Cause(ctx)
}
