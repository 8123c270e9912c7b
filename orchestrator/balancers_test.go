package orchestrator

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// members are those that a load balancer has in its configuration.
func (h *fakeHost) members(t *testing.T) []string {
	t.Helper()
	var l proxy.Layout
	data, err := os.ReadFile(filepath.Join(h.dir, "proxy", "layout"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range l.Members {
		names = append(names, m.Name)
	}
	return names
}

// count is how often teal made a call on the host.
func (h *fakeHost) count(op string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, c := range h.calls {
		if c == op {
			n++
		}
	}
	return n
}

func TestLoadBalancersSwitchTogether(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 3, 2)
	for _, version := range []string{"1", "2", "3"} {
		ended(t, w.teal().deploy(t.Context(), version), OutcomeDone, "done "+version, "done "+version, "done "+version)
		w.quiet()
		w.consistent(version)
	}
	for _, lb := range w.lbs {
		if diff := cmp.Diff([]string{"web1", "web2", "web3"}, lb.members(t)); diff != "" {
			t.Errorf("%s has the members (-want +got):\n%s", lb.name, diff)
		}
		if got := lb.count("switch"); got != 3 {
			t.Errorf("%s was switched %d times in three deployments of three servers", lb.name, got)
		}
	}
	fleet, err := w.teal().Status(t.Context(), w.req)
	if err != nil || len(fleet.Balancers) != 2 {
		t.Fatal(fleet, err)
	}
	for _, lb := range fleet.Balancers {
		for i, m := range lb.Members {
			if id := fleet.Hosts[i].Recorded.ID; m.Version != "3" || m.Release != id {
				t.Errorf("%s serves %s (%s) of %s, want 3 (%s)", lb.Host, m.Version, m.Release, m.Name, id)
			}
		}
	}
	ended(t, w.teal().deploy(t.Context(), "3"), OutcomeNothing)
	res, _ := w.rollback("", detached)
	ended(t, res, OutcomeDone, "done 2", "done 2", "done 2")
	w.quiet()
	w.consistent("2")
}

func TestReturnBehindLoadBalancersIsInstantWhileBlueLives(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 2, 2, `delay = "200ms"`, `delay = "8s"`, `max = "5s"`, `max = "8s"`)
	w.must("1")
	ended(t, w.teal().deploy(t.Context(), "2", detached), OutcomeDone)
	for _, h := range w.hosts {
		h.calls = nil
	}
	res, _ := w.rollback("", detached)
	ended(t, res, OutcomeDone, "done 1", "done 1")
	for _, h := range w.hosts {
		if n := h.count("create"); n > 0 || h.version(t) != "1" {
			t.Errorf("%s: %d containers were made, %s serves", h.name, n, h.version(t))
		}
	}
	w.holds()
}

func TestLimitedDeploymentLeavesTheOtherMembers(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 3, 2)
	w.must("1")
	ended(t, w.teal().deploy(t.Context(), "2", func(r *Request) { r.Hosts = r.Hosts[1:2] }), OutcomeDone, "done 2")
	w.quiet()
	w.holds()
	var got []string
	for _, h := range w.hosts {
		got = append(got, h.version(t))
	}
	if diff := cmp.Diff([]string{"1", "2", "1"}, got); diff != "" {
		t.Errorf("served (-want +got):\n%s", diff)
	}
	for _, lb := range w.lbs {
		if n := len(lb.members(t)); n != 3 {
			t.Errorf("%s has %d members", lb.name, n)
		}
	}
	w.must("3")
	w.consistent("3")
}

func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 3, 2)
	two := func(r *Request) { r.Hosts, r.Servers = r.Hosts[:2], r.Servers[:2] }
	ended(t, w.teal().deploy(t.Context(), "1", two), OutcomeDone, "done 1", "done 1")
	ended(t, w.teal().deploy(t.Context(), "1"), OutcomeDone, "skipped 1", "skipped 1", "done 1")
	w.consistent("1")
	ended(t, w.teal().deploy(t.Context(), "1", two), OutcomeNothing)
	for _, lb := range w.lbs {
		if diff := cmp.Diff([]string{"web1", "web2"}, lb.members(t)); diff != "" {
			t.Errorf("%s has the members (-want +got):\n%s", lb.name, diff)
		}
	}
}

func TestNewLoadBalancerIsToldWhatTheOthersDo(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 2, 2)
	one := func(r *Request) { r.Balancers = r.Balancers[:1] }
	ended(t, w.teal().deploy(t.Context(), "1", one, detached), OutcomeDone)
	ended(t, w.teal().deploy(t.Context(), "2", one, detached), OutcomeDone)
	plan, err := w.teal().Plan(t.Context(), w.request("2"))
	if err != nil {
		t.Fatal(err)
	}
	if text := plan.String(); !plan.Changes() || !strings.Contains(text, "lb2:\n  configure") || strings.Contains(text, "lb1:") {
		t.Errorf("the plan is\n%s", text)
	}
	w.quiet()
	ended(t, w.teal().deploy(t.Context(), "2"), OutcomeNothing)
	w.consistent("2")
}

func (w *world) request(version string) Request {
	req := w.req
	req.Version = version
	return req
}

func TestOneLoadBalancerThatIsMissingEndsTheRunBeforeItBegins(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 2, 2)
	w.must("1")
	w.lbs[1].refused = true
	for _, h := range w.hosts {
		h.calls = nil
	}
	res := w.teal().deploy(t.Context(), "2")
	ended(t, res, OutcomeUnreachable, "pending", "pending")
	if res.Err == nil || !strings.Contains(res.Err.Error(), "load balancer lb2") {
		t.Errorf("error %v does not name the load balancer", res.Err)
	}
	for _, h := range w.hosts {
		if h.count("create") > 0 {
			t.Errorf("a container was made on %s", h.name)
		}
	}
	w.lbs[1].heal()
	w.must("3")
	w.consistent("3")
}

func TestLoadBalancersAreOneDecision(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		fault   fault
		outcome Outcome
		hosts   string
		mixed   bool // what serves is to be found out
	}{
		{"one refuses", fault{kind: failing, op: "switch", nth: 1}, OutcomeFailed, "failed 1", false},
		{"one does not prove it", fault{kind: unproven, op: "switch", nth: 1}, OutcomeReturned, "failed 1", false},
		{"one is lost before it switches and comes back", fault{kind: lostBefore, op: "switch", nth: 1}, OutcomeFailed, "failed 1", false},
		{"one is lost behind its switch and comes back", fault{kind: lostAfter, op: "switch", nth: 1}, OutcomeFailed, "failed 1", false},
		{"one does not know whether it switched", fault{kind: unknownDone, op: "switch", nth: 1}, OutcomeFailed, "failed 1", false},
		{"one is gone for good in its switch", fault{kind: lostAfter, op: "switch", nth: 1, gone: true}, OutcomeMixed, "unknown", true},
		{"one is gone right before the switch", fault{kind: lostAfter, op: "prepare", nth: 1, gone: true}, OutcomeUnreachable, "pending 1", false},
		{"one is gone while green is made", fault{kind: lostAfter, op: "check", nth: 1, gone: true}, OutcomeUnreachable, "pending", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newBalancedWorld(t, 2, 3)
			w.must("1")
			w.lbs[1].fault = &tt.fault
			p := w.teal()
			p.switching = p.undoing
			res := p.deploy(t.Context(), "2")
			ended(t, res, tt.outcome, tt.hosts, tt.hosts)
			w.holds()
			if !tt.mixed {
				w.quiet()
				w.consistent("1")
			}
			w.lbs[1].heal()
			w.must("3")
			w.consistent("3")
			if t.Failed() {
				t.Log(explain(res), p.story())
			}
		})
	}
}

// TestLoadBalancersGoBackEachForItself loses one of them for good when all are
// to leave a green that fell ill.
func TestLoadBalancersGoBackEachForItself(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 2, 3)
	w.must("1") // in green
	w.lbs[0].answers = 503
	w.lbs[1].fault = &fault{kind: lostBefore, op: "switch", nth: 2, gone: true}
	w.lbs[2].fault = &fault{kind: failing, op: "switch", nth: 2}
	p := w.teal()
	p.switching = 6 * time.Second
	res := p.deploy(t.Context(), "2")
	ended(t, res, OutcomeMixed, "unknown", "unknown")
	w.holds()
	for i, want := range []proxy.Share{100, 0, 100} {
		if told := w.lbs[i].shares("web1"); told[len(told)-1] != want {
			t.Errorf("%s was told %v, want %s in the end", w.lbs[i].name, told, want)
		}
	}
	if t.Failed() {
		t.Log(explain(res), p.story())
	}
	for _, lb := range w.lbs {
		lb.heal()
	}
	w.must("3")
	w.consistent("3")
}

func TestLoadBalancerThatIsLostBehindItsSwitchDoesNotSpeakAgainstGreen(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		w := newBalancedWorld(t, 2, 2)
		w.must("1")
		w.lbs[1].fault = &fault{kind: lostBefore, op: "dial", nth: 1, gone: gone} // to be verified
		p := w.teal()
		ended(t, p.deploy(t.Context(), "2"), OutcomeUnreachable, "done 2", "done 2")
		if !strings.Contains(p.story(), "could not be verified") {
			t.Errorf("nothing is said: %s", p.story())
		}
		w.lbs[1].heal()
		w.quiet()
		w.consistent("2")
	}
}

// TestServersAskForOneLoadBalancerTogether has all servers look again through a
// load balancer that was lost and came back: one connection serves them all.
func TestServersAskForOneLoadBalancerTogether(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 4, 2)
	w.must("1")
	w.lbs[1].fault = &fault{kind: lostAfter, op: "switch", nth: 1, next: &fault{kind: lostAfter, op: "switch", nth: 1}}
	w.lbs[1].calls = nil
	res := w.teal().deploy(t.Context(), "2")
	ended(t, res, OutcomeFailed, "failed 1", "failed 1", "failed 1", "failed 1")
	if n := w.lbs[1].count("connect"); n != 3 {
		t.Errorf("lb2 was connected to %d times, want 3", n)
	}
	w.lbs[1].heal()
	w.quiet()
	w.consistent("1")
	w.must("3")
	w.consistent("3")
}

func TestVerificationThroughOneLoadBalancerFails(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 2, 2)
	w.must("1")
	w.lbs[1].answers = 503
	ended(t, w.teal().deploy(t.Context(), "2"), OutcomeReturned, "rolled back 1", "rolled back 1")
	w.quiet()
	w.consistent("1")
}

func TestGreenThatFallsIllBehindLoadBalancersMeansBlue(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 2, 2, `delay = "200ms"`, `delay = "8s"`, `max = "5s"`, `max = "8s"`)
	w.must("1")
	h := w.hosts[1]
	tests := 0
	h.sick = func(string) bool { tests++; return tests > 3 }
	ended(t, w.teal().deploy(t.Context(), "2"), OutcomeReturned, "rolled back 1", "rolled back 1")
	h.heal()
	w.quiet()
	w.consistent("1")
}

func TestGreenThatFallsIllIsLeftByTheLoadBalancersThatCan(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 2, 3, `delay = "200ms"`, `delay = "8s"`, `max = "5s"`, `max = "8s"`)
	w.must("1")
	gone := w.lbs[1]
	h := w.hosts[1]
	tests := 0
	h.sick = func(string) bool {
		if tests++; tests == 4 {
			gone.mu.Lock()
			gone.fault = &fault{kind: lostBefore, nth: 1, always: true, gone: true}
			gone.mu.Unlock()
		}
		return tests > 4
	}
	p := w.teal()
	ended(t, p.deploy(t.Context(), "2"), OutcomeMixed, "unknown", "unknown")
	w.holds()
	for _, lb := range []*fakeHost{w.lbs[0], w.lbs[2]} {
		if got := lb.shares("web2"); got[len(got)-1] != got[0] {
			t.Errorf("%s does %v", lb.name, got)
		}
	}
	h.heal()
	gone.heal()
	w.must("3")
	w.consistent("3")
	if t.Failed() {
		t.Log(p.story())
	}
}

// TestWhateverHappensBehindLoadBalancers does a deployment of release 2 over
// release 1 on two servers behind two load balancers, once for calls that teal
// makes on a load balancer or a server and for what may happen at them.
func TestWhateverHappensBehindLoadBalancers(t *testing.T) {
	t.Parallel()
	template := newBalancedWorld(t, 2, 2)
	template.must("1")
	clean := template.copy(t)
	clean.must("2")
	every := os.Getenv("TEAL_EVERY_FAULT") != ""
	for i, h := range clean.all() {
		if i%2 == 0 && !every {
			continue // the second server and the second load balancer
		}
		for n, op := range h.calls {
			for k, kind := range []faultKind{failing, lostAfter, stuck, diesAfter, lostBefore, interrupt, diesBefore} {
				if !every && (n+k)%5 != 0 {
					continue
				}
				t.Run(h.name+"/"+op+"/"+string(kind), func(t *testing.T) {
					t.Parallel()
					w := template.copy(t)
					w.survivesAt(w.all()[i], &fault{kind: kind, nth: n + 1}, "1", "2",
						func(ctx context.Context, p *teal) Result { return p.deploy(ctx, "2", detached) })
				})
			}
		}
	}
}
