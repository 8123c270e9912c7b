package nginx

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

func TestPrepareThenSwitchThenObserve(t *testing.T) {
	d, l, url := prepared(t)
	blue := proxy.Route{App: "shop", Slot: proxy.Blue, Share: 100}
	green := proxy.Route{App: "shop", Slot: proxy.Green, Share: 100}
	for _, r := range []proxy.Route{blue, green, green, blue} {
		switchTo(t.Context(), t, d, l, r.Slot)
		want := proxy.Observation{Prepared: true, Disk: r, Live: r}
		if diff := cmp.Diff(want, observe(t, d, l)); diff != "" {
			t.Errorf("after the switch to %s (-want +got):\n%s", r, diff)
		}
		if got := get(t, url); got != string(r.Slot) {
			t.Errorf("the site answers %q, want %s", got, r.Slot)
		}
	}
}
