package orchestrator

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/spec"
)

const canaryRollout = "[rollout]\ncanary = [\"5%\", \"25%\"]\nwatch = \"200ms\"\n[drain]"

// shares are what a proxy was told for a member, one after the other.
func (h *fakeHost) shares(member string) []proxy.Share {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.told[member])
}

func TestCanaryGetsItsSharesOneAfterTheOther(t *testing.T) {
	t.Parallel()
	for _, balancers := range []int{0, 2} {
		w := newBalancedWorld(t, 2, balancers, "[drain]", canaryRollout)
		w.must("1") // a first release has nobody to share with
		proxies := w.lbs
		if balancers == 0 {
			proxies = w.hosts[1:]
		}
		w.must("2")
		w.consistent("2")
		for _, p := range proxies {
			want := []proxy.Share{100, 95, 75, 0} // the first release is in green
			if diff := cmp.Diff(want, p.shares("web2")); diff != "" {
				t.Errorf("%s was told (-want +got):\n%s", p.name, diff)
			}
		}
		file, err := spec.Parse("teal.toml", []byte(w.app), spec.Options{Canary: []string{"50%"}})
		if err != nil {
			t.Fatal(err)
		}
		ended(t, w.teal().deploy(t.Context(), "3", func(r *Request) { r.File = file }), OutcomeDone)
		if got := proxies[0].shares("web2"); !slices.Equal(got[4:], []proxy.Share{50, 100}) {
			t.Errorf("asked for 50 %%, %s was told %v", proxies[0].name, got[4:])
		}
		w.quiet()
		w.consistent("3")
	}
}

func TestCanaryThatTurnsBadGetsNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		app     string
		hurt    func(w *world)
		outcome Outcome
		hosts   []string
	}{
		{
			"falls ill", "", func(w *world) {
				h := w.hosts[1]
				p := h.proxies()[0]
				h.sick = func(string) bool {
					share, _ := p.share("live", h.name)
					return share > 0 && share < 100
				}
			}, OutcomeReturned, []string{"pending 1", "failed 1"},
		},
		{"a check says no", "check = [\"test $TEAL_SHARE -lt 25\"]\n", func(*world) {}, OutcomeReturned, []string{"pending 1", "pending 1"}},
		{
			"a proxy refuses the larger share", "", func(w *world) {
				w.all()[len(w.all())-1].fault = &fault{kind: failing, op: "switch", nth: 2}
			}, OutcomeReturned, nil,
		},
		{
			"a proxy refuses the whole", "", func(w *world) {
				w.all()[len(w.all())-1].fault = &fault{kind: failing, op: "switch", nth: 3}
			}, OutcomeFailed, nil,
		},
	} {
		for _, balancers := range []int{0, 2} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				w := newBalancedWorld(t, 2, balancers, "[drain]", strings.Replace(canaryRollout, "[drain]", tt.app+"[drain]", 1))
				w.must("1")
				tt.hurt(w)
				p := w.teal()
				res := p.deploy(t.Context(), "2")
				ended(t, res, tt.outcome, tt.hosts...)
				for _, h := range w.all() {
					h.heal()
				}
				w.quiet()
				w.consistent("1")
				if t.Failed() {
					t.Log(explain(res), p.story())
				}
			})
		}
	}
}

func TestInterruptedCanaryGetsNothing(t *testing.T) {
	t.Parallel()
	w := newBalancedWorld(t, 2, 2, "[drain]", strings.Replace(canaryRollout, "200ms", "30s", 1))
	w.must("1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := w.teal()
	ended := make(chan Result, 1)
	go func() { ended <- p.deploy(ctx, "2") }()
	w.eventually("green has its share", func() bool { return len(w.lbs[0].shares("web1")) > 1 && len(w.lbs[1].shares("web1")) > 1 })
	cancel()
	if res := <-ended; res.Outcome != OutcomeAborted {
		t.Errorf("the outcome is %q: %s", res.Outcome, explain(res))
	}
	w.quiet()
	w.consistent("1")
}

func TestCanaryOfADeadTealIsTakenBackByTheNextCommand(t *testing.T) {
	t.Parallel()
	for _, balancers := range []int{0, 2} {
		w := newBalancedWorld(t, 2, balancers, "[drain]", strings.Replace(canaryRollout, "200ms", "30s", 1))
		w.must("1")
		p := w.teal()
		go p.deploy(context.Background(), "2")
		first := w.all()[len(w.all())-1]
		w.eventually("green has its share", func() bool { return len(first.shares("web2")) > 1 })
		time.Sleep(100 * time.Millisecond) // on all proxies
		p.die()
		w.eventually("the lock is free and status tells of the share", func() bool {
			s, err := w.teal().Status(t.Context(), w.req)
			return err == nil && s.Hosts[1].Holder == nil && strings.Contains(s.Hosts[1].Problem, "puts that right")
		})
		w.holds()
		w.edit(`canary = ["5%", "25%"]`, `canary = ["50%"]`, `watch = "30s"`, `watch = "100ms"`)
		w.must("3")
		w.consistent("3")
	}
}

func TestReplicasAreASlotTogether(t *testing.T) {
	t.Parallel()
	for _, balancers := range []int{0, 2} {
		w := newBalancedWorld(t, 2, balancers)
		layout := func() string {
			h := w.all()[len(w.all())-1]
			data, err := os.ReadFile(filepath.Join(h.dir, "proxy", "layout"))
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		w.must("1")
		for _, step := range []struct{ version, from, to string }{{"2", "port = 7", "port = 7\nreplicas = 3"}, {"3", "", ""}, {"4", "replicas = 3", "replicas = 1"}} {
			if step.from != "" {
				w.edit(step.from, step.to)
			}
			w.must(step.version)
			w.holds()
			n := 3
			if step.version == "4" {
				n = 1
			}
			for _, h := range w.hosts {
				if got := h.versions(t); !slices.Equal(got, slices.Repeat([]string{step.version}, n)) {
					t.Errorf("%s has containers of %v, want %d of %s", h.name, got, n, step.version)
				}
			}
		}
		before := layout()
		w.must("5")
		w.must("6")
		now := layout()
		w.must("7")
		if now != layout() || before == now {
			t.Errorf("the configuration changes again and again, or never:\n%s\n%s\n%s", before, now, layout())
		}
	}
}

func TestReplicaThatIsSickFailsTheTest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "port = 7", "port = 7\nreplicas = 3", `within = "10s"`, `within = "1s"`)
	w.must("1")
	w.hosts[0].sick = func(id string) bool { return strings.HasSuffix(id, "-2") }
	res := w.teal().deploy(t.Context(), "2")
	ended(t, res, OutcomeFailed, "failed 1")
	if err := res.Hosts[0].Err; err == nil || !strings.Contains(err.Error(), "replica 2: ") {
		t.Errorf("error %v does not name the replica", err)
	}
	w.quiet()
	if got := w.hosts[0].versions(t); !slices.Equal(got, []string{"1", "1", "1"}) {
		t.Errorf("there are containers of %v", got)
	}
}

func TestSetupPutsItsPartOnceAndServesNothing(t *testing.T) {
	t.Parallel()
	for _, balancers := range []int{0, 2} {
		w := newBalancedWorld(t, 2, balancers)
		set := func(apply bool) (missing, changed int) {
			t.Helper()
			list, err := w.teal().Setup(t.Context(), w.req, apply)
			if err != nil || len(list) != 2 {
				t.Fatal(list, err)
			}
			for _, s := range list {
				if s.Err != nil {
					t.Error(s.Host, s.Err)
				}
				if s.Missing {
					missing++
				}
				if s.Changed {
					changed++
				}
			}
			return missing, changed
		}
		if m, c := set(false); m != 2 || c != 0 {
			t.Errorf("a look: %d missing, %d changed", m, c)
		}
		if m, c := set(true); m != 0 || c != 2 {
			t.Errorf("the first time: %d missing, %d changed", m, c)
		}
		if m, c := set(true); m != 0 || c != 0 {
			t.Errorf("the second time: %d missing, %d changed", m, c)
		}
		p := w.all()[len(w.all())-1]
		if share, known := p.share("disk", "web2"); !known || share != proxy.Off {
			t.Errorf("before the first deployment %s does %s", p.name, share)
		}
		w.must("1")
		w.consistent("1")
		if m, c := set(true); m != 0 || c != 0 {
			t.Errorf("behind a deployment: %d missing, %d changed", m, c)
		}
		w.consistent("1")
	}
	worker := newWorld(t, 1, "port = 7\n", "", "[proxy]\ntype = \"nginx\"\nverify = { http = \"http://shop.example.com/up\" }\n", "")
	_, err := worker.teal().Setup(t.Context(), worker.req, true)
	if usage := (*UsageError)(nil); !errors.As(err, &usage) {
		t.Errorf("error %v for a worker", err)
	}
}
