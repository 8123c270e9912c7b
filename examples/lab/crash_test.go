//go:build linux

package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func pid(n int) string { return strconv.Itoa(n) }

// killAt starts a deployment and kills teal when an event says so.
func (f *fleet) killAt(sig syscall.Signal, is func(event) bool, args ...string) ended {
	f.t.Helper()
	cmd := f.command(f.t.Context(), args...)
	once := sync.OnceFunc(func() { _ = cmd.Process.Signal(sig) }) // a second one means something else
	return f.finish(cmd, func(e event) {
		if is(e) {
			once()
		}
	})
}

func TestTealMayDieAtAnyStep(t *testing.T) {
	eachEngine(t, func(t *testing.T, on runtimeRow) {
		f := newFleet(t, on.hosts(1), quick)
		f.deploy("1")
		s := f.stress(light(), 5*time.Minute)
		serving := "1"
		steps := []string{"image", "code", "create", "install", "test"}
		if on.beside {
			steps = []string{"create", "install"}
		}
		for i, step := range steps {
			version := strconv.Itoa(i + 2)
			f.publish(version, "")
			e := f.killAt(syscall.SIGKILL, func(e event) bool { return e.Step == step }, "deploy", "--version", version)
			if e.code != -1 {
				t.Fatalf("killed in %s, teal ended with code %d", step, e.code)
			}
			if got := f.serves(f.Host(1)); got != serving {
				t.Errorf("killed in %s: %s serves, want %s", step, got, serving)
			}
			// The lock is free within seconds; then the next deployment cleans up.
			f.eventually(5*time.Second, "the lock is free", func() bool {
				return !strings.Contains(f.must(f.run(nil, "status")).stdout, `"lock"`)
			})
			f.must(f.run(nil, "deploy", "--version", version))
			serving = version
			if got := f.serves(f.Host(1)); got != serving {
				t.Errorf("after cleaning up %s serves, want %s", got, serving)
			}
		}

		// Behind the switch: blue is removed on time by the host itself.
		f.publish("last", "")
		var at time.Time
		f.killAt(syscall.SIGKILL, func(e event) bool {
			if e.Step == "switch" && e.Status == "done" {
				at = time.Now()
				return true
			}
			return false
		}, "deploy", "--version", "last")
		if at.IsZero() {
			t.Fatal("there was no switch")
		}
		f.eventually(12*time.Second, "blue is gone", func() bool { return len(f.containers(f.Host(1))) == 1 })
		if after := time.Since(at); after < 2*time.Second {
			t.Errorf("blue was gone %s after the switch", after)
		}
		if got := f.serves(f.Host(1)); got != "last" {
			t.Errorf("%s serves, want last", got)
		}
		if e := f.must(f.run(nil, "deploy", "--version", "last")); e.result.Outcome != "nothing to do" {
			t.Errorf("the next deployment ended with %q, want nothing to do", e.result.Outcome)
		}
		s.end(t)
	})
}

func TestInterruptBeforeTheSwitchLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t, hosts(1), quick)
	f.deploy("1")
	f.publish("2", "slow-start 5")
	e := f.killAt(syscall.SIGINT, func(e event) bool { return e.Step == "test" }, "deploy", "--version", "2")
	f.want(e, 8)
	if got := f.containers(f.Host(1)); len(got) != 1 {
		t.Errorf("containers are %v, want blue alone", got)
	}
	if got := f.serves(f.Host(1)); got != "1" {
		t.Errorf("%s serves, want 1", got)
	}
}

func TestSecondDeploymentSaysWhoHoldsTheLock(t *testing.T) {
	t.Parallel()
	f := newFleet(t, hosts(1), quick)
	f.deploy("1")
	f.publish("2", "slow-start 3")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := f.command(ctx, "deploy", "--version", "2")
	second := make(chan ended, 1)
	e := f.finish(first, func(e event) {
		if e.Step == "test" && e.Status == "started" {
			second <- f.run(nil, "deploy", "--version", "3")
		}
	})
	f.must(e)
	got := <-second
	f.want(got, 7)
	for _, want := range []string{"tester@" + t.Name(), "deploy", "since"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("the refusal lacks %q: %s", want, got.stdout)
		}
	}
}

func TestCutCableFreesTheLock(t *testing.T) {
	t.Parallel()
	f := newFleet(t, hosts(1), quick)
	f.deploy("1")
	f.publish("2", "slow-start 6")
	h := f.Host(1)
	cut := false
	e := f.killAt(0, func(e event) bool {
		if e.Step == "test" && !cut {
			cut = true
			if err := h.Cut(t.Context()); err != nil {
				t.Error(err)
			}
		}
		return false
	}, "deploy", "--version", "2")
	if e.code == 0 {
		t.Errorf("a deployment to a host that was cut off ended well: %s", e.stdout)
	}
	if err := h.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.serves(h); got != "1" {
		t.Errorf("%s serves, want 1", got)
	}
	f.eventually(20*time.Second, "the lock is free", func() bool {
		return !strings.Contains(f.run(nil, "status").stdout, `"lock"`)
	})
	f.publish("3", "")
	f.must(f.run(nil, "deploy", "--version", "3"))
	if got := f.containers(h); len(got) > 2 {
		t.Errorf("containers are %v: green of the run that was cut off is left", got)
	}
}

func TestRebootInTheMiddleOfTheDrain(t *testing.T) {
	eachEngine(t, func(t *testing.T, on runtimeRow) {
		f := newFleet(t, on.hosts(1), func(text string) string {
			return strings.Replace(quick(text), `delay = "2s"`, `delay = "12s"`, 1)
		})
		f.deploy("1")
		f.deploy("2", "--detach")
		h := f.Host(1)
		if err := h.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.eventually(30*time.Second, "the right colour serves", func() bool { return f.serves(h) == "2" })
		f.must(f.run(nil, "status")) // any command goes on with what the reboot interrupted
		f.eventually(45*time.Second, "blue is gone", func() bool { return len(f.containers(h)) == 1 })
		if got := f.serves(h); got != "2" {
			t.Errorf("%s serves, want 2", got)
		}
	})
}

func TestSecretsStayOutOfSight(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t \"quoted\" $(id) ; `x`" + "\\ end"
	f := newFleet(t, hosts(1), func(text string) string {
		return strings.Replace(quick(text), "[container]",
			"[container]\nenv = { NASTY = '''a \"b\" $(id); `c` \\ d''' }\nsecrets = { TOKEN = { env = \"SHOP_TOKEN\" } }", 1)
	})
	f.env = []string{"SHOP_TOKEN=" + secret}
	watch, stop := context.WithCancel(t.Context())
	seen := make(chan string, 1)
	go func() {
		// Every command line on the host, as fast as they can be read.
		for watch.Err() == nil {
			out, err := f.Host(1).Exec(watch, "sh", "-c", `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' '`)
			if err == nil && strings.Contains(out, "s3cr3t") {
				seen <- out
				return
			}
		}
		seen <- ""
	}()
	e := f.deploy("1")
	stop()
	if out := <-seen; out != "" {
		t.Errorf("the secret stood on a command line: %s", out)
	}
	env := f.environment(f.Host(1))
	for _, want := range []string{"TOKEN=" + secret, "NASTY=a \"b\" $(id); `c` \\ d"} {
		if !strings.Contains(env, want+"\n") {
			t.Errorf("the container's environment lacks %q:\n%s", want, env)
		}
	}
	places := map[string]string{"output": e.stdout + e.stderr}
	journals, err := filepath.Glob(filepath.Join(f.state, "teal", "runs", "*"))
	if err != nil || len(journals) == 0 {
		t.Fatalf("no journal: %v", err)
	}
	for _, j := range journals {
		text, err := os.ReadFile(j)
		if err != nil {
			t.Fatal(err)
		}
		places[j] = string(text)
	}
	record, err := f.Host(1).Exec(t.Context(), "sh", "-c", "grep -r s3cr3t /var/lib/teal; true")
	if err != nil {
		t.Fatal(err)
	}
	places["record"] = record
	places["config"] = f.must(f.run(nil, "config")).stdout
	places["plan"] = f.run(nil, "plan", "--version", "2").stdout
	for place, text := range places {
		if strings.Contains(text, "s3cr3t") {
			t.Errorf("the secret is in the %s", place)
		}
	}
}
