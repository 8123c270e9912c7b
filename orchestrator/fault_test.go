package orchestrator

import (
	"context"
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
	for i, h := range clean.hosts {
		for n, op := range h.calls {
			for k, kind := range []faultKind{failing, lostAfter, stuck, diesAfter, lostBefore, interrupt, diesBefore} {
				// What may happen is the same on both hosts, and behind a call
				// what it is before the next.
				if all := os.Getenv("TEAL_EVERY_FAULT") != ""; !all && (k > 3 || (n+k)%2 != i && len(h.calls) > n) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d %s/%s", h.name, n+1, op, kind), func(t *testing.T) {
					t.Parallel()
					w := template.copy(t)
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					w.hosts[i].fault = &fault{kind: kind, nth: n + 1, happens: cancel}
					p := w.teal()
					res := p.deploy(ctx, "2", detached)
					w.holds()
					if res.Outcome != outcomeDied {
						w.fits(res)
						w.cleaned(res)
					}
					w.hosts[i].heal()
					w.must("3")
					w.consistent("3")
					if t.Failed() {
						t.Logf("the result was %s: %s", res.Outcome, explain(res))
						if res.Outcome != outcomeDied {
							t.Logf("events: %s", p.story())
						}
					}
				})
			}
		}
	}
}

// fits fails the test unless a result says what is so.
func (w *world) fits(res Result) {
	w.t.Helper()
	n := map[HostState]int{}
	green, troubled := 0, 0
	for i, h := range res.Hosts {
		serves := w.hosts[i].version(w.t)
		n[h.State]++
		if serves == "2" {
			green++
		}
		if h.Err != nil {
			troubled++
		}
		want := "1"
		switch h.State {
		case Done, Switched, Verified:
			want = "2"
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
		ok = troubled > 0 && (green == 0 || green == all) && n[Unknown] == 0
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
// what it serves.
func (w *world) cleaned(res Result) {
	w.t.Helper()
	w.quiet()
	for i, h := range w.hosts {
		if want := []string{h.version(w.t)}; res.Hosts[i].State != Unknown && !slices.Equal(h.versions(w.t), want) {
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
