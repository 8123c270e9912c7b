package orchestrator

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

// ended fails the test unless a run ended with this outcome, and with these
// states and versions of its hosts.
func ended(t *testing.T, res Result, o Outcome, hosts ...string) {
	t.Helper()
	var got []string
	for _, h := range res.Hosts {
		got = append(got, strings.TrimSpace(string(h.State)+" "+h.Version))
	}
	if res.Outcome != o || len(hosts) > 0 && !slices.Equal(got, hosts) {
		t.Errorf("the outcome is %q with hosts %q, want %q with %q: %s", res.Outcome, got, o, hosts, explain(res))
	}
}

func TestDeploymentsFollowEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	for _, version := range []string{"1", "2", "3", "4"} {
		p := w.teal()
		ended(t, p.deploy(t.Context(), version), OutcomeDone, "done "+version, "done "+version)
		w.quiet()
		w.consistent(version)
	}
	res := w.teal().deploy(t.Context(), "4")
	ended(t, res, OutcomeNothing, "skipped 4", "skipped 4")
	for i, h := range w.hosts {
		var kept []string
		for _, k := range h.state(t).Kept {
			kept = append(kept, k.Version)
		}
		if diff := cmp.Diff([]string{"3", "2"}, kept); diff != "" {
			t.Errorf("%s keeps (-want +got):\n%s", h.name, diff)
		}
		want := slices.Repeat([]string{"install", "migrate"}, 4)
		if i > 0 {
			want = slices.Repeat([]string{"install"}, 4)
		}
		if diff := cmp.Diff(want, h.ran); diff != "" {
			t.Errorf("%s ran (-want +got):\n%s", h.name, diff)
		}
	}
}

func TestAppWithoutAnImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, `app = "shop"`, "app = \"shop\"\nruntime = \"process\"", "[image]\nname = \"shop:${version}\"\npull = \"never\"\n", "")
	for _, version := range []string{"1", "2"} {
		ended(t, w.teal().deploy(t.Context(), version), OutcomeDone, "done "+version)
		w.quiet()
	}
	if res, _ := w.rollback(""); res.Outcome != OutcomeDone || res.Version != "1" {
		t.Errorf("back: %s", explain(res))
	}
	if slices.Contains(w.hosts[0].calls, "pull") {
		t.Error("an image was pulled")
	}
	req := w.req
	req.Version = "3"
	plan, err := w.teal().Plan(t.Context(), req)
	if err != nil || strings.Contains(plan.String(), "image") {
		t.Errorf("the plan is %v, %s", err, plan)
	}
	req.Version = ""
	if res := w.teal().Deploy(t.Context(), req); res.Outcome != OutcomeUsage || !strings.Contains(res.Err.Error(), "say what the release is called: --version") {
		t.Errorf("without a version: %s", explain(res))
	}
}

func TestOneHostFailsWithinTheLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		limit   string
		hurt    func(h *fakeHost)
		outcome Outcome
		third   string
	}{
		{"in the test", "max_failed = 1", func(h *fakeHost) { h.sick = func(string) bool { return true } }, OutcomeFailed, "failed 1"},
		{"in the switch", "max_failed = 1", func(h *fakeHost) { h.fault = &fault{kind: failing, op: "switch", nth: 1} }, OutcomeFailed, "failed 1"},
		{"without a proof of the switch", "max_failed = 1", func(h *fakeHost) { h.fault = &fault{kind: unproven, op: "switch", nth: 1} }, OutcomeFailed, "failed 1"},
		{"in the verification", "max_failed = 1", func(h *fakeHost) { h.answers = 503 }, OutcomeFailed, "rolled back 1"},
		{"not reached", `max_unreachable = "34%"`, func(h *fakeHost) { h.refused = true }, OutcomeUnreachable, "unreachable"},
		{"lost while it creates", "max_unreachable = 1", func(h *fakeHost) { h.fault = &fault{kind: lostAfter, op: "create", nth: 1} }, OutcomeUnreachable, "unreachable 1"},
		{"lost and gone", "max_unreachable = 1", func(h *fakeHost) { h.fault = &fault{kind: lostAfter, op: "create", nth: 1, gone: true} }, OutcomeUnreachable, "unreachable 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3, "[drain]", "[rollout]\n"+tt.limit+"\n[drain]")
			w.must("1")
			tt.hurt(w.hosts[2])
			p := w.teal()
			res := p.deploy(t.Context(), "2")
			ended(t, res, tt.outcome, "done 2", "done 2", tt.third)
			w.holds()
			w.quiet()
			h := w.hosts[2]
			if v := h.version(t); v != "1" {
				t.Errorf("%s serves %s, want 1", h.name, v)
			}
			gone := h.refused
			if got := h.versions(t); !gone && len(got) != 1 {
				t.Errorf("%s has containers of %s, want of 1 alone\n%s", h.name, got, p.story())
			}
			h.heal()
			w.must("3")
			w.consistent("3")
		})
	}
}

func TestTooManyFailures(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		app     string // added to [rollout]
		hurt    func(h *fakeHost)
		outcome Outcome
		hosts   []string
	}{
		{"in the test", "", func(h *fakeHost) { h.sick = func(string) bool { return true } }, OutcomeFailed, []string{"pending 1", "failed 1"}},
		{"in the switch", "", func(h *fakeHost) { h.fault = &fault{kind: failing, op: "switch", nth: 1} }, OutcomeFailed, []string{"rolled back 1", "failed 1"}},
		{"without a proof of the switch", "", func(h *fakeHost) { h.fault = &fault{kind: unproven, op: "switch", nth: 1} }, OutcomeReturned, []string{"rolled back 1", "failed 1"}},
		{"in the verification", "", func(h *fakeHost) { h.answers = 503 }, OutcomeReturned, []string{"rolled back 1", "rolled back 1"}},
		{"in the switch, to stop", `on_failure = "stop"`, func(h *fakeHost) { h.fault = &fault{kind: failing, op: "switch", nth: 1} }, OutcomeMixed, []string{"switched 2", "failed 1"}},
		{"in the verification, to stop", `on_failure = "stop"`, func(h *fakeHost) { h.answers = 503 }, OutcomeMixed, []string{"verified 2", "switched 2"}},
		{"not reached", "", func(h *fakeHost) { h.refused = true }, OutcomeUnreachable, []string{"pending", "unreachable"}},
		{"gone in the switch", "", func(h *fakeHost) { h.fault = &fault{kind: lostAfter, op: "switch", nth: 1, gone: true} }, OutcomeMixed, []string{"rolled back 1", "unknown"}},
		{"it is unknown and did not switch", "", func(h *fakeHost) { h.fault = &fault{kind: unknownNot, op: "switch", nth: 1} }, OutcomeFailed, []string{"rolled back 1", "failed 1"}},
		{"it is unknown and did switch", "", func(h *fakeHost) { h.fault = &fault{kind: unknownDone, op: "switch", nth: 1} }, OutcomeDone, []string{"done 2", "done 2"}},
		{"no record from the switch on", "", func(h *fakeHost) { h.fault = &fault{kind: failing, op: "write", nth: 2, always: true} }, OutcomeMixed, []string{"rolled back 1", "switched 2"}},
		{"what is put away afterwards", "", func(h *fakeHost) { h.fault = &fault{kind: failing, op: "policy no", nth: 1, always: true} }, OutcomeDone, []string{"done 2", "done 2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, "[drain]", "[rollout]\n"+tt.app+"\n[drain]")
			w.must("1")
			h := w.hosts[1]
			tt.hurt(h)
			p := w.teal()
			res := p.deploy(t.Context(), "2")
			ended(t, res, tt.outcome, tt.hosts...)
			w.holds()
			h.heal()
			w.must("3")
			w.consistent("3")
			if t.Failed() {
				t.Log(p.story())
			}
		})
	}
}

func TestFirstReleaseServesOnWhenItsVerificationFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.hosts[0].answers = 503
	ended(t, w.teal().deploy(t.Context(), "1"), OutcomeMixed, "switched 1")
	w.holds()
	if v := w.hosts[0].version(t); v != "1" {
		t.Errorf("%q serves, want 1", v)
	}
}

func TestFirstReleaseThatFailsItsTestsLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.hosts[0].sick = func(string) bool { return true }
	ended(t, w.teal().deploy(t.Context(), "1"), OutcomeFailed, "failed", "pending")
	for _, h := range w.hosts {
		if got := h.versions(t); len(got) > 0 {
			t.Errorf("%s has containers of %v, want none", h.name, got)
		}
	}
	w.hosts[0].sick = nil
	w.must("2")
	w.consistent("2")
}

func TestGreenThatDiesBringsAllHostsBackWhileBlueLives(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, `delay = "200ms"`, `delay = "12s"`, `max = "5s"`, `max = "12s"`)
	w.must("1")
	for _, h := range w.hosts {
		h.watching = true
	}
	var dead time.Time
	w.hosts[0].sick = func(id string) bool {
		if w.hosts[1].version(t) != "2" || w.hosts[0].version(t) != "2" || !strings.Contains(strings.Join(w.hosts[0].calls, " "), "let") {
			return false
		}
		dead = time.Now()
		return true
	}
	p := w.teal()
	res := p.deploy(t.Context(), "2")
	ended(t, res, OutcomeReturned, "rolled back 1", "rolled back 1")
	if took := res.Ended.Sub(dead); took > 10*time.Second {
		t.Errorf("the hosts were back %s after green had died\n%s", took, p.story())
	}
	w.quiet()
	w.consistent("1")
	for _, h := range w.hosts {
		if kept := h.state(t).Kept; len(kept) > 0 {
			t.Errorf("%s keeps %s, want nothing: what failed is no release to go back to", h.name, kept[0].Version)
		}
	}
}

func TestHostWhoseBlueIsGoneStaysOnGreen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.must("1")
	// Blue of the first host stays, for the run cannot let go of it.
	w.hosts[0].fault = &fault{kind: failing, op: "let", nth: 1}
	w.hosts[0].sick = func(string) bool { return slices.Equal(w.hosts[1].versions(t), []string{"2"}) }
	res := w.teal().deploy(t.Context(), "2")
	ended(t, res, OutcomeMixed, "rolled back 1", "verified 2")
	if err := res.Hosts[1].Err; err == nil || !strings.Contains(err.Error(), "blue is gone") {
		t.Errorf("the error is %v, want one that says that blue is gone", err)
	}
	w.hosts[0].heal()
	w.must("3")
	w.consistent("3")
}

func TestReleaseWithoutAContainerIsReplaced(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		what string
	}{{"gone", ""}, {"exited", "running"}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.must("1")
			h := w.hosts[0]
			h.watching = false // nothing serves, until this run
			ids, err := filepath.Glob(filepath.Join(h.dir, "containers", "*"))
			if err != nil || len(ids) != 1 {
				t.Fatal(ids, err)
			}
			if err := os.RemoveAll(filepath.Join(ids[0], tt.what)); err != nil {
				t.Fatal(err)
			}
			ended(t, w.teal().deploy(t.Context(), "1"), OutcomeDone, "done 1")
			w.quiet()
			w.consistent("1")

			// There is no blue to go back to from a bad one.
			h.watching = false
			ids, _ = filepath.Glob(filepath.Join(h.dir, "containers", "*"))
			if err := os.RemoveAll(filepath.Join(ids[0], tt.what)); err != nil {
				t.Fatal(err)
			}
			h.answers = 503
			ended(t, w.teal().deploy(t.Context(), "2"), OutcomeMixed, "switched 2")
			w.holds()
		})
	}
}

func TestOnlyHostThatDeploysFailsBesideOnesThatAreUpToDate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, "[drain]", "[rollout]\nmax_failed = 1\n[drain]")
	w.must("1")
	h := w.hosts[1]
	h.watching = false
	ids, _ := filepath.Glob(filepath.Join(h.dir, "containers", "*"))
	if err := os.Remove(filepath.Join(ids[0], "running")); err != nil {
		t.Fatal(err)
	}
	h.fault = &fault{kind: failing, op: "create", nth: 1}
	// The first host has something to be put right all the same.
	left := plugins.Spec{Name: "left", Labels: map[string]string{LabelApp: "shop", LabelRelease: "old", LabelSlot: string(proxy.Blue)}}
	c := &fakeConn{host: w.hosts[0], teal: w.teal(), done: make(chan struct{})}
	if _, err := (fakeRuntime{}).Create(t.Context(), c, left); err != nil {
		t.Fatal(err)
	}
	ended(t, w.teal().deploy(t.Context(), "1"), OutcomeFailed, "skipped 1", "failed 1")
	if got := w.hosts[0].versions(t); len(got) != 1 {
		t.Errorf("the left-over container stays: %v", got)
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		op      string
		outcome Outcome
		hosts   []string
		history string
	}{
		{"while it creates", "create", OutcomeAborted, []string{"pending 1", "pending 1"}, "aborted"},
		{"while it tests", "selftest", OutcomeAborted, []string{"pending 1", "pending 1"}, "aborted"},
		{"in the switch, which is finished", "switch", OutcomeAborted, []string{"done 2", "done 2"}, "done"},
		{"while it verifies", "dial", OutcomeAborted, []string{"done 2", "done 2"}, "done"},
		{"while it lets go of blue", "policy no", OutcomeAborted, []string{"done 2", "done 2"}, "done"},
		{"at the last moment", "append", OutcomeDone, []string{"done 2", "done 2"}, "done"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2)
			w.must("1")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.hosts[0].fault = &fault{kind: interrupt, op: tt.op, nth: 1, happens: cancel}
			p := w.teal()
			res := p.deploy(ctx, "2", detached)
			ended(t, res, tt.outcome, tt.hosts...)
			w.quiet()
			w.consistent(strings.Fields(tt.hosts[0])[1])
			histories, err := w.teal().History(t.Context(), w.req, 1)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range histories {
				if e := h.Entries[0]; e.Result != tt.history || e.Run != res.Run || e.Version != "2" {
					t.Errorf("%s remembers %q of %s, want %q", h.Host, e.Result, e.Version, tt.history)
				}
			}
		})
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	newRolledOut := func(t *testing.T, replace ...string) *world {
		w := newWorld(t, 2, replace...)
		w.must("1")
		w.must("2")
		return w
	}
	t.Run("later, by new containers", func(t *testing.T) {
		t.Parallel()
		w := newRolledOut(t)
		res, _ := w.rollback("")
		ended(t, res, OutcomeDone, "done 1", "done 1")
		w.quiet()
		w.consistent("1")
		if n := strings.Count(strings.Join(w.hosts[0].ran, " "), "migrate"); n != 2 {
			t.Errorf("install.once has run %d times, want 2: not for a return", n)
		}
	})
	t.Run("at once, while blue lives", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 2, `delay = "200ms"`, `delay = "8s"`, `max = "5s"`, `max = "8s"`)
		w.must("1")
		ended(t, w.teal().deploy(t.Context(), "2", detached), OutcomeDone)
		for _, h := range w.hosts {
			h.calls = nil
		}
		res, p := w.rollback("")
		ended(t, res, OutcomeDone, "done 1", "done 1")
		for _, h := range w.hosts {
			if slices.Contains(h.calls, "create") || slices.Contains(h.calls, "pull") {
				t.Errorf("%s made a container: %v\n%s", h.name, h.calls, p.story())
			}
		}
		w.quiet()
		w.consistent("1")
	})
	t.Run("at once, and one host fails", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 2, `delay = "200ms"`, `delay = "8s"`, `max = "5s"`, `max = "8s"`)
		w.must("1")
		ended(t, w.teal().deploy(t.Context(), "2", detached), OutcomeDone)
		w.hosts[1].fault = &fault{kind: failing, op: "switch", nth: 1}
		res, p := w.rollback("")
		if ended(t, res, OutcomeFailed, "rolled back 2", "failed 2"); t.Failed() {
			t.Log(p.story())
		}
		w.quiet() // the teardown that was cancelled goes on
		w.consistent("2")
	})
	t.Run("at once, and one host fails and then falls silent", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 2, `delay = "200ms"`, `delay = "8s"`, `max = "5s"`, `max = "8s"`)
		w.must("1")
		ended(t, w.teal().deploy(t.Context(), "2", detached), OutcomeDone)
		w.hosts[1].fault = &fault{kind: failing, op: "switch", nth: 1, next: &fault{kind: stuck, op: "arm", nth: 1}}
		res, p := w.rollback("")
		if ended(t, res, OutcomeFailed, "rolled back 2", "failed 2"); t.Failed() {
			t.Log(p.story())
		}
		w.hosts[1].heal()
		w.must("3")
		w.consistent("3")
	})
	t.Run("to a named release", func(t *testing.T) {
		t.Parallel()
		w := newRolledOut(t)
		w.must("3")
		res, _ := w.rollback("1", detached)
		ended(t, res, OutcomeDone, "done 1", "done 1")
		w.quiet()
		w.consistent("1")
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		w := newRolledOut(t)
		for release, want := range map[string]string{"7": `no release "7": it has 1`, "2": "serves 2 already"} {
			res, _ := w.rollback(release)
			if ended(t, res, OutcomeUsage); !strings.Contains(fmt.Sprint(res.Err), want) {
				t.Errorf("to %s: %v, want %q", release, res.Err, want)
			}
		}
		one := w.req.Hosts[:1]
		w.teal().deploy(t.Context(), "3", detached, func(r *Request) { r.Hosts = one })
		w.quiet()
		res, _ := w.rollback("")
		if ended(t, res, OutcomeUsage); !strings.Contains(fmt.Sprint(res.Err), "do not agree on what came before") {
			t.Errorf("hosts that do not agree: %v", res.Err)
		}
		w.holds()
	})
}

func TestSlotThatIsStillInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := net.Dial("tcp", l.Addr().String()) // to blue, for the container's process is this one
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	w := newWorld(t, 1, "port = 7", fmt.Sprintf("port = %d", l.Addr().(*net.TCPAddr).Port), `max = "5s"`, `max = "1m"`)
	w.teal().deploy(t.Context(), "1")
	res := w.teal().deploy(t.Context(), "2")
	ended(t, res, OutcomeDone, "done 2")
	if !strings.Contains(res.Hosts[0].Teardown, "when its connection") {
		t.Errorf("the teardown waits for %q", res.Hosts[0].Teardown)
	}
	res = w.teal().deploy(t.Context(), "3")
	if ended(t, res, OutcomeFailed, "failed 2"); !strings.Contains(fmt.Sprint(res.Hosts[0].Err), "--end-drain") {
		t.Errorf("the refusal is %v, want the way out", res.Hosts[0].Err)
	}
	res = w.teal().deploy(t.Context(), "3", detached, func(r *Request) { r.EndDrain = true })
	ended(t, res, OutcomeDone, "done 3")
	w.holds()
}

func TestLockIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, "[install]", "secrets = { NAME = { command = [\"echo\", \"ann@desk\"] } }\n[install]")
	w.must("1")
	c := &fakeConn{Host: plugins.Host(nil), host: w.hosts[1], teal: w.teal(), done: make(chan struct{})}
	conn, err := c.teal.dial(t.Context(), w.req.Hosts[1])
	if err != nil {
		t.Fatal(err)
	}
	lock, err := c.teal.Store.Acquire(t.Context(), conn, "shop", record.Owner{By: "bob@desk", PID: 7, Run: "r9", Command: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	res := w.teal().deploy(t.Context(), "2")
	if ended(t, res, OutcomeLocked, "pending", "pending"); !strings.Contains(fmt.Sprint(res.Err), "bob@desk") {
		t.Errorf("the refusal does not name the holder: %v", res.Err)
	}
	if err := lock.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	// No secret that stands in the holder's name makes another outcome of it.
	lock, err = c.teal.Store.Acquire(t.Context(), conn, "shop", record.Owner{By: "ann@desk", PID: 7, Run: "r9", Command: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	res = w.teal().deploy(t.Context(), "2")
	if ended(t, res, OutcomeLocked); strings.Contains(fmt.Sprint(res.Err), "ann@desk") {
		t.Errorf("the secret is in %v", res.Err)
	}
	if err := lock.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.must("2") // the lock of the first host was given back
}

func TestReturnWhoseReleaseHasJustLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, `delay = "200ms"`, `delay = "8s"`, `max = "5s"`, `max = "8s"`)
	w.must("1")
	ended(t, w.teal().deploy(t.Context(), "2", detached), OutcomeDone)
	// Between the plan and the switch the host removes what was to come back.
	w.hosts[0].fault = &fault{kind: interrupt, op: "prepare", nth: 1, happens: w.quiet}
	res, _ := w.rollback("")
	ended(t, res, OutcomeFailed, "failed 2")
	if err := res.Hosts[0].Err; err == nil || !strings.Contains(err.Error(), "roll back again") {
		t.Errorf("the error is %v, want the way out", err)
	}
	w.consistent("2")
	w.hosts[0].heal()
	res, _ = w.rollback("")
	ended(t, res, OutcomeDone, "done 1")
}
