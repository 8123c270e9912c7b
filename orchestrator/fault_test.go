package orchestrator

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
)

// TestMain lets many worlds wait at the same time: that costs little.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "16")
	}
	os.Exit(m.Run())
}

// TestWhateverHappensAtAnyCall does a deployment of release 2 over release 1
// on two hosts, once for every call that teal makes on one of them and for
// everything that may happen at it.
func TestWhateverHappensAtAnyCall(t *testing.T) {
	t.Parallel()
	template := newWorld(t, 2)
	template.must("1")
	clean := template.copy(t)
	clean.must("2")
	clean.eachFault(t, func(t *testing.T, host int, f *fault) {
		w := template.copy(t)
		w.survives(host, f, "1", "2", func(ctx context.Context, p *teal) Result { return p.deploy(ctx, "2", detached) })
	})
}

// TestWhateverHappensAtAnyCallOfAReturn is the same for a rollback while blue
// lives.
func TestWhateverHappensAtAnyCallOfAReturn(t *testing.T) {
	t.Parallel()
	draining := func(t *testing.T) *world {
		w := newWorld(t, 2, `delay = "200ms"`, `delay = "8s"`, `max = "5s"`, `max = "8s"`)
		w.must("1")
		ended(t, w.teal().deploy(t.Context(), "2", detached), OutcomeDone)
		for _, h := range w.hosts {
			h.calls = nil
		}
		return w
	}
	back := func(ctx context.Context, p *teal) Result {
		req := p.w.req
		req.Detach = true
		return p.wait(func() Result { return p.Rollback(ctx, req, "") })
	}
	clean := draining(t)
	ended(t, back(t.Context(), clean.teal()), OutcomeDone, "done 1", "done 1")
	clean.eachFault(t, func(t *testing.T, host int, f *fault) {
		if f.nth%6 != 0 && os.Getenv("TEAL_EVERY_FAULT") == "" {
			t.Skip("one call in six; set TEAL_EVERY_FAULT for all of them")
		}
		draining(t).survives(host, f, "2", "1", back)
	})
}

// eachFault calls test for every fault at every call that was made on the
// world's hosts. What may happen is the same on both hosts, and behind a call
// what it is before the next: all of it comes with TEAL_EVERY_FAULT.
func (w *world) eachFault(t *testing.T, test func(t *testing.T, host int, f *fault)) {
	every := os.Getenv("TEAL_EVERY_FAULT") != ""
	for i, h := range w.hosts {
		for n, op := range h.calls {
			for k, kind := range []faultKind{failing, lostAfter, stuck, diesAfter, lostBefore, interrupt, diesBefore} {
				if !every && (k > 3 || (n+k)%2 != i) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d %s/%s", h.name, n+1, op, kind), func(t *testing.T) {
					t.Parallel()
					test(t, i, &fault{kind: kind, nth: n + 1})
				})
			}
		}
	}
}

// survives runs what brings the hosts from release blue to release green, with
// a fault on one of them, and then a deployment without one.
func (w *world) survives(host int, f *fault, blue, green string, run func(context.Context, *teal) Result) {
	w.t.Helper()
	w.survivesAt(w.hosts[host], f, blue, green, run)
}

// survivesAt is survives with a fault on a server or a load balancer.
func (w *world) survivesAt(h *fakeHost, f *fault, blue, green string, run func(context.Context, *teal) Result) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f.happens = cancel
	h.fault = f
	p := w.teal()
	res := run(ctx, p)
	w.holds()
	if res.Outcome != outcomeDied {
		w.fits(res, blue, green)
		w.cleaned(res)
	}
	h.heal()
	w.must("3")
	w.consistent("3")
	if w.t.Failed() {
		w.t.Logf("the result was %s: %s", res.Outcome, explain(res))
		if res.Outcome != outcomeDied {
			w.t.Logf("events: %s", p.story())
		}
	}
}

// fits fails the test unless the result of a run from release before to
// release after says what is so.
func (w *world) fits(res Result, before, after string) {
	w.t.Helper()
	n := map[HostState]int{}
	green, troubled := 0, 0
	for i, h := range res.Hosts {
		serves := w.hosts[i].version(w.t)
		n[h.State]++
		if serves == after {
			green++
		}
		if h.Err != nil {
			troubled++
		}
		want := before
		switch h.State {
		case Done, Switched, Verified:
			want = after
		case Unknown:
			continue
		default:
		}
		// Of a host that was not looked at nothing is said.
		early := h.Version == "" && (h.State == Pending || h.Step == StepConnect)
		if serves != want || h.Version != want && !early {
			w.t.Errorf("%s is %s and said to serve %s: it serves %s, want %s", h.Host, h.State, h.Version, serves, want)
		}
	}
	all := len(res.Hosts)
	ok := false
	switch res.Outcome {
	case OutcomeDone:
		ok = n[Done] == all && troubled == 0
	case OutcomeFailed:
		ok = green == 0 && n[Unknown] == 0
	case OutcomeReturned:
		ok = n[RolledBack] == all
	case OutcomeUnreachable:
		_, balancer := errors.AsType[*balancerError](res.Err)
		unverified := len(w.lbs) > 0 && green == all // one was lost behind its switch
		ok = (troubled > 0 || balancer || unverified) && (green == 0 || green == all) && n[Unknown] == 0
	case OutcomeAborted:
		ok = n[Unknown] == 0 && (green == 0 || green == all)
	case OutcomeMixed:
		ok = n[Unknown] > 0 || green > 0 && (troubled > 0 || green < all)
	default:
	}
	if !ok {
		w.t.Errorf("the outcome is %q: %s", res.Outcome, explain(res))
	}
}

// cleaned fails the test unless every host soon has only the containers of
// what it serves. Hosts that need a decision keep what they have.
func (w *world) cleaned(res Result) {
	w.t.Helper()
	w.quiet()
	for i, h := range w.hosts {
		if want := []string{h.version(w.t)}; res.Outcome != OutcomeMixed && !slices.Equal(h.versions(w.t), want) {
			w.t.Errorf("%s is %s and has containers of %v, want %v", h.name, res.Hosts[i].State, h.versions(w.t), want)
		}
	}
}

func (p *teal) story() string {
	text := ""
	for _, e := range p.events {
		text += fmt.Sprintf("\n%s %s %s %s %v", e.Host, e.Step, e.Status, e.Text, e.Err)
	}
	return text
}
