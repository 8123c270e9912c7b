package nginx

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
)

// flip switches under the eyes of the load.
func flip(t *testing.T, load *proxytest.Load, d *daemon, l proxy.Layout, slot proxy.Slot) {
	t.Helper()
	load.Switch(slot, func() { switchTo(t.Context(), t, d, l, slot) })
}

func TestFiftySwitchesUnderLoadFailNoRequest(t *testing.T) {
	t.Parallel()
	d, a, url := prepared(t)
	workers := d.workers()
	l := proxytest.StartLoad(url)
	slot := proxy.Green
	for range 50 {
		flip(t, l, d, a, slot)
		slot = slot.Other()
		time.Sleep(80 * time.Millisecond)
	}
	l.End(t, 100)
	if got := d.workers(); got != workers {
		t.Errorf("workers %s became %s: something reloaded", workers, got)
	}
}

func TestRollbackStormFailsNoRequest(t *testing.T) {
	t.Parallel()
	d, a, url := prepared(t)
	l := proxytest.StartLoad(url)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	slot := proxy.Green
	for range 40 {
		<-tick.C
		flip(t, l, d, a, slot)
		slot = slot.Other()
	}
	l.End(t, 100)
}

func TestAnnouncedReloadFailsNoRequest(t *testing.T) {
	t.Parallel()
	d := start(t)
	a := fleet(t, "shop", 2)
	site := proxytest.Loopback(proxytest.Port(t))
	a.Site = &proxy.Site{Listen: []netip.AddrPort{site}, Names: []string{"shop"}}
	prepare(t, d, a, true)
	switchTo(t.Context(), t, d, a, proxy.Blue)
	l := proxytest.StartLoad("http://" + site.String())
	time.Sleep(300 * time.Millisecond)
	for name, shape := range map[string]func(){
		"a replica more": func() { a.Members[0].Green = append(a.Members[0].Green, proxytest.Serve(t, "web1", "green")) },
		"another member": func() { a.Members = append(a.Members[1:], proxytest.Member(t, "web3")) },
	} {
		workers := d.workers()
		shape()
		prepare(t, d, a, true)
		if d.workers() == workers {
			t.Errorf("%s: nothing reloaded", name)
		}
		flip(t, l, d, a, proxy.Green)
		time.Sleep(200 * time.Millisecond)
	}
	l.End(t, 100)
	if _, err := os.Stat(routeDir(a) + "/announce"); err == nil {
		t.Error("the announcement was left behind")
	}
}
