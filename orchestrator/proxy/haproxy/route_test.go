package haproxy

import (
	"testing"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

func TestPrepareThenSwitchThenObserve(t *testing.T) {
	d, l, url := prepared(t, "web1")
	for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green, proxy.Green, proxy.Blue} {
		switchTo(t.Context(), t, d, l, slot)
		observed(t, d, l, all(l, slot.All()))
		if got := get(t, url); got != string(slot) {
			t.Errorf("the site answers %q, want %s", got, slot)
		}
	}
}
