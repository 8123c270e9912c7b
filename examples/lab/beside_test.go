//go:build linux

package lab_test

import (
	"flag"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/teal-deploy/teal/examples/lab"
)

// Tests of deployments wait more than they work: for blue to leave, for a lock
// to end, for a check to stay good. So they run beside each other, each in a
// lab of its own, and call Parallel before anything else. What the machine can
// carry is counted here and not with the flag parallel, because a test that
// waits must keep no other one out.
const (
	lightClients = 24  // more at the same time in one test are heavy load
	loadRoom     = 120 // clients of all tests with heavy load
	hostRoom     = 12  // one for each container engine, and one for each lab
)

// Who asks first comes first. Load is asked for before a lab, so that nobody
// holds a lab and waits.
var (
	busyRoom = semaphore.NewWeighted(loadRoom)
	labRoom  = semaphore.NewWeighted(hostRoom)
)

// parallel lets all tests be under way at the same time, most of them waiting
// for room. The flag on the command line still wins.
func parallel() error { return flag.Set("test.parallel", "64") }

// takeLoad waits until there is room for heavy load of so many clients.
func takeLoad(t *testing.T, clients int) {
	t.Helper()
	take(t, busyRoom, min(clients, loadRoom))
}

// takeLab waits until there is room for a lab.
func takeLab(t *testing.T, c lab.Config) {
	t.Helper()
	n := 1
	for i := range c.Hosts {
		engine := c.Engine
		if i < len(c.Engines) {
			engine = c.Engines[i]
		}
		if engine != lab.NoEngine {
			n++
		}
	}
	take(t, labRoom, min(n, hostRoom))
}

// take waits for room and gives it back when the test has ended and its lab is
// down.
func take(t *testing.T, from *semaphore.Weighted, n int) {
	t.Helper()
	asked := time.Now()
	if err := from.Acquire(t.Context(), int64(n)); err != nil {
		t.Fatal(err)
	}
	came := time.Now()
	t.Cleanup(func() {
		from.Release(int64(n))
		t.Logf("had room for %d for %.0f s, after %.0f s", n, time.Since(came).Seconds(), came.Sub(asked).Seconds())
	})
}
