//go:build linux

package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab/load"
)

// quick shortens what a test does not look at.
func quick(text string) string {
	return strings.NewReplacer(
		`delay = "10s"`, `delay = "2s"`,
		`within = "20s"`, "within = \"40s\"\nstable = \"1s\"\ninterval = \"300ms\"",
	).Replace(text)
}

func TestDeploymentsUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	f := newBusyFleet(t, hosts(2), load.Mix(), quick)
	f.deploy("0")
	s := f.stress(load.Mix(), 5*time.Minute)
	for _, version := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"} {
		e := f.deploy(version)
		s.switched(e)
		for _, h := range e.result.Hosts {
			if h.State != "done" || h.Version != version {
				t.Errorf("%s: %s, serves %s, want done and %s", h.Host, h.State, h.Version, version)
			}
		}
	}
	report := s.end(t)
	if len(report.Releases) < 2*10 {
		t.Errorf("only %d of the releases on two hosts answered", len(report.Releases))
	}
	for _, h := range f.Hosts() {
		f.eventually(30*time.Second, "only the last container is left on "+h.Name, func() bool { return len(f.containers(h)) == 1 })
	}
}

func TestFiftySwitchesUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	f := newBusyFleet(t, hosts(1), load.Mix(), func(text string) string {
		return strings.Replace(quick(text), `delay = "2s"`, `delay = "1m"`, 1)
	})
	f.deploy("1")
	f.deploy("2", "--detach")
	s := f.stress(load.Mix(), 5*time.Minute)
	want := "1"
	var slowest float64
	for range 50 {
		e := f.must(f.run(nil, "rollback", "--detach"))
		s.switched(e)
		h := e.result.Hosts[0]
		if h.Version != want {
			t.Fatalf("serves %s, want %s", h.Version, want)
		}
		slowest = max(slowest, h.SwitchMS)
		want = map[string]string{"1": "2", "2": "1"}[want]
	}
	s.end(t)
	t.Logf("the slowest switch took %.1f ms", slowest)
}

func TestBlueLeavesOnTime(t *testing.T) {
	eachEngine(t, func(t *testing.T, on runtimeRow) {
		env := func(mode string) func(string) string {
			return replace("[container]", "[container]\nenv = { MODE = \""+mode+"\" }")
		}
		f := newFleet(t, on.hosts(1), env("old"))
		f.deploy("1")
		f.edit(env("new"))
		e := f.deploy("2")
		h := e.result.Hosts[0]
		after := h.BlueGoneAt.Sub(h.SwitchedAt)
		t.Logf("blue was gone %s after the switch", after)
		if after < 10*time.Second || after > 14*time.Second {
			t.Errorf("blue was gone %s after the switch, want between 10 and 14 seconds", after)
		}
		if got := f.containers(f.Host(1)); len(got) != 1 {
			t.Errorf("containers are %v, want green alone", got)
		}

		// Nothing differs: nothing is done, and plan says the same.
		again := f.must(f.run(nil, "deploy", "--version", "2"))
		if again.result.Outcome != "nothing to do" {
			t.Errorf("outcome is %q, want nothing to do", again.result.Outcome)
		}
		f.must(f.run(nil, "plan", "--version", "2"))
		f.publish("3", "")
		plan := f.run(nil, "plan", "--version", "3")
		f.want(plan, 3)
		if !strings.Contains(plan.stdout, "version 2 → 3") {
			t.Errorf("plan does not say why:\n%s", plan.stdout)
		}
		if got := f.serves(f.Host(1)); got != "2" {
			t.Errorf("after a plan %s serves, want 2", got)
		}

		// Back to a release whose container is gone: it is made again, as it was.
		back := f.must(f.run(nil, "rollback"))
		if got := f.serves(f.Host(1)); got != "1" || back.result.Version != "1" {
			t.Errorf("after a rollback %s serves, want 1", got)
		}
		if got := f.environment(f.Host(1)); !strings.Contains(got, "MODE=old\n") {
			t.Errorf("the environment of release 1 did not come back: %s", got)
		}
		status := f.must(f.run(nil, "status"))
		for _, want := range []string{`"version":"1"`, `"disk":"green"`, `"live":"green"`} {
			if !strings.Contains(status.stdout, want) {
				t.Errorf("status lacks %s: %s", want, status.stdout)
			}
		}
		history := f.must(f.run(nil, "history"))
		if n := strings.Count(history.stdout, `"result":"done"`); n != 3 {
			t.Errorf("history has %d runs that are done, want 3: %s", n, history.stdout)
		}
	})
}

func TestOpenConnectionsEndWithDrainMax(t *testing.T) {
	t.Parallel()
	f := newFleet(t, hosts(1), func(text string) string {
		return strings.Replace(quick(text), `max = "2m"`, `max = "8s"`, 1)
	})
	f.deploy("1")
	s := f.stress(map[load.Class]int{load.Download: 1, load.WebSocket: 1}, time.Minute, func(c *load.Config) { c.Transfer = 40 * time.Second })
	time.Sleep(2 * time.Second)
	at := f.deploy("2", "--detach").result.Hosts[0].SwitchedAt
	for time.Since(at) < 7*time.Second {
		if _, failed := s.rec.Count(); failed > 0 || len(f.containers(f.Host(1))) != 2 {
			t.Fatalf("%s after the switch an open connection was cut, or blue is gone", time.Since(at))
		}
		time.Sleep(200 * time.Millisecond)
	}
	f.eventually(8*time.Second+10*time.Second+4*time.Second, "blue is gone after drain.max and its grace", func() bool {
		return len(f.containers(f.Host(1))) == 1
	})
	if got := f.serves(f.Host(1)); got != "2" {
		t.Errorf("%s serves, want 2", got)
	}
}

func TestOpenConnectionsKeepBlueUntilTheirEnd(t *testing.T) {
	t.Parallel()
	f := newFleet(t, hosts(1), func(text string) string {
		return strings.NewReplacer(`delay = "2s"`, `delay = "2s"`, `max = "2m"`, `max = "15s"`).Replace(quick(text))
	})
	f.deploy("1")
	s := f.stress(map[load.Class]int{load.Download: 2, load.WebSocket: 2}, time.Minute)
	time.Sleep(2 * time.Second)
	e := f.deploy("2", "--detach")
	s.switched(e)
	at := e.result.Hosts[0].SwitchedAt
	f.eventually(20*time.Second, "blue is gone", func() bool { return len(f.containers(f.Host(1))) == 1 })
	if after := time.Since(at); after < 2*time.Second {
		t.Errorf("blue was gone %s after the switch, with connections open", after)
	}
	s.end(t) // every download and every socket came to its own end
}

func TestInstantRollbackIsWatchedToItsEnd(t *testing.T) {
	t.Parallel()
	f := newFleet(t, hosts(1), func(text string) string {
		return strings.Replace(quick(text), `delay = "2s"`, `delay = "12s"`, 1)
	})
	f.deploy("1")
	s := f.stress(light(), time.Minute)
	e := f.deploy("2", "--detach")
	s.switched(e)
	e = f.must(f.run(nil, "rollback"))
	s.switched(e)
	h := e.result.Hosts[0]
	if h.Version != "1" || h.State != "done" || h.BlueGoneAt.IsZero() {
		t.Errorf("serves %s, %s, blue gone at %s; want 1, done and the other release gone", h.Version, h.State, h.BlueGoneAt)
	}
	for _, step := range e.events {
		if step.Step == "image" || step.Step == "code" || step.Step == "create" {
			t.Errorf("a rollback while blue lives had a step %s: %s", step.Step, step.Text)
		}
	}
	took := h.SwitchedAt.Sub(e.events[0].Time)
	t.Logf("the rollback took %s up to its switch", took)
	if took > 3*time.Second {
		t.Errorf("a rollback while blue lives took %s", took)
	}
	if got := f.containers(f.Host(1)); len(got) != 1 {
		t.Errorf("containers are %v, want the one that serves", got)
	}
	s.end(t)
}

func TestWorkerNeedsNoProxy(t *testing.T) {
	t.Parallel()
	f := newFleet(t, hosts(1), func(text string) string {
		before, _, _ := strings.Cut(text, "[code]")
		return before + `[container]
command = ["/bin/busybox", "sleep", "1000"]
[test]
stable = "1s"
[drain]
delay = "2s"
`
	})
	f.must(f.run(nil, "deploy", "--version", "1"))
	first := f.containers(f.Host(1))
	e := f.must(f.run(nil, "deploy", "--version", "2"))
	last := f.containers(f.Host(1))
	if len(first) != 1 || len(last) != 1 || first[0] == last[0] || e.result.Hosts[0].Version != "2" {
		t.Errorf("containers were %v and are %v, version %s; want another one, of version 2", first, last, e.result.Hosts[0].Version)
	}
	f.must(f.run(nil, "rollback"))
	f.must(f.run(nil, "status"))
	if again := f.containers(f.Host(1)); len(again) != 1 || again[0] == last[0] {
		t.Errorf("after a rollback containers are %v, before %v", again, last)
	}
}
