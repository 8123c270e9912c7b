package record

import (
	"net"
	"net/netip"
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
		server := Ports{Stable: 100, Blue: []uint16{105, 101}, Green: []uint16{102, 106}}
		balances := []proxy.Member{
			member("web1", 301, netip.MustParseAddr("10.0.0.1")),
			member("web2", 300, netip.MustParseAddr("10.0.0.2")),
		}
		for app, st := range map[string]State{
			"shop":         {Ports: Ports{Stable: 1, Blue: []uint16{2}, Green: []uint16{3}}},
			"it's\nserved": {Ports: server},
			"balanced":     {Members: balances},
			"both":         {Ports: server, Members: balances[:1]},
			"worker":       {Active: &Release{ID: "r1", Slot: proxy.Blue}},
		} {
			l, err := f.store.Acquire(t.Context(), f.host, app, owner("r1"))
			f.must(err)
			f.must(l.Write(t.Context(), st))
			f.must(l.Release(t.Context()))
		}
		want := map[string][]uint16{
			"it's\nserved": {100, 101, 102, 105, 106},
			"balanced":     {300, 301},
			"both":         {100, 101, 102, 105, 106, 301},
			"worker":       {},
		}
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

func TestListeningPortsAreThoseOnAnyAddress(t *testing.T) {
	t.Parallel()
	const lines = `listen 0500000A:01BB
listen 0100007F:0050
listen 00000000000000000000000000000000:0050
listen B80D012000000000000000007F000000:0016
`
	o, err := parseObservation([]byte(lines))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint16{22, 80, 443}, o.Facts.Listening); diff != "" {
		t.Error(diff)
	}
}

func TestAddressIsTheOneThatWasReachedOverSSH(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ connection, want string }{
		"IPv4":           {"192.0.2.1 50000 10.0.0.5 22", "10.0.0.5"},
		"IPv6":           {"2001:db8::1 50000 2001:db8::5 22", "2001:db8::5"},
		"link-local":     {"fe80::1%eth0 50000 fe80::5%eth0 22", "fe80::5"},
		"IPv4 in IPv6":   {"::ffff:192.0.2.1 50000 ::ffff:10.0.0.5 22", "10.0.0.5"},
		"not by TCP":     {"UNKNOWN 65535 UNKNOWN 65535", ""},
		"something else": {"10.0.0.5", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, err := parseObservation([]byte("reached " + tt.connection + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			var want netip.Addr
			if tt.want != "" {
				want = netip.MustParseAddr(tt.want)
			}
			if o.Facts.Address != want {
				t.Errorf("address %v, want %v", o.Facts.Address, want)
			}
		})
	}
}

func TestObserveTellsTheAddress(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	if got := f.observe().Facts.Address; got.IsValid() {
		t.Errorf("address %s without SSH", got)
	}
	o, err := f.store.Observe(t.Context(), newSSHHost(t), f.app)
	f.must(err)
	if want := netip.MustParseAddr("127.0.0.1"); o.Facts.Address != want {
		t.Errorf("address %v, want %v", o.Facts.Address, want)
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
