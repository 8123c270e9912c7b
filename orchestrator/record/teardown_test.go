package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
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

const release = "2026'r\n1"

// onShells runs a test on each of the shells, all at once.
func onShells(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Parallel()
	for _, sh := range shells(t) {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			test(t, newFixture(t, sh))
		})
	}
}

// released arms a teardown of blue, switches and lets go of it.
func (f *fixture) released(l *Lock, order Teardown) time.Time {
	f.Helper()
	f.must(l.Arm(f.Context(), order))
	f.route(proxy.Green)
	switched := time.Now()
	f.must(l.Let(f.Context(), order.Release))
	return switched
}

func (f *fixture) onlyPending() Pending {
	f.Helper()
	p := f.observe().Pending
	if len(p) != 1 {
		f.Fatalf("pending %+v, want one", p)
	}
	return p[0]
}

func (f *fixture) nothingPending() {
	f.Helper()
	f.eventually("no teardown is pending", func() bool { return len(f.observe().Pending) == 0 })
}

func TestTeardownWaitsForConnectionsUntilMax(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		blue.dial()
		switched := f.released(f.acquire(), f.teardown(blue, time.Second, 4*time.Second))
		f.eventually("the connection is counted", func() bool {
			p := f.onlyPending()
			return p.Connections == 1 && p.Released && !p.Switched.IsZero() && p.Waits == "connections to it are open"
		})
		blue.goneBetween(switched, 4*time.Second, 7*time.Second)
	})
}

func TestTeardownDoesNotWaitForConnectionsThatNeverCameToBe(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainerThat(t, "defers")
		blue.dial()
		table, err := os.ReadFile("/proc/net/tcp")
		if half := fmt.Sprintf(":%04X [0-9A-F:]* 03 ", blue.port); err != nil || !regexp.MustCompile(half).Match(table) {
			t.Fatalf("no half made connection to port %d: %v\n%s", blue.port, err, table)
		}
		switched := f.released(f.acquire(), f.teardown(blue, time.Second, time.Minute))
		blue.goneBetween(switched, time.Second, 5*time.Second)
	})
}

// Behind load balancers nothing on the server itself says where requests go,
// but its record.
func TestTeardownWaitsUntilTheRecordSaysThatTheOtherSlotServes(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		st := State{Active: &Release{ID: "r1", Slot: proxy.Blue}}
		f.must(l.Write(t.Context(), st))
		order := f.teardown(blue, 0, 0)
		order.RoutedScript, order.RoutedArgs = f.store.ServesScript(f.app, proxy.Blue)
		f.must(l.Arm(t.Context(), order))
		f.must(l.Let(t.Context(), order.Release))
		st.Switching = &Release{ID: "r2", Slot: proxy.Green}
		f.must(l.Write(t.Context(), st))
		blue.staysFor(2 * time.Second)
		if p := f.onlyPending(); p.Waits != "the proxy routes to it" {
			t.Errorf("waits for %q", p.Waits)
		}
		f.must(l.Write(t.Context(), State{Active: st.Switching}))
		blue.goneBetween(time.Now(), 0, 3*time.Second)
		f.nothingPending()
	})
}

func TestTeardownKeepsWhatServesByTheRecordAgain(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		order := f.teardown(blue, 2*time.Second, time.Minute)
		order.RoutedScript, order.RoutedArgs = f.store.ServesScript(f.app, proxy.Blue)
		f.must(l.Arm(t.Context(), order))
		f.must(l.Write(t.Context(), State{Active: &Release{ID: "r2", Slot: proxy.Green}}))
		f.must(l.Let(t.Context(), order.Release))
		f.eventually("the switch is seen", func() bool { return !f.onlyPending().Switched.IsZero() })
		f.must(l.Write(t.Context(), State{Active: &Release{ID: "r1", Slot: proxy.Blue}}))
		blue.staysFor(3 * time.Second)
		f.must(os.RemoveAll(filepath.Join(f.store.Dir(f.app), "serves"))) // nothing is sure any more
		blue.staysFor(time.Second)
	})
}

func TestTeardownGoesOnWhenConnectionsEnd(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		conn := blue.dial()
		f.released(f.acquire(), f.teardown(blue, time.Second, time.Minute))
		blue.staysFor(3 * time.Second)
		closed := time.Now()
		_ = conn.Close()
		blue.goneBetween(closed, time.Second, 5*time.Second)
	})
}

func TestTeardownOfWorkerCountsNothing(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		blue.dial()
		order := f.teardown(blue, time.Second, time.Minute)
		order.Containers[0].Port = 0
		order.RoutedScript, order.RoutedArgs = "", nil
		switched := f.released(f.acquire(), order)
		blue.goneBetween(switched.Add(-time.Second), time.Second, 5*time.Second)
	})
}

func TestTeardownOfSeveralContainersRemovesAll(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		one, two := newContainer(t), newContainer(t)
		two.dial()
		order := f.teardown(one, 0, 3*time.Second)
		order.Containers = append(order.Containers, two.condemned())
		switched := f.released(f.acquire(), order)
		two.goneBetween(switched, 3*time.Second, 6*time.Second)
		one.goneBetween(switched, 3*time.Second, 6*time.Second)
		f.nothingPending()
	})
}

func TestTeardownWaitsWhileTheRunHoldsIt(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		f.must(l.Arm(t.Context(), f.teardown(blue, 0, time.Second)))
		f.route(proxy.Green)
		blue.staysFor(3 * time.Second)
		if p := f.onlyPending(); p.Released || p.Waits != "the run has not let go of it" {
			t.Errorf("pending %+v, want held", p)
		}
		f.must(l.Let(t.Context(), release))
		blue.goneBetween(time.Now(), 0, 3*time.Second)
	})
}

func TestTeardownGoesOnWhenTheRunIsDead(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		f.must(l.Arm(t.Context(), f.teardown(blue, time.Second, time.Minute)))
		f.route(proxy.Green)
		switched := time.Now()
		f.must(l.Release(t.Context())) // without Let
		blue.goneBetween(switched, time.Second, 4*time.Second)
	})
}

func TestTeardownNeverRemovesWhatTheProxyRoutesTo(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		f.must(l.Arm(t.Context(), f.teardown(blue, time.Second, 2*time.Second)))
		f.route(proxy.Green)
		f.must(l.Let(t.Context(), release))
		f.eventually("the switch is seen", func() bool { return !f.onlyPending().Switched.IsZero() })
		f.route(proxy.Blue) // back by hand, nothing was cancelled
		blue.staysFor(3 * time.Second)
		if p := f.onlyPending(); !p.Switched.IsZero() || p.Waits != "the proxy routes to it" {
			t.Errorf("pending %+v, want routed", p)
		}
	})
}

func TestTeardownEndsWhenTheSwitchNeverHappens(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		f.store.Orphaned = time.Second
		blue := newContainer(t)
		l := f.acquire()
		f.must(l.Arm(t.Context(), f.teardown(blue, 0, time.Second)))
		blue.staysFor(2 * time.Second)
		if p := f.observe().Pending; len(p) != 1 {
			t.Fatalf("pending %+v, want one while the run lives", p)
		}
		f.must(l.Release(t.Context()))
		f.nothingPending()
		blue.staysFor(time.Second)
		if audit := f.read("audit.log"); !strings.Contains(audit, "did not happen") {
			t.Errorf("audit trail %q does not say why", audit)
		}
	})
}

func TestTeardownKeepsTheLastResort(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue, green := newContainer(t), newContainer(t)
		_ = green.process.Kill()
		<-green.ended
		f.released(f.acquire(), f.teardown(blue, 0, time.Second, green))
		blue.staysFor(3 * time.Second)
		if p := f.onlyPending(); p.Waits != "a container of the release after it does not run" {
			t.Errorf("waits for %q", p.Waits)
		}
		again := newContainer(t)
		write(t, filepath.Join(green.dir, "pid"), strconv.Itoa(again.process.Pid))
		blue.goneBetween(time.Now(), 0, 6*time.Second)
	})
}

func TestTeardownDoesNothingWhenTheRouteIsUnknown(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		order := f.teardown(blue, 0, 0)
		order.RoutedScript = "exit 2"
		f.released(f.acquire(), order)
		blue.staysFor(2 * time.Second)
		if p := f.onlyPending(); p.Waits != "it is not known whether the proxy routes to it" {
			t.Errorf("waits for %q", p.Waits)
		}
	})
}

func TestTeardownWaitsForMaxWhenConnectionsCannotBeCounted(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		order := f.teardown(blue, 0, 3*time.Second)
		order.Containers[0].Commands.PID = []string{"false"}
		switched := f.released(f.acquire(), order)
		blue.goneBetween(switched, 3*time.Second, 6*time.Second)
	})
}

func TestTeardownTriesAgainWhenRemovingFails(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		order := f.teardown(blue, 0, time.Second)
		engine := filepath.Join(t.TempDir(), "engine runs")
		order.Containers[0].Commands.Stop = append([]string{"sh", "-c", `[ -e "$0" ] || { echo no engine >&2; exit 1; }; exec "$@"`, engine},
			order.Containers[0].Commands.Stop...)
		l := f.acquire()
		f.released(l, order)
		f.eventually("the failure is told", func() bool {
			p := f.onlyPending()
			return p.Waits == "it could not be removed: no engine" && p.Stopping
		})
		f.is(l.Cancel(t.Context(), release), ErrTooLate)
		f.is(l.Arm(t.Context(), order), nil) // the same order: nothing to do
		write(t, engine, "")
		blue.goneBetween(time.Now(), 0, 6*time.Second)
		f.nothingPending()
	})
}

func TestCancelKeepsTheContainer(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		f.released(l, f.teardown(blue, 2*time.Second, time.Minute))
		f.must(l.Cancel(t.Context(), release))
		f.nothingPending()
		blue.staysFor(4 * time.Second)
		f.is(l.Cancel(t.Context(), release), ErrNoTeardown)
		f.is(l.Let(t.Context(), release), ErrNoTeardown)
	})
}

func TestArmAfterCancelRemoves(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		order := f.teardown(blue, time.Second, time.Minute)
		f.released(l, order)
		f.must(l.Cancel(t.Context(), release))
		f.route(proxy.Blue)
		switched := f.released(l, order)
		blue.goneBetween(switched, time.Second, 5*time.Second)
	})
}

func TestArmAgainChangesNothing(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		order := f.teardown(blue, 2*time.Second, time.Minute)
		switched := f.released(l, order)
		f.must(l.Arm(t.Context(), order))
		if p := f.onlyPending(); !p.Released {
			t.Error("armed again, and the run holds it again")
		}
		blue.goneBetween(switched, 2*time.Second, 5*time.Second)
	})
}

func TestArmReplacesTheOrderOfAnEarlierRun(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		l := f.acquire()
		f.must(l.Arm(t.Context(), f.teardown(blue, 0, time.Second)))
		f.must(l.Release(t.Context()))
		l = f.acquire()
		f.must(l.Arm(t.Context(), f.teardown(blue, 0, 2*time.Second)))
		f.route(proxy.Green)
		blue.staysFor(2 * time.Second) // the second run holds it; the first order would be due
		if p := f.onlyPending(); p.Max != 2*time.Second {
			t.Errorf("max %s, want that of the second order", p.Max)
		}
		f.must(l.Let(t.Context(), release))
		blue.goneBetween(time.Now(), 0, 4*time.Second)
	})
}

// The process may be writing into the folder of its order at any moment.
func TestCancelDoesNotMindThatTheProcessWrites(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		f.must(l.Arm(t.Context(), f.teardown(newContainer(t), time.Minute, time.Hour)))
		folder, err := os.Open(filepath.Dir(f.orders()[0]))
		f.must(err)
		defer func() { _ = folder.Close() }()
		end := make(chan struct{})
		var writes sync.WaitGroup
		writes.Go(func() { // follows the folder when it is renamed
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
					_ = os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/note%d", folder.Fd(), i), nil, 0o600)
				}
			}
		})
		time.Sleep(100 * time.Millisecond)
		f.must(l.Cancel(t.Context(), release))
		close(end)
		writes.Wait()
		f.nothingPending()
	})
}

// Of a cancel and a teardown that begins, one wins, whichever comes first by
// how little.
func TestCancelAndTeardownNeverBothWin(t *testing.T) {
	for _, sh := range shells(t) {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, sh)
			l := f.acquire()
			wait := 450 * time.Millisecond // follows the moment at which the teardown decides
			for i := range 20 {
				c := &container{t: t, dir: t.TempDir()}
				order := f.teardown(c, 0, 0)
				order.Release = fmt.Sprint("r", i)
				order.Containers[0].Port = 0
				f.must(l.Arm(t.Context(), order))
				f.route(proxy.Green)
				f.must(l.Let(t.Context(), order.Release))
				time.Sleep(wait)
				err := l.Cancel(t.Context(), order.Release)
				switch {
				case err == nil:
					time.Sleep(200 * time.Millisecond)
					if c.log() != "" {
						t.Errorf("cancelled, yet done: %q", c.log())
					}
					wait += 10 * time.Millisecond
				case errors.Is(err, ErrTooLate) || errors.Is(err, ErrNoTeardown):
					f.eventually("it is removed", func() bool { return c.log() == "stop remove" })
					wait -= 10 * time.Millisecond
				default:
					t.Error(err)
				}
				f.route(proxy.Blue)
			}
			t.Log("in the end the teardown decided after about", wait)
		})
	}
}

func (f *fixture) read(file string) string {
	f.Helper()
	data, err := os.ReadFile(filepath.Join(f.store.Dir(f.app), file))
	f.must(err)
	return string(data)
}

func TestReapGoesOnWhereAKilledProcessStood(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		switched := f.released(f.acquire(), f.teardown(blue, 2*time.Second, time.Minute))
		f.eventually("the switch is seen", func() bool { return !f.onlyPending().Switched.IsZero() })
		f.kill(f.orders()...)
		if p := f.onlyPending(); p.Running || p.Connections != -1 {
			t.Errorf("pending %+v, want one that does not run", p)
		}
		f.must(f.store.Reap(t.Context(), f.host, f.app))
		if p := f.onlyPending(); !p.Running {
			t.Errorf("pending %+v, want one that runs", p)
		}
		blue.goneBetween(switched, 2*time.Second, 6*time.Second)
		f.nothingPending()
	})
}

func TestReapFinishesWhatDiedWhileStopping(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		order := f.teardown(blue, 0, 0)
		hang := filepath.Join(t.TempDir(), "hang")
		write(t, hang, "")
		order.Containers[0].Commands.Remove = append([]string{"sh", "-c", `if [ -e "$0" ]; then exit 1; fi; exec "$@"`, hang},
			order.Containers[0].Commands.Remove...)
		f.released(f.acquire(), order)
		f.eventually("it is stopped", func() bool { return blue.log() != "" })
		f.kill(f.orders()...)
		if p := f.onlyPending(); !p.Stopping {
			t.Errorf("pending %+v, want stopping", p)
		}
		f.must(os.Remove(hang))
		f.must(f.store.Reap(t.Context(), f.host, f.app))
		f.nothingPending()
		if got := blue.log(); !strings.HasSuffix(got, "stop remove") {
			t.Errorf("done: %q", got)
		}
	})
}

func TestReapAfterRebootRemovesAtOnce(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		f.released(f.acquire(), f.teardown(blue, time.Minute, time.Hour))
		f.eventually("the switch is seen", func() bool { return !f.onlyPending().Switched.IsZero() })
		f.kill(f.orders()...)
		// As after a reboot two minutes later: another boot, blue does not run.
		marks, err := filepath.Glob(filepath.Join(globSafe(f.store.Dir(f.app)), "pending", "*", "switched"))
		f.must(err)
		write(t, marks[0], fmt.Sprintf("%d 99 an-earlier-boot\n", time.Now().Add(-2*time.Minute).Unix()))
		_ = blue.process.Kill()
		<-blue.ended
		f.must(f.store.Reap(t.Context(), f.host, f.app))
		blue.goneBetween(time.Now(), 0, 4*time.Second)
	})
}

func TestSeveralReapsStartOneProcess(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		blue := newContainer(t)
		f.released(f.acquire(), f.teardown(blue, 3*time.Second, time.Minute))
		f.kill(f.orders()...)
		var reaps sync.WaitGroup
		for range 4 {
			reaps.Go(func() {
				if err := f.store.Reap(t.Context(), f.host, f.app); err != nil {
					t.Error(err)
				}
			})
		}
		reaps.Wait()
		orders := f.orders()
		f.eventually("one process is left", func() bool { return len(processes(t, orders)) <= 1 })
		blue.goneBetween(time.Now().Add(-3*time.Second), 0, 10*time.Second)
	})
}
