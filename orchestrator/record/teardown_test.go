package record

import (
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

func TestTeardownRemovesIdleContainerAfterDelay(t *testing.T) {
	t.Parallel()
	for _, sh := range shells(t) {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, sh)
			blue, green := newContainer(t), newContainer(t)
			l := f.acquire()
			f.must(l.Arm(t.Context(), f.teardown(blue, 2*time.Second, time.Minute, green)))
			if p := f.observe().Pending; len(p) != 1 || !p[0].Running {
				t.Fatalf("pending %+v, want one that runs", p)
			}
			blue.staysFor(time.Second)
			f.route(proxy.Green)
			switched := time.Now()
			f.must(l.Let(t.Context(), "2026'r\n1"))
			blue.goneBetween(switched, 2*time.Second, 5*time.Second)
			f.eventually("no teardown is pending", func() bool { return len(f.observe().Pending) == 0 })
			if !green.runs() {
				t.Error("the successor was stopped")
			}
			f.must(l.Release(t.Context()))
		})
	}
}
