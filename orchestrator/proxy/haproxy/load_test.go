package haproxy

import (
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
	d, a, url := prepared(t, "web1")
	worker := d.worker()
	l := proxytest.StartLoad(url)
	slot := proxy.Green
	for range 50 {
		flip(t, l, d, a, slot)
		slot = slot.Other()
		time.Sleep(40 * time.Millisecond)
	}
	l.End(t, 100)
	if got := d.worker(); got != worker {
		t.Errorf("worker %s became %s: something reloaded", worker, got)
	}
}

func TestRollbackStormFailsNoRequest(t *testing.T) {
	t.Parallel()
	d, a, url := prepared(t, "web1")
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

func TestReloadUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	d, a, url := prepared(t, "web1")
	l := proxytest.StartLoad(url)
	time.Sleep(300 * time.Millisecond)
	for range 2 {
		worker := d.worker()
		a.Members[0].Green = append(a.Members[0].Green, proxytest.Serve(t, "web1", "green"))
		prepare(t, d, a, true)
		if d.worker() == worker {
			t.Error("nothing reloaded")
		}
		flip(t, l, d, a, proxy.Green)
		time.Sleep(200 * time.Millisecond)
	}
	l.End(t, 100)
}
