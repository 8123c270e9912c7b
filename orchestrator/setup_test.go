package orchestrator

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

func TestSetupBeforeTheFirstDeployment(t *testing.T) {
	t.Parallel()
	for _, balancers := range []int{0, 2} {
		w := newBalancedWorld(t, 2, balancers)
		w.req.Version = "1"
		names := []string{"web1", "web2"}
		if balancers > 0 {
			names = []string{"lb1", "lb2"}
		}
		looked := func(what string, apply, missing, changed bool) {
			t.Helper()
			got, err := w.teal().Setup(t.Context(), w.req, apply)
			if err != nil {
				t.Fatal(err)
			}
			var want []ProxySetup
			for _, name := range names {
				want = append(want, ProxySetup{Host: name, Missing: missing, Changed: changed})
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		looked("before", false, true, false)
		looked("applied", true, false, true)
		looked("after", false, false, false)
		looked("applied again", true, false, false)
		w.must("1")
		w.consistent("1")
		looked("behind a release", false, false, false)
	}
}

func TestSetupSaysWhichProxyRefuses(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 1, 2)
	w.lbs[0].fault = &fault{kind: failing, op: "check", nth: 1}
	got, err := w.teal().Setup(t.Context(), w.req, true)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if lb1, lb2 := got[0], got[1]; lb1.Err == nil || !lb1.Missing || lb1.Changed || lb2.Err != nil || lb2.Missing || !lb2.Changed {
		t.Errorf("%+v", got)
	}
}

func TestSetupNeedsEveryHost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"web2", "lb2"} {
		w := newBalancedWorld(t, 2, 2)
		w.host(name).refused = true
		if got, err := w.teal().Setup(t.Context(), w.req, true); OutcomeOf(err) != OutcomeUnreachable {
			t.Errorf("without %s: %+v, %v", name, got, err)
		}
		if n := w.lbs[0].count("prepare"); n > 0 {
			t.Errorf("without %s the other load balancer was prepared", name)
		}
	}
}

func TestSetupWaitsForNobody(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 1, 1)
	w.req.Version = "1"
	other := w.teal()
	r := other.newRun("deploy", w.req)
	if err := errors.Join(r.begin(t.Context()), r.connect(t.Context())); err != nil {
		t.Fatal(err)
	}
	defer r.close(t.Context())
	if got, err := w.teal().Setup(t.Context(), w.req, true); OutcomeOf(err) != OutcomeLocked {
		t.Errorf("beside a deployment: %+v, %v", got, err)
	}
	if got, err := w.teal().Setup(t.Context(), w.req, false); err != nil || len(got) != 1 {
		t.Errorf("looking needs no lock: %+v, %v", got, err)
	}
}

func TestOutcomeOfAnError(t *testing.T) {
	refused := &plugins.Error{Op: "connect", Host: "lb1", Kind: plugins.Unavailable}
	tests := []struct {
		err  error
		want Outcome
	}{
		{&UsageError{errors.New("no")}, OutcomeUsage},
		{fmt.Errorf("setup: %w", &record.HeldError{}), OutcomeLocked},
		{errors.Join(refused, &unreachedError{refused}), OutcomeUnreachable},
		{&balancerError{"lb1", true, refused}, OutcomeUnreachable},
		{&balancerError{"lb1", false, refused}, OutcomeFailed},
		{refused, OutcomeFailed},
		{errors.New("no"), OutcomeInternal},
	}
	for _, tt := range tests {
		if got := OutcomeOf(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
