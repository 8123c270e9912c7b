package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

func TestEventsComeInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.must("1")
	p := w.teal()
	res := p.deploy(t.Context(), "2")
	order := append([]Step{StepConnect}, Steps()...)
	at, started := map[string]int{}, map[string]bool{}
	for i, e := range p.events {
		if e.Run != res.Run || e.Time.IsZero() || i > 0 && e.Time.Before(p.events[i-1].Time) {
			t.Errorf("event %d is of run %q at %s", i, e.Run, e.Time)
		}
		if e.Host == "" {
			continue
		}
		step := slices.Index(order, e.Step)
		if step < at[e.Host] {
			t.Errorf("%s says %s %s behind %s", e.Host, e.Step, e.Status, order[at[e.Host]])
		}
		at[e.Host] = step
		key := e.Host + string(e.Step)
		switch e.Status {
		case StatusStarted:
			started[key] = true
		case StatusDone:
			if !started[key] {
				t.Errorf("%s is done with %s and has not started it", e.Host, e.Step)
			}
		default:
		}
	}
	if len(at) != 3 {
		t.Errorf("events are of hosts %v, want three", at)
	}
}

// withHooks makes a world whose hooks write their names and what they are told
// into a file next to the app file.
func withHooks(t *testing.T, before string) *world {
	t.Helper()
	const note = `printf '%s\\n' \"$TEAL_HOOK $TEAL_COMMAND $TEAL_APP $TEAL_VERSION $TEAL_BY\" >>hooks.log`
	var b strings.Builder
	b.WriteString("[hooks]\n")
	for _, name := range []string{"before_deploy", "after_switch", "after_deploy", "on_failure"} {
		lines := []string{note}
		if name == "before_deploy" && before != "" {
			lines = append(lines, before)
		}
		fmt.Fprintf(&b, "%s = [\"%s\"]\n", name, strings.Join(lines, `", "`))
	}
	return newWorld(t, 2, "[drain]", b.String()+"[drain]")
}

// hooks returns what the hooks have written, and forgets it.
func (w *world) hooks() []string {
	path := filepath.Join(filepath.Dir(w.hosts[0].dir), "hooks.log")
	data, _ := os.ReadFile(path) // none: no hook has run
	_ = os.Remove(path)
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestHooks(t *testing.T) {
	t.Parallel()
	w := withHooks(t, "")
	w.must("1")
	want := []string{
		"before_deploy deploy shop 1 ann@desk", "after_switch deploy shop 1 ann@desk", "after_deploy deploy shop 1 ann@desk",
	}
	if diff := cmp.Diff(want, w.hooks()); diff != "" {
		t.Errorf("hooks of a deployment (-want +got):\n%s", diff)
	}
	ended(t, w.teal().deploy(t.Context(), "1"), OutcomeNothing)
	if got := w.hooks(); len(got[0]) > 0 {
		t.Errorf("hooks of nothing to do: %v", got)
	}
	w.hosts[1].sick = func(string) bool { return true }
	ended(t, w.teal().deploy(t.Context(), "2"), OutcomeFailed)
	if diff := cmp.Diff([]string{"before_deploy deploy shop 2 ann@desk", "on_failure deploy shop 2 ann@desk"}, w.hooks()); diff != "" {
		t.Errorf("hooks of a deployment that failed (-want +got):\n%s", diff)
	}
}

func TestHookBeforeADeploymentCanForbidIt(t *testing.T) {
	t.Parallel()
	w := withHooks(t, "")
	w.must("1")
	w.hooks()
	w.edit("before_deploy = [", `before_deploy = ["echo no s3cr3t, exit >&2; exit 3", `)
	for _, h := range w.hosts {
		h.calls = nil
	}
	p := w.teal()
	res := p.deploy(t.Context(), "2")
	if ended(t, res, OutcomeFailed, "pending 1", "pending 1"); !strings.Contains(fmt.Sprint(res.Err), "hooks.before_deploy") {
		t.Errorf("the error is %v", res.Err)
	}
	if diff := cmp.Diff([]string{"on_failure deploy shop 2 ann@desk"}, w.hooks()); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	for _, h := range w.hosts {
		if slices.Contains(h.calls, "create") {
			t.Errorf("%s: something was created", h.name)
		}
	}
	if !strings.Contains(p.story(), "before_deploy: no s3cr3t") {
		t.Errorf("what the hook printed is in no event: %s", p.story())
	}
}

func TestSecretsAreInNoEventAndNoResult(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "[install]", "secrets = { TOKEN = { file = \"token\" } }\n[install]")
	if err := os.WriteFile(filepath.Join(filepath.Dir(w.hosts[0].dir), "token"), []byte("s3cr3t-value\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.teal()
	ended(t, p.deploy(t.Context(), "1"), OutcomeDone)
	if strings.Contains(p.story(), "s3cr3t-value") || !strings.Contains(p.story(), "with [redacted]") {
		t.Errorf("events: %s", p.story())
	}
	ids, _ := filepath.Glob(filepath.Join(w.hosts[0].dir, "containers", "*", "spec"))
	if data, err := os.ReadFile(ids[0]); err != nil || !strings.Contains(string(data), `"TOKEN":"s3cr3t-value"`) {
		t.Errorf("the container has no secret: %s %v", data, err)
	}
	w.hosts[0].sick = func(string) bool { return true }
	p = w.teal()
	res := p.deploy(t.Context(), "2")
	ended(t, res, OutcomeFailed, "failed 1")
	if text := p.story() + fmt.Sprintf("%+v", res); strings.Contains(text, "s3cr3t-value") || !strings.Contains(text, "fatal: [redacted]") {
		t.Errorf("events and result: %s", text)
	}
	root := os.DirFS(filepath.Join(w.hosts[0].dir, "root", "shop"))
	for _, name := range []string{"state.json", "history.jsonl"} {
		f, err := root.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 1<<20)
		n, _ := f.Read(data)
		_ = f.Close()
		if n == 0 || strings.Contains(string(data[:n]), "s3cr3t") {
			t.Errorf("%s: %s", name, data[:n])
		}
	}
}

func TestRedactedErrorIsRedactedAgain(t *testing.T) {
	r := newRedactor([]string{"s3cr3t-value"})
	err := r.err(&plugins.Error{Op: "s3cr3t-value", Kind: plugins.Lost})
	err = r.err(fmt.Errorf("again s3cr3t-value: %w", err))
	if got := err.Error(); got != "again [redacted]: [redacted]: lost" || !errors.Is(err, plugins.Lost) {
		t.Errorf("got %q of kind lost %v", got, errors.Is(err, plugins.Lost))
	}
}

func TestStatusSaysWhatDoesNotAgree(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	h := w.hosts[0]
	status := func() HostStatus {
		t.Helper()
		fleet, err := w.teal().Status(t.Context(), w.req)
		if err != nil || len(fleet.Hosts) != 1 {
			t.Fatal(fleet, err)
		}
		return fleet.Hosts[0]
	}
	if s := status(); s.Recorded != nil || s.Err != nil || s.Problem != "" {
		t.Errorf("a host of nothing: %+v", s)
	}
	w.must("1")
	s := status()
	if s.Recorded.Version != "1" || s.Disk != s.Live || s.Disk != string(s.Recorded.Slot) || s.Running != 1 || s.Problem != "" || s.Holder != nil {
		t.Errorf("all is well: %+v", s)
	}
	serving := s.Recorded.Slot
	for _, tt := range []struct {
		want   string
		damage func()
		mend   func()
	}{
		{"the record says " + string(serving), func() { _ = h.setRoute("disk", "web1", serving.Other().All()) }, func() { _ = h.setRoute("disk", "web1", serving.All()) }},
		{"the proxy is told " + string(serving), func() { _ = h.setRoute("live", "web1", serving.Other().All()) }, func() { _ = h.setRoute("live", "web1", serving.All()) }},
		{"the record says release " + s.Recorded.ID + ", the proxy serves somebody's", func() { _ = h.setNames("web1", map[proxy.Slot]string{serving: "somebody's"}) }, func() {
			_ = h.setNames("web1", map[proxy.Slot]string{serving: s.Recorded.ID})
		}},
		{"0 containers of 1 container run", func() { h.watching = false; _ = os.Rename(h.running(t), h.running(t)+".not") }, func() {
			_ = os.Rename(h.running(t)+".not", h.running(t))
		}},
	} {
		tt.damage()
		if s := status(); !strings.HasPrefix(s.Problem, tt.want) {
			t.Errorf("the problem is %q, want %q", s.Problem, tt.want)
		}
		tt.mend()
	}
	p := w.teal()
	h.fault = &fault{kind: diesAfter, op: "switch", nth: 1}
	ended(t, p.deploy(t.Context(), "2"), outcomeDied)
	h.heal()
	w.eventually("the lock is free", func() bool { return status().Holder == nil })
	if s := status(); !strings.HasPrefix(s.Problem, "a run died while it switched") || s.Pending == "" && s.Running > 0 {
		t.Errorf("behind a run that died: %+v", s)
	}
	h.refused = true
	if s := status(); !errors.Is(s.Err, plugins.Unavailable) {
		t.Errorf("a host that is not reached: %+v", s)
	}
}

// running is the file that is there while the only container runs.
func (h *fakeHost) running(t *testing.T) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(h.dir, "containers", "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	return filepath.Join(dirs[0], "running")
}

func TestPlanTouchesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.must("1")
	for _, h := range w.hosts {
		h.calls = nil
	}
	w.hosts[2].refused = true
	req := w.req
	req.Version = "2"
	plan, err := w.teal().Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !plan.Hosts[0].Deploys() || !plan.Hosts[1].Deploys() || plan.Hosts[2].Err == nil || plan.Version != "2" {
		t.Errorf("the plan is %s", plan)
	}
	for _, h := range w.hosts {
		for _, op := range h.calls {
			if !slices.Contains([]string{"connect", "pull", "observe", "probe", "list", "ask", "check"}, op) {
				t.Errorf("the plan does %q on %s", op, h.name)
			}
		}
	}
	w.hosts[2].refused = false
	w.consistent("1")
}

// TestOutcomeOfEveryCombination goes through all states of two hosts, and all
// ways in which a run may end early.
func TestWarningsOfTheRuntimeAreShown(t *testing.T) {
	t.Parallel()
	const warning = "nothing starts the containers after a reboot"
	w := newWorld(t, 2)
	w.host("web2").warns = []string{warning}
	req := w.req
	req.Version = "1"
	plan, err := w.teal().Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	web1, web2, _ := strings.Cut(plan.String(), "web2:")
	if line := "\n  warning   " + warning + "\n"; strings.Contains(web1, line) || !strings.Contains(web2, line) {
		t.Errorf("the plan is\n%s", plan)
	}
	p := w.teal()
	if res := p.deploy(t.Context(), "1", detached); res.Outcome != OutcomeDone {
		t.Fatal(explain(res))
	}
	var said []string
	for _, e := range p.events {
		if e.Status == StatusWarning {
			said = append(said, fmt.Sprintf("%s %s %s", e.Host, e.Step, e.Text))
		}
	}
	if diff := cmp.Diff([]string{"web2 connect " + warning}, said); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestRuntimeOfAnAppStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.must("1")
	w.edit(`app = "shop"`, "app = \"shop\"\nruntime = \"podman\"")
	before := len(w.hosts[0].calls)
	for name, outcome := range map[string]Outcome{"deploy": w.teal().deploy(t.Context(), "2").Outcome, "rollback": first(w.rollback("")).Outcome} {
		if outcome == OutcomeDone {
			t.Errorf("%s did something with containers of another runtime", name)
		}
	}
	status, err := w.teal().Status(t.Context(), w.req)
	if err != nil || !errors.Is(status.Hosts[0].Err, plugins.Unsupported) {
		t.Errorf("status: %v, %v", err, status.Hosts[0].Err)
	}
	for _, call := range w.hosts[0].calls[before:] {
		if call == "probe" || call == "list" || call == "create" {
			t.Errorf("the wrong runtime was asked to %s", call)
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

func TestOutcomeOfEveryCombination(t *testing.T) {
	lost, bad := &plugins.Error{Kind: plugins.Lost}, errors.New("failed")
	type stand struct {
		name  string
		state HostState
		err   error
		green bool // it serves the new release
	}
	stands := []stand{
		{"pending", Pending, nil, false},
		{"ready", Ready, nil, false},
		{"skipped", Skipped, nil, false},
		{"failed", Failed, bad, false},
		{"unreachable", Unreachable, lost, false},
		{"unknown", Unknown, lost, false},
		{"rolled back", RolledBack, nil, false},
		{"done", Done, nil, true},
		{"switched", Switched, nil, true},
		{"switched, then lost", Switched, lost, true},
		{"verified, then lost", Verified, lost, true},
		{"switched, then failed", Verified, bad, true},
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, a := range stands {
		for _, b := range stands {
			for _, end := range []struct {
				name    string
				err     error
				aborted bool
			}{{"to its end", nil, false}, {"too many", errTooMany, false}, {"aborted", canceled.Err(), true}, {"other", bad, false}} {
				ctx := t.Context()
				if end.aborted {
					ctx = canceled
				}
				r := &run{hosts: []*hostRun{{state: a.state, err: a.err}, {state: b.state, err: b.err}}}
				o := r.outcome(ctx, end.err)
				is := func(s HostState) bool { return a.state == s || b.state == s }
				mixed := a.green != b.green && !is(Skipped)
				wrong := ""
				switch {
				case is(Unknown) && o != OutcomeMixed:
					wrong = "nobody knows what serves"
				case (a.green && errors.Is(a.err, bad) || b.green && errors.Is(b.err, bad)) && o != OutcomeMixed:
					wrong = "a host serves what failed"
				case mixed && end.err != nil && !is(Unreachable) && o != OutcomeMixed:
					wrong = "two releases serve, and the run gave up"
				case o == OutcomeDone && (a.err != nil || b.err != nil || end.err != nil):
					wrong = "it is not done"
				case o == OutcomeNothing && (a.name != "skipped" || b.name != "skipped"):
					wrong = "something was to be done"
				case o == OutcomeAborted && (!end.aborted || mixed && !is(Unreachable)):
					wrong = "it was not aborted, or is not safe"
				case o == OutcomeFailed && end.err == nil && !is(Failed) && !is(RolledBack):
					wrong = "no host failed"
				case o == OutcomeUnreachable && !errors.Is(a.err, plugins.Lost) && !errors.Is(b.err, plugins.Lost):
					wrong = "all hosts were reached"
				case o == OutcomeReturned:
					wrong = "no switch was taken back"
				}
				if wrong != "" {
					t.Errorf("%s and %s, %s: %q, but %s", a.name, b.name, end.name, o, wrong)
				}
			}
		}
	}
	for _, tt := range []struct {
		err  error
		want Outcome
		code int
	}{
		{&UsageError{ErrNoHosts}, OutcomeUsage, 2},
		{fmt.Errorf("joined: %w", &record.HeldError{}), OutcomeLocked, 7},
	} {
		if o := (&run{}).outcome(t.Context(), tt.err); o != tt.want || o.Code() != tt.code {
			t.Errorf("%v: %q with code %d, want %q with %d", tt.err, o, o.Code(), tt.want, tt.code)
		}
	}
	r := &run{returned: bad, hosts: []*hostRun{{state: RolledBack, err: bad}, {state: RolledBack}}}
	if o := r.outcome(t.Context(), errTooMany); o != OutcomeReturned || o.Code() != 9 {
		t.Errorf("all hosts went back: %q", o)
	}
}

func TestWaitingIsDoneOnAllHostsAtTheSameTime(t *testing.T) {
	const hosts = 1000
	var all atomic.Int32
	reached := make(chan struct{})
	r := &run{d: &Deployer{}}
	for range hosts {
		r.hosts = append(r.hosts, &hostRun{state: Switched, host: host{conn: &fakeConn{done: make(chan struct{})}}})
	}
	err := r.carryOut(t.Context(), stage{step: StepTeardown, waits: true, do: func(context.Context, *hostRun) error {
		if all.Add(1) == hosts {
			close(reached)
		}
		<-reached
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	var now, most atomic.Int32
	each(r.hosts, func(*hostRun) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return nil
	})
	if most.Load() > atOnce {
		t.Errorf("%d hosts were worked on at the same time, want at most %d", most.Load(), atOnce)
	}
}
