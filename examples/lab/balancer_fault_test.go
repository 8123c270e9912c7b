//go:build linux

package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
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
		`delay = "2s"`, `delay = "1s"`,
		`stable = "1s"`, `stable = "0s"`, `interval = "300ms"`, "interval = \"200ms\"\nsuccesses = 1",
	).Replace(quick(text))
}

// A trouble befalls a load balancer at one moment of a deployment.
type trouble struct {
	name string
	at   func(event) bool // the moment; nil: before teal begins
	harm func(context.Context, *lab.Host) error
	heal func(context.Context, *lab.Host) error
	last time.Duration // until it is healed; 0: until teal has ended

	kill   func(f *fleet, e event, blue string) bool // teal dies
	code   map[string]int                            // with which teal ends, by the kind of proxy
	say    string                                    // what teal reports
	green  bool                                      // what serves then
	within time.Duration                             // teal ends, 0: in no time of note
}

func both(code int) map[string]int { return map[string]int{lab.Nginx: code, lab.HAProxy: code} }

// cut and its like are what happens to a load balancer.
func cut(ctx context.Context, h *lab.Host) error { return h.Cut(ctx) }

func heal(ctx context.Context, h *lab.Host) error { return h.Heal(ctx) }

func freeze(ctx context.Context, h *lab.Host) error { return h.FreezeProxy(ctx) }

func thaw(ctx context.Context, h *lab.Host) error { return h.ThawProxy(ctx) }

func kill(ctx context.Context, h *lab.Host) error { return h.KillProxy(ctx) }

func restart(ctx context.Context, h *lab.Host) error { return h.RestartProxy(ctx) }

func fill(ctx context.Context, h *lab.Host) error { return h.FillDisk(ctx, "/var/lib/teal") }

func free(ctx context.Context, h *lab.Host) error { return h.FreeDisk(ctx, "/var/lib/teal") }

// is returns the moment of the first such event.
func is(step, status string) func(event) bool {
	return func(e event) bool { return e.Step == step && e.Status == status }
}

func TestTroubleOfOneLoadBalancer(t *testing.T) {
	troubles := []trouble{
		{name: "cut off before the run", harm: cut, heal: heal, code: both(5), say: "load balancer lb2: "},
		{name: "cut off in the preparation", at: is("create", "started"), harm: cut, heal: heal, code: both(5), say: "load balancer lb2: "},
		{name: "cut off in the switch", at: is("switch", "started"), harm: cut, heal: heal, last: 12 * time.Second, code: both(4), say: "not every load balancer confirmed"},
		{name: "cut off in the drain", at: is("teardown", "started"), harm: cut, heal: heal, code: both(0), green: true},
		{name: "frozen in the switch", at: is("switch", "started"), harm: freeze, heal: thaw, code: both(4), say: "not every load balancer confirmed"},
		{name: "its disk full in the switch", at: is("test", "started"), harm: fill, heal: free, code: both(4), say: "not every load balancer confirmed"},
		{name: "its proxy restarted before the switch", at: is("test", "started"), harm: restart, code: both(0), green: true},
		{name: "its proxy killed before the switch", at: is("test", "started"), harm: kill, heal: restart, code: map[string]int{lab.Nginx: 4, lab.HAProxy: 0}},
		{name: "its proxy killed in the drain", at: is("teardown", "started"), harm: kill, heal: restart, code: both(0), green: true},
	}
	for _, kind := range []string{lab.Nginx, lab.HAProxy} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, lab.Config{Hosts: 2, Balancers: 2, Proxy: kind}, brisk)
			f.deploy("0")
			s := f.stress(light(), 10*time.Minute, func(c *load.Config) { c.Hosts = c.Hosts[:1] })
			for i, tr := range troubles {
				t.Run(tr.name, func(t *testing.T) {
					f.t = t
					f.befalls(kind, tr, fmt.Sprint(i+1))
				})
			}
			f.t = t
			s.end(t)
		})
	}
}

// befalls deploys a release while trouble befalls lb2, and then, without
// trouble, another one.
func (f *fleet) befalls(kind string, tr trouble, version string) {
	f.t.Helper()
	ctx, lb := f.t.Context(), f.Balancers()[1]
	blue := f.serves(f.Balancers()[0])
	bad := version + "-bad"
	f.publish(bad, "")
	var done sync.WaitGroup
	harmed := false
	harm := func() {
		harmed = true
		if err := tr.harm(ctx, lb); err != nil {
			f.t.Error(err)
		}
		if tr.last > 0 {
			done.Go(func() {
				time.Sleep(tr.last)
				if err := tr.heal(ctx, lb); err != nil {
					f.t.Error(err)
				}
			})
		}
	}
	if tr.at == nil {
		harm()
	}
	began := time.Now()
	cmd := f.command(ctx, "deploy", "--version", bad)
	e := f.finish(cmd, func(e event) {
		if !harmed && tr.at(e) {
			harm()
		}
		if tr.kill != nil && tr.kill(f, e, blue) {
			_ = cmd.Process.Signal(syscall.SIGKILL)
		}
	})
	f.t.Logf("teal ended after %s with %d, %s: %s", time.Since(began).Round(time.Millisecond), e.code, e.result.Outcome, e.result.Error)
	for _, h := range e.result.Hosts {
		f.t.Logf("%s: %s serves %s, %s %s", h.Host, h.State, h.Version, h.Step, h.Error)
	}
	done.Wait()
	if e.code != tr.code[kind] || !strings.Contains(e.stdout, tr.say) {
		f.t.Errorf("teal ended with code %d, want %d and %q:\n%s", e.code, tr.code[kind], tr.say, e.stdout)
	}
	want := blue
	if tr.green {
		want = bad
	}
	if got := f.serves(f.Balancers()[0]); got != want {
		f.t.Errorf("through lb1 %s serves, want %s", got, want)
	}
	if tr.last == 0 && tr.heal != nil {
		if err := tr.heal(ctx, lb); err != nil {
			f.t.Fatal(err)
		}
	}
	f.t.Logf("after healing lb2 serves %s, status %s", f.serves(lb), f.run(nil, "status").stdout)
	f.deploy(version)
	f.agrees(version)
	f.t.Logf("took %s", time.Since(began).Round(time.Millisecond))
}

// agrees fails the test unless everything says that a release serves, and
// nothing else is left.
func (f *fleet) agrees(version string) {
	f.t.Helper()
	for _, lb := range f.Balancers() {
		if got := f.serves(lb); got != version {
			f.t.Errorf("through %s %s serves, want %s", lb, got, version)
		}
	}
	status := f.must(f.run(nil, "status"))
	for line := range strings.Lines(status.stdout) {
		var row struct {
			Host     string `json:"host"`
			Balancer string `json:"balancer"`
			Disk     string `json:"disk"`
			Live     string `json:"live"`
			Problem  string `json:"problem"`
			Members  []struct{ Name, Disk, Live string }
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			f.t.Fatal(err)
		}
		for _, m := range row.Members {
			if m.Disk != m.Live {
				f.t.Errorf("%s", line)
			}
		}
		if row.Disk != row.Live || row.Problem != "" {
			f.t.Errorf("%s", line)
		}
	}
	for _, h := range f.Hosts() {
		f.eventually(10*time.Second, "only what serves is left on "+h.Name, func() bool { return len(f.containers(h)) == 1 })
	}
}
