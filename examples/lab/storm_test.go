//go:build linux

package lab_test

import (
	"encoding/json"
	"net/netip"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/haproxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/nginx"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/plugins"
)

// stormy is a flip each 100 ms, which no whole run of teal can do: the proxies
// alone are asked, as teal does it.
const stormy = 100 * time.Millisecond

// storm switches all load balancers at once, again and again, between two
// releases whose containers live, and returns the slowest switch in
// milliseconds. After an even number of times all is as it was.
func (f *fleet) storm(s *stress, times int, from, to string) (slowest float64) {
	f.t.Helper()
	switches := f.switches()
	tick := time.NewTicker(stormy)
	defer tick.Stop()
	for i := range times {
		<-tick.C
		from, to = to, from
		one := load.Switch{Release: from, Began: time.Now()}
		errs := make([]error, len(switches))
		var all sync.WaitGroup
		for b, flip := range switches {
			all.Go(func() { errs[b] = flip() })
		}
		all.Wait()
		one.Confirmed = time.Now()
		for b, err := range errs {
			if err != nil {
				f.t.Fatalf("flip %d of %s: %v", i+1, f.Balancers()[b], err)
			}
		}
		s.rec.Switched(one)
		slowest = max(slowest, float64(one.Confirmed.Sub(one.Began).Microseconds())/1000)
	}
	return slowest
}

// switches returns for each load balancer what switches every member there to
// its other slot.
func (f *fleet) switches() (all []func() error) {
	f.t.Helper()
	inv, err := inventory.Load(f.Inventory())
	if err != nil {
		f.t.Fatal(err)
	}
	dialer := &remote.Dialer{Config: "none"}
	f.t.Cleanup(func() { _ = dialer.Close() })
	for _, h := range inv.Hosts() {
		if !slices.Contains(f.Balancers(), f.Lookup(h.Name)) {
			continue
		}
		conn, err := dialer.Dial(f.t.Context(), h)
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { _ = conn.Close() })
		all = append(all, f.switchOf(conn))
	}
	return all
}

// switchOf returns what switches one load balancer.
func (f *fleet) switchOf(lb plugins.Host) func() error {
	f.t.Helper()
	ctx := f.t.Context()
	dir := record.Store{}.Dir("shop@lb") // the load balancers of the group lb
	text, err := f.Lookup(lb.String()).Exec(ctx, "cat", path.Join(dir, "state.json"))
	if err != nil {
		f.t.Fatal(err)
	}
	var state record.State
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		f.t.Fatal(err)
	}
	var p proxy.Proxy = new(nginx.Proxy)
	if f.proxy == lab.HAProxy {
		p = new(haproxy.Proxy)
	}
	layout := proxy.Layout{
		App: "shop", Upstream: "shop", Dir: dir, Protocol: proxy.HTTP, Members: state.Members,
		Site: &proxy.Site{Listen: []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), 80)}},
	}
	seen, err := p.Observe(ctx, lb, layout)
	if err != nil || len(seen.Live) != len(f.Hosts()) {
		f.t.Fatalf("%s routes %v, %v; want a share of each of %d hosts", lb, seen.Live, err, len(f.Hosts()))
	}
	route := seen.Live
	return func() error {
		for member, share := range route {
			slot, _ := share.Slot()
			route[member] = slot.Other().All()
		}
		return p.Switch(ctx, lb, layout, route, seen.Holds)
	}
}
