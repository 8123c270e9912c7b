//go:build linux

package lab_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
)

// held returns a change of the app file to a canary whose shares last until
// there is a file of their name in dir, and a client with a cookie stays on a
// side.
func held(dir, shares string) func(string) string {
	return func(text string) string {
		text = lab.Set("rollout.canary", shares)(brisk(text))
		text = lab.Set("rollout.watch", `"1s"`)(text)
		text = lab.Set("rollout.sticky", `"cookie:client"`)(text)
		return lab.Set("rollout.check", fmt.Sprintf(`["until [ -e '%s/'$TEAL_SHARE ]; do sleep 0.05; done"]`, dir))(text)
	}
}

// share returns the percent that an event says a canary gets, or 0.
func share(e event) int {
	_, text, _ := strings.Cut(e.Text, " gets ")
	percent, _, found := strings.Cut(text, " % of the requests")
	n, err := strconv.Atoi(percent)
	if !found || err != nil {
		return 0
	}
	return n
}

// canaryFleet is a fleet on which release 0 serves under light load.
func canaryFleet(t *testing.T, c lab.Config) (*fleet, *stress) {
	t.Helper()
	f := newFleet(t, c, brisk, lab.Set("rollout.canary", "[]"), lab.Set("rollout.sticky", `"cookie:client"`))
	f.deploy("0")
	clients := map[load.Class]int{load.KeepAlive: 12 / len(f.Fronts()), load.Post: 8 / len(f.Fronts())}
	return f, f.stress(clients, 15*time.Minute, func(c *load.Config) { c.Pause = 5 * time.Millisecond })
}

func TestCanary(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]lab.Config{
		lab.Nginx:   {Hosts: 1, Proxy: lab.Nginx},
		lab.HAProxy: {Hosts: 2, Balancers: 2, Proxy: lab.HAProxy},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f, s := canaryFleet(t, c)
			for _, tt := range []struct {
				name string
				test func(*fleet, *stress)
			}{
				{"gets its shares", (*fleet).canaryGetsItsShares},
				{"is refused by a check", (*fleet).canaryIsRefused},
				{"is interrupted", (*fleet).canaryIsInterrupted},
				{"loses its teal", (*fleet).canaryLosesItsTeal},
			} {
				t.Run(tt.name, func(t *testing.T) {
					f.t = t
					tt.test(f, s)
				})
			}
			f.t = t
			s.end(t)
			t.Run("dies", func(t *testing.T) {
				f.t = t
				f.canaryDies()
			})
		})
	}
}

// window is a time in which a canary has its share everywhere.
type window struct{ from, to time.Time }

// holding deploys a release with canaries that last for as long as during
// takes.
func (f *fleet) holding(shares, version string, during func(percent int)) (ended, map[int]window) {
	f.t.Helper()
	dir := f.t.TempDir()
	f.edit(held(dir, shares))
	f.publish(version, "")
	windows, told := map[int]window{}, map[int]int{}
	e := f.finish(f.command(f.t.Context(), "deploy", "--version", version), func(e event) {
		n := share(e)
		if told[n]++; n == 0 || told[n] < len(f.Hosts()) {
			return
		}
		w := window{from: time.Now()}
		during(n)
		w.to = time.Now()
		windows[n] = w
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), nil, 0o600); err != nil {
			f.t.Error(err)
		}
	})
	return e, windows
}

func (f *fleet) canaryGetsItsShares(s *stress) {
	e, windows := f.holding(`["5%", "25%"]`, "1", func(percent int) {
		requests, _ := s.rec.Count()
		enough := requests + map[int]int{5: 10500, 25: 3000}[percent]
		f.eventually(2*time.Minute, "enough requests", func() bool {
			requests, _ := s.rec.Count()
			return requests > enough
		})
		if percent == 25 {
			f.cookiesKeepTheirSide("0", "1")
		}
	})
	f.must(e)
	for percent, most := range map[int]float64{5: 1, 25: 4} {
		answers := s.rec.Answers(windows[percent].from, windows[percent].to)
		all := answers["0"] + answers["1"]
		got := 100 * float64(answers["1"]) / float64(all)
		f.t.Logf("%.2f %% of %d requests were answered by the canary of %d %%", got, all, percent)
		if got < float64(percent)-most || got > float64(percent)+most {
			f.t.Errorf("a canary of %d %% answered %.2f %% of %d requests", percent, got, all)
		}
	}
	f.only("1")
}

// cookiesKeepTheirSide asks with many cookies, several times each.
func (f *fleet) cookiesKeepTheirSide(sides ...string) {
	f.t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	seen := map[string]int{}
	for i := range 40 {
		first := ""
		for n := range 6 {
			front := f.Fronts()[n%len(f.Fronts())]
			req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, "http://"+front.Addr.String()+"/up", http.NoBody)
			if err != nil {
				f.t.Fatal(err)
			}
			req.AddCookie(&http.Cookie{Name: "client", Value: "somebody-" + strconv.Itoa(i)})
			resp, err := client.Do(req)
			if err != nil {
				f.t.Fatal(err)
			}
			_ = resp.Body.Close()
			got := resp.Header.Get("X-Release")
			if first == "" {
				first = got
				seen[got]++
			}
			if got != first {
				f.t.Errorf("client %d came from %s to %s", i, first, got)
			}
		}
	}
	for _, side := range sides {
		if seen[side] == 0 {
			f.t.Errorf("of 40 clients none is on the side of %s: %v", side, seen)
		}
	}
}

func (f *fleet) canaryIsRefused(s *stress) {
	f.edit(brisk, lab.Set("rollout.canary", `["5%", "25%"]`), lab.Set("rollout.watch", `"500ms"`),
		lab.Set("rollout.sticky", `"cookie:client"`), lab.Set("rollout.check", `["test $TEAL_SHARE -lt 25"]`))
	began := time.Now()
	f.publish("2", "")
	e := f.run(nil, "deploy", "--version", "2")
	f.want(e, 9)
	if e.result.Outcome != "returned" || !strings.Contains(e.result.Error, "rollout.check") {
		f.t.Errorf("the outcome is %q: %s", e.result.Outcome, e.result.Error)
	}
	back := time.Now()
	f.only("1")
	if n := s.rec.Answers(began, back)["2"]; n == 0 {
		f.t.Error("the canary got no request at all")
	}
	time.Sleep(300 * time.Millisecond)
	if n := s.rec.Answers(back, time.Now())["2"]; n > 0 {
		f.t.Errorf("the canary answered %d requests after it was taken back", n)
	}
}

func (f *fleet) canaryIsInterrupted(*stress) {
	f.edit(held(f.t.TempDir(), `["50%"]`))
	f.publish("3", "")
	e := f.killAt(syscall.SIGINT, func(e event) bool { return share(e) == 50 }, "deploy", "--version", "3")
	f.want(e, 8)
	f.only("1")
}

func (f *fleet) canaryLosesItsTeal(*stress) {
	f.edit(held(f.t.TempDir(), `["50%"]`))
	f.publish("4", "")
	f.killAt(syscall.SIGKILL, func(e event) bool { return share(e) == 50 }, "deploy", "--version", "4")
	time.Sleep(5 * time.Second) // drain.max and more: both have requests
	for _, h := range f.Hosts() {
		if got := f.containers(h); len(got) != 2 {
			f.t.Errorf("containers on %s are %v: each of two has requests", h, got)
		}
	}
	f.want(f.run(nil, "status"), 6)
	f.edit(brisk, lab.Set("rollout.canary", "[]"), lab.Set("rollout.sticky", `"cookie:client"`))
	f.deploy("5")
	f.only("5")
}

// canaryDies deploys a release that passes its tests and dies with a share of
// the requests. Only what it was given may fail.
func (f *fleet) canaryDies() {
	f.edit(brisk, lab.Set("rollout.canary", `["5%"]`), lab.Set("rollout.watch", `"40s"`), lab.Set("rollout.sticky", `"cookie:client"`))
	f.publish("6", "dies 15") // long after its tests, on a slow machine too
	s := f.stress(light(), 2*time.Minute)
	var from time.Time
	e := f.run(func(e event) {
		if share(e) == 5 && from.IsZero() {
			from = e.Time
		}
	}, "deploy", "--version", "6")
	back := time.Now()
	f.want(e, 9)
	s.cancel()
	<-s.done
	f.only("5")
	answers := s.rec.Answers(from, back)
	_, failed := s.rec.Count()
	f.t.Logf("of the requests in the canary %v were answered, %d failed", answers, failed)
	report := s.rec.Report()
	if most := (answers["5"] + answers["6"] + failed) * 8 / 100; failed > most {
		f.t.Errorf("%d requests failed, more than the canary's share", failed)
	}
	for _, failure := range report.Failures {
		if failure.Time.Before(from) || failure.Time.After(back) {
			f.t.Errorf("a request outside of the canary failed: %s", failure.Text)
		}
	}
}

// only fails the test unless a release serves everywhere, by itself.
func (f *fleet) only(version string) {
	f.t.Helper()
	for _, h := range f.Fronts() {
		for range 10 {
			if got := f.serves(h); got != version {
				f.t.Fatalf("through %s %s serves, want %s", h, got, version)
			}
		}
	}
	f.must(f.run(nil, "status"))
	for _, h := range f.Hosts() {
		f.eventually(15*time.Second, "one container is left on "+h.Name, func() bool { return len(f.containers(h)) == 1 })
	}
}
