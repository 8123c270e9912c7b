package record

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

func TestObserveTellsTheFacts(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		f.must(err)
		defer func() { _ = listener.Close() }()
		port := uint16(listener.Addr().(*net.TCPAddr).Port)

		facts := f.observe().Facts
		if f.host.runs != 1 {
			t.Errorf("%d commands, want 1", f.host.runs)
		}
		if time.Since(facts.Now).Abs() > 5*time.Second {
			t.Errorf("clock %s", facts.Now)
		}
		if !slices.Contains(facts.Listening, port) || !slices.IsSorted(facts.Listening) {
			t.Errorf("listening %v, want it sorted, with %d", facts.Listening, port)
		}
		if facts.UID != os.Getuid() || facts.User == "" || len(facts.BootID) != 36 || !facts.Writable {
			t.Errorf("facts %+v", facts)
		}
		if facts.EphemeralLow == 0 || facts.EphemeralHigh <= facts.EphemeralLow {
			t.Errorf("ephemeral ports %d to %d", facts.EphemeralLow, facts.EphemeralHigh)
		}
		if path := facts.Tools["timeout"]; filepath.Base(path) != "timeout" {
			t.Errorf("tools %v, want timeout with its path", facts.Tools)
		}
		if _, err := os.Stat(f.store.Root); err == nil {
			t.Error("a look has made the folder")
		}
	})
}

func TestObserveTellsThePortsOfOtherApps(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		for i, app := range []string{"shop", "it's\nanother"} {
			l, err := f.store.Acquire(t.Context(), f.host, app, owner("r1"))
			f.must(err)
			f.must(l.Write(t.Context(), State{Ports: Ports{Stable: uint16(100 * i), Blue: uint16(100*i + 1), Green: uint16(100*i + 2)}}))
			f.must(l.Release(t.Context()))
		}
		want := map[string]Ports{"it's\nanother": {Stable: 100, Blue: 101, Green: 102}}
		if diff := cmp.Diff(want, f.observe().Facts.AppPorts); diff != "" {
			t.Error(diff)
		}
	})
}

func TestObserveTellsWhatIsPending(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		order := f.teardown(newContainer(t), time.Minute, time.Hour, newContainer(t))
		order.Armed = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		f.must(l.Arm(t.Context(), order))
		f.eventually("it says what it waits for", func() bool { return f.onlyPending().Waits != "" })
		order.App = f.app
		want := Pending{Teardown: order, Connections: -1, Running: true, Waits: "the proxy routes to it"}
		if diff := cmp.Diff(want, f.onlyPending()); diff != "" {
			t.Error(diff)
		}
		f.route(proxy.Green)
		f.eventually("the connections are counted", func() bool {
			p := f.onlyPending()
			return p.Connections == 0 && time.Since(p.Switched).Abs() < time.Minute
		})
	})
}

func TestObserveRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file, data string
		text       string
	}{
		"state":          {"shop/state.json", `{"schema":`, "state.json is damaged"},
		"newer state":    {"shop/state.json", `{"schema":2}`, "written by a newer teal"},
		"other state":    {"blog/state.json", `x`, "state.json of another app is damaged"},
		"epoch":          {"shop/epoch", "x\n", `epoch "x"`},
		"pending":        {"shop/pending/r1.1.1/order", "#{\n", "pending"},
		"pending switch": {"shop/pending/r1.1.1/switched", "x\n", "switched"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, shell{name: "dash"})
			path := filepath.Join(f.store.Root, tt.file)
			f.must(os.MkdirAll(filepath.Dir(path), 0o755))
			write(t, filepath.Join(filepath.Dir(path), "order"), "#{}\n")
			write(t, path, tt.data)
			_, err := f.store.Observe(t.Context(), f.host, f.app)
			f.is(err, plugins.Invalid)
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v does not contain %q", err, tt.text)
			}
		})
	}
}

func TestListeningPortsAreThoseOnLoopbackAndOnAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, line string
		want       bool
	}{
		{"127.0.0.1", "0100007F:0050", true},
		{"127.0.0.1, big-endian", "7F000001:0050", true},
		{"0.0.0.0", "00000000:0050", true},
		{"10.0.0.5", "0500000A:0050", false},
		{"::", "00000000000000000000000000000000:0050", true},
		{"::1", "00000000000000000000000001000000:0050", true},
		{"::1, big-endian", "00000000000000000000000000000001:0050", true},
		{"::ffff:127.0.0.1", "0000000000000000FFFF00000100007F:0050", true},
		{"::ffff:0.0.0.0", "0000000000000000FFFF000000000000:0050", true},
		{"fe80::1", "000080FE000000000000000001000000:0050", false},
		{"2001:db8::7f", "B80D012000000000000000007F000000:0050", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, err := parseObservation([]byte("listen " + tt.line + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Equal(o.Facts.Listening, []uint16{80}); got != tt.want {
				t.Errorf("listening %v, want port 80: %t", o.Facts.Listening, tt.want)
			}
		})
	}
}

func TestObservationThatIsNotUnderstoodIsAnError(t *testing.T) {
	t.Parallel()
	for _, out := range []string{"uid x\n", "now\n", "range 1\n", "listen 0100007F\n", "held\nowner {\n", "running\n", "Welcome to the host!\n"} {
		if _, err := parseObservation([]byte(out)); err == nil {
			t.Errorf("%q was understood", out)
		}
	}
}
