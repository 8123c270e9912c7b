//go:build linux

package lab_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
)

// brisk is quick, and quicker still: for tests that deploy very often.
func brisk(text string) string {
	return strings.NewReplacer(
		`delay = "2s"`, `delay = "1s"`, `max = "2m"`, `max = "3s"`,
		`stable = "1s"`, `stable = "0s"`, `interval = "300ms"`, "interval = \"200ms\"\nsuccesses = 1",
	).Replace(quick(text))
}

// A trouble befalls lb2 at one moment of a deployment.
type trouble struct {
	name string
	at   func(event) bool // the moment; nil: before teal begins
	harm func(context.Context, *lab.Host) error
	heal func(context.Context, *lab.Host) error // nil: it heals by itself
	last time.Duration                          // until it is healed; 0: until teal has ended

	code  int    // with which teal ends
	say   string // what it says
	green bool   // what serves then
	left  bool   // green's containers stay: nobody knows what lb2 would do
}

const disagreed = "not every load balancer confirmed, all serve as before"

func troubles(kind string) []trouble {
	all := []trouble{
		{name: "cut off before the run", harm: cut, heal: heal, code: 5, say: "load balancer lb2: connect: "},
		{name: "proxy restarted before the switch", at: is("create", "started"), harm: restart, green: true},
		{name: "cut off in the preparation", at: is("create", "started"), harm: cut, heal: heal, code: 5, say: "load balancer lb2: "},
		{name: "proxy killed in the drain", at: is("teardown", "started"), harm: kill, heal: restart, green: true},
		{name: "cut off in the switch", at: is("switch", "started"), harm: cut, heal: heal, last: 12 * time.Second, code: 4, say: disagreed},
		{name: "cut off in the drain", at: is("teardown", "started"), harm: cut, heal: heal, green: true},
		{name: "cut off behind the switch", at: is("switch", "done"), harm: cut, heal: heal, code: 5, say: "could not be verified", green: true},
		{name: "frozen in the switch", at: is("switch", "started"), harm: freeze, heal: thaw, code: map[string]int{lab.Nginx: 9, lab.HAProxy: 4}[kind], say: "green is left behind, the next deployment removes it", left: true},
		{name: "disk full in the switch", at: is("test", "started"), harm: fill, heal: free, code: 4, say: disagreed},
		{name: "proxy killed in the switch", at: is("switch", "started"), harm: kill, heal: restart, code: 4, say: disagreed, left: true},
	}
	if kind == lab.HAProxy { // it comes back by itself
		all = slices.DeleteFunc(all, func(tr trouble) bool { return tr.name == "proxy killed in the switch" })
		for i := range all {
			if strings.HasPrefix(all[i].name, "proxy killed") {
				all[i].heal = nil
			}
		}
	}
	return all
}

// What befalls a load balancer, and how it is healed.
func cut(ctx context.Context, h *lab.Host) error     { return h.Cut(ctx) }
func heal(ctx context.Context, h *lab.Host) error    { return h.Heal(ctx) }
func freeze(ctx context.Context, h *lab.Host) error  { return h.FreezeProxy(ctx) }
func thaw(ctx context.Context, h *lab.Host) error    { return h.ThawProxy(ctx) }
func kill(ctx context.Context, h *lab.Host) error    { return h.KillProxy(ctx) }
func restart(ctx context.Context, h *lab.Host) error { return h.RestartProxy(ctx) }
func fill(ctx context.Context, h *lab.Host) error    { return h.FillDisk(ctx, "/var/lib/teal") }
func free(ctx context.Context, h *lab.Host) error    { return h.FreeDisk(ctx, "/var/lib/teal") }

// is recognizes an event.
func is(step, status string) func(event) bool {
	return func(e event) bool { return e.Step == step && e.Status == status }
}

// TestTroubleOfOneLoadBalancer has lb2 in trouble, again and again, while lb1
// is under load that must not notice.
func TestTroubleOfOneLoadBalancer(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{lab.Nginx, lab.HAProxy} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, lab.Config{Hosts: 2, Balancers: 2, Proxy: kind}, brisk)
			f.deploy("0")
			s := f.stress(light(), 15*time.Minute, func(c *load.Config) {
				c.Hosts, c.Pause = c.Hosts[:1], 50*time.Millisecond
			})
			all := troubles(kind)
			for i, tr := range all {
				t.Run(tr.name, func(t *testing.T) {
					f.t = t
					f.befalls(tr, strconv.Itoa(i+1)+"-bad")
					// The next deployment succeeds: where it can it is that of the next case.
					if good := strconv.Itoa(i + 1); tr.code != 0 && (i+1 == len(all) || all[i+1].code != 0) {
						f.deploy(good)
						f.agrees(good, 1)
					}
				})
			}
			t.Run("teal killed when one has switched", func(t *testing.T) {
				f.t = t
				f.killedBetween("between")
			})
			t.Run("teal killed behind the switch", func(t *testing.T) {
				f.t = t
				f.publish("behind", "")
				f.killAt(syscall.SIGKILL, is("switch", "done"), "deploy", "--version", "behind")
				f.recovers("last", "behind")
			})
			f.t = t
			s.end(t)
		})
	}
}

// befalls deploys a release while trouble befalls lb2, which is healed then.
func (f *fleet) befalls(tr trouble, bad string) {
	f.t.Helper()
	ctx, lb := f.t.Context(), f.Balancers()[1]
	serves := f.serves(f.Balancers()[0])
	f.publish(bad, "")
	var healed sync.WaitGroup
	harm := sync.OnceFunc(func() {
		if err := tr.harm(ctx, lb); err != nil {
			f.t.Error(err)
		}
		if tr.last > 0 {
			healed.Go(func() {
				time.Sleep(tr.last)
				if err := tr.heal(ctx, lb); err != nil {
					f.t.Error(err)
				}
			})
		}
	})
	if tr.at == nil {
		harm()
	}
	began := time.Now()
	e := f.pausing(tr.at, harm, "deploy", "--version", bad)
	took := time.Since(began)
	healed.Wait()
	asTold := e.code == tr.code && strings.Contains(e.stdout, tr.say)
	// Where green serves anyway, the trouble may have come a moment too late to
	// be noticed.
	if !asTold && (!tr.green || e.code != 0) || took > 2*time.Minute {
		f.t.Errorf("teal ended with code %d after %s, want %d, soon, and %q:\n%s", e.code, took, tr.code, tr.say, e.stdout)
	}
	if tr.green {
		serves = bad
	}
	if got := f.serves(f.Balancers()[0]); got != serves {
		f.t.Errorf("through lb1 %s serves, want %s", got, serves)
	}
	if tr.last == 0 && tr.heal != nil {
		if err := tr.heal(ctx, lb); err != nil {
			f.t.Fatal(err)
		}
	}
	f.t.Logf("teal ended with %d after %s: %s", e.code, took.Round(time.Millisecond), e.why())
	f.agrees(serves, map[bool]int{false: 1, true: 2}[tr.left])
}

// pausing runs teal and stops it in its tracks at the first event of a kind,
// for as long as do takes.
func (f *fleet) pausing(at func(event) bool, do func(), args ...string) ended {
	f.t.Helper()
	cmd := f.command(f.t.Context(), args...)
	done := at == nil
	return f.finish(cmd, func(e event) {
		if done || !at(e) {
			return
		}
		done = true
		_ = cmd.Process.Signal(syscall.SIGSTOP)
		do()
		_ = cmd.Process.Signal(syscall.SIGCONT)
	})
}

// why is what teal said in the end.
func (e ended) why() string {
	if e.result.Error != "" || len(e.result.Hosts) == 0 {
		return e.result.Error
	}
	return e.result.Hosts[0].Error
}

// killedBetween kills teal when lb1 has switched and lb2, which is cut off,
// has not.
func (f *fleet) killedBetween(bad string) {
	f.t.Helper()
	ctx, lb1, lb2 := f.t.Context(), f.Balancers()[0], f.Balancers()[1]
	blue := f.serves(lb1)
	f.publish(bad, "")
	cmd := f.command(ctx, "deploy", "--version", bad)
	switching := false
	f.finish(cmd, func(e event) {
		if switching || !is("switch", "started")(e) {
			return
		}
		switching = true
		_ = cmd.Process.Signal(syscall.SIGSTOP)
		if err := lb2.Cut(ctx); err != nil {
			f.t.Error(err)
		}
		_ = cmd.Process.Signal(syscall.SIGCONT)
		f.eventually(10*time.Second, "lb1 has switched", func() bool { return f.serves(lb1) == bad })
		_ = cmd.Process.Signal(syscall.SIGKILL)
	})
	time.Sleep(5 * time.Second) // drain.max and more
	if err := lb2.Heal(ctx); err != nil {
		f.t.Fatal(err)
	}
	for _, h := range f.Hosts() {
		if got := f.containers(h); len(got) != 2 {
			f.t.Errorf("containers on %s are %v: a load balancer routes to each of two", h, got)
		}
	}
	f.eventually(10*time.Second, "lb2 takes requests", func() bool { return f.serves(lb2) == blue })
	if got := f.serves(lb1); got != bad {
		f.t.Errorf("through lb1 %s serves, want %s", got, bad)
	}
	f.want(f.run(nil, "status"), 6)
	f.recovers(bad+"-mended", blue, bad)
}

// recovers deploys a release after teal was killed, once the lock is free.
// Until then one of some releases serves.
func (f *fleet) recovers(version string, serves ...string) {
	f.t.Helper()
	for _, lb := range f.Balancers() {
		if got := f.serves(lb); !slices.Contains(serves, got) {
			f.t.Errorf("through %s %s serves, want one of %v", lb, got, serves)
		}
	}
	f.publish(version, "")
	f.eventually(30*time.Second, "the next deployment puts all right", func() bool {
		e := f.run(nil, "deploy", "--version", version)
		if e.code != 7 { // the lock is held
			f.want(e, 0)
		}
		return e.code == 0
	})
	f.agrees(version, 1)
}

// agrees fails the test unless a release serves by all accounts, and soon
// every server has so many containers. A load balancer that was away takes a moment to see
// its servers again.
func (f *fleet) agrees(version string, containers int) {
	f.t.Helper()
	for _, lb := range f.Balancers() {
		f.eventually(10*time.Second, lb.Name+" takes requests", func() bool { return !strings.HasPrefix(f.serves(lb), "nothing") })
		for range 4 { // of both servers
			if got := f.serves(lb); got != version {
				f.t.Errorf("through %s %s serves, want %s", lb, got, version)
			}
		}
	}
	var status ended
	f.eventually(20*time.Second, "the locks are free", func() bool { // of one that was cut off, too
		status = f.must(f.run(nil, "status"))
		return !strings.Contains(status.stdout, `"lock"`)
	})
	members := 0
	for line := range strings.Lines(status.stdout) {
		var row struct {
			Disk, Live string
			Members    []struct{ Disk, Live string }
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			f.t.Fatal(err)
		}
		for _, m := range row.Members {
			members++
			if m.Disk != m.Live || m.Disk != "blue" && m.Disk != "green" {
				f.t.Errorf("not one slot, on disk and live: %s", line)
			}
		}
		if row.Disk != row.Live {
			f.t.Errorf("on disk and live differ: %s", line)
		}
	}
	if want := len(f.Balancers()) * len(f.Hosts()); members != want {
		f.t.Errorf("the load balancers know %d servers, want %d", members, want)
	}
	for _, h := range f.Hosts() {
		f.eventually(15*time.Second, "nothing else is left on "+h.Name, func() bool { return len(f.containers(h)) == containers })
	}
}
