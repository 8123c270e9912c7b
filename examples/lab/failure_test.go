//go:build linux

package lab_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
)

// light is load that finds a lost request and leaves the machine some room.
func light() map[load.Class]int {
	return map[load.Class]int{load.KeepAlive: 2, load.Post: 2, load.Fresh: 1}
}

func TestBadReleasesLeaveBlueServing(t *testing.T) {
	eachEngine(t, func(t *testing.T, on runtimeRow) {
		f := newFleet(t, on.hosts(2), quick)
		f.deploy("good")
		s := f.stress(light(), 5*time.Minute)
		for _, tt := range []struct {
			name   string
			mode   string
			change func(string) string
			args   []string
			before func() (undo func())
			step   string
			say    string // in the report
		}{
			{name: "missing image", change: replace("shop:1", "shop:none"), say: "no such image"},
			{name: "wrong commit", change: replace(`ref = "main"`, `ref = "`+strings.Repeat("12", 20)+`"`), step: "code", say: "no such commit"},
			{name: "create fails", change: replace(`[container]`, "[container]\ncommand = [\"/no/such/program\"]"), step: "create", say: "/no/such/program"},
			{name: "port taken", before: func() func() { return f.occupy(1) }, step: "create", say: "is taken by another program"},
			{name: "install exits with 3", mode: "install-fails", step: "install", say: "exited with code 3"},
			{name: "test never passes", mode: "never-up", change: lab.Set("test.within", `"8s"`), step: "test", say: "GET /up: status 503"},
			{name: "test passes once, then green dies", mode: "dies 0.5", change: func(text string) string {
				return lab.Set("test.within", `"12s"`)(lab.Set("test.stable", `"3s"`)(text))
			}, step: "test", say: on.died},
		} {
			t.Run(tt.name, func(t *testing.T) {
				f.t = t
				if tt.before != nil {
					defer tt.before()()
				}
				f.edit(func(text string) string {
					text = quick(text)
					if tt.change != nil {
						text = tt.change(text)
					}
					return text
				})
				f.publish("bad-"+strings.ReplaceAll(tt.name, " ", "-"), tt.mode)
				e := f.run(nil, append([]string{"deploy", "--version", "bad"}, tt.args...)...)
				f.want(e, 4)
				if !strings.Contains(e.stdout, tt.say) {
					t.Errorf("the report lacks %q:\n%s", tt.say, e.stdout)
				}
				failed := 0
				for i, h := range e.result.Hosts {
					if h.State == "failed" {
						failed++
						if h.Step != tt.step || h.Error == "" {
							t.Errorf("%s failed in %q with %q, want step %q", h.Host, h.Step, h.Error, tt.step)
						}
						if ran := tt.step == "install" || tt.step == "test"; ran && len(h.Log) == 0 {
							t.Errorf("the report has no line of what green wrote on %s", h.Host)
						}
					}
					if got := f.serves(f.Host(i + 1)); got != "good" {
						t.Errorf("%s serves, want good", got)
					}
					if got := f.containers(f.Host(i + 1)); len(got) != 1 {
						t.Errorf("containers on %s are %v, want blue alone", h.Host, got)
					}
					out, err := f.Host(i+1).Exec(t.Context(), "sh", "-c", "ls /var/lib/teal/shop/releases | wc -l")
					if err != nil || strings.TrimSpace(out) != "1" {
						t.Errorf("%s has code of %s releases, want 1 (%v)", h.Host, strings.TrimSpace(out), err)
					}
				}
				if tt.step != "" && failed == 0 {
					t.Error("no host is reported as failed")
				}
			})
		}
		f.t = t
		s.end(t)
	})
}

func replace(from, to string) func(string) string {
	return func(text string) string { return strings.Replace(text, from, to, 1) }
}

// occupy takes the port of the free slot on a host.
func (f *fleet) occupy(host int) func() {
	f.t.Helper()
	h := f.Host(host)
	out, err := h.Exec(f.t.Context(), "sh", "-c", `sed -n 's/.*"blue":\[\([0-9]*\).*/\1/p' /var/lib/teal/shop/state.json | head -n 1`)
	if err != nil {
		f.t.Fatal(err)
	}
	port := strings.TrimSpace(out)
	if port == "" {
		f.t.Fatal("no port of blue in the record")
	}
	argv := []string{"--target", pid(h.PID()), "--net", "--", "busybox", "nc", "-l", "-p", port}
	cmd := exec.CommandContext(f.t.Context(), "nsenter", argv...)
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.eventually(5*time.Second, "the port is taken", func() bool {
		out, err := h.Exec(f.t.Context(), "ss", "-Hltn", "sport = :"+port)
		return err == nil && out != ""
	})
	return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
}

func TestGreenThatDiesInTheDrainWindowMeansBackToBlue(t *testing.T) {
	eachEngine(t, func(t *testing.T, on runtimeRow) {
		f := newFleet(t, on.hosts(2), func(text string) string {
			return strings.Replace(quick(text), `delay = "2s"`, `delay = "20s"`, 1)
		})
		f.deploy("good")
		s := f.stress(light(), 2*time.Minute)
		f.publish("bad", "dies 15") // long after its tests, on a slow machine too
		e := f.run(nil, "deploy", "--version", "bad")
		f.want(e, 9)
		if e.result.Outcome != "returned" {
			t.Errorf("outcome is %q", e.result.Outcome)
		}
		for _, h := range f.Hosts() {
			if got := f.serves(h); got != "good" {
				t.Errorf("%s serves from %s, want good", got, h.Name)
			}
		}
		s.cancel()
		<-s.done
		// What a dying green was answering is lost with it. Nothing is lost before
		// it dies, and nothing from the moment on that blue serves again.
		returned := map[string]time.Time{}
		for _, e := range e.events {
			if e.Step == "undo" && e.Status == "done" {
				returned[e.Host] = e.Time
			}
		}
		report := s.rec.Report()
		if report.Failed > len(report.Failures) {
			t.Errorf("%d requests failed", report.Failed)
		}
		for _, failure := range report.Failures {
			if back := returned[failure.Host]; failure.Time.After(back) || failure.Time.Before(back.Add(-5*time.Second)) {
				t.Errorf("a request at %s failed, blue served again at %s: %s", failure.Time, back, failure.Text)
			}
		}
		f.eventually(40*time.Second, "green is gone", func() bool { return len(f.containers(f.Host(1))) == 1 })
		f.must(f.run(nil, "status"))
	})
}
