package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

func TestWriteIsObserved(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		if st := f.observe().State; st != nil {
			t.Errorf("state %+v of an app that the host does not know", st)
		}
		l := f.acquire()
		at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		want := State{
			Ports:  Ports{Stable: 20000, Blue: []uint16{20001, 20003}, Green: []uint16{20002, 20004}},
			Active: &Release{ID: "r2", Version: "it's\n\"2\" – ü", Slot: proxy.Green, At: at, By: "ann@desk"},
			Kept:   []Release{{ID: "r1", Version: strings.Repeat("long ", 50_000), Slot: proxy.Blue, At: at}},
		}
		f.must(l.Write(t.Context(), State{Ports: Ports{Stable: 1}}))
		f.must(l.Write(t.Context(), want))
		want.Schema, want.App = SchemaVersion, f.app
		if diff := cmp.Diff(&want, f.observe().State); diff != "" {
			t.Error(diff)
		}
		for _, name := range f.files() {
			if strings.Contains(name, ".new") {
				t.Errorf("%s was left behind", name)
			}
		}
	})
}

// member is a server with two replicas, as a load balancer reaches it.
func member(name string, stable uint16, addr netip.Addr) proxy.Member {
	slot := func(first uint16) []netip.AddrPort {
		return []netip.AddrPort{netip.AddrPortFrom(addr, first), netip.AddrPortFrom(addr, first+1)}
	}
	return proxy.Member{
		Name: name, Stable: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), stable),
		Blue: slot(20001), Green: slot(20003),
	}
}

func TestHostMayBeALoadBalancerOnly(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		want := State{Members: []proxy.Member{
			member("it's web1", 20010, netip.MustParseAddr("10.0.0.1")),
			member("web2", 20011, netip.MustParseAddr("2001:db8::2")),
		}}
		f.must(l.Write(t.Context(), want))
		want.Schema, want.App = SchemaVersion, f.app
		if diff := cmp.Diff(&want, f.observe().State, cmp.Comparer(equalAddrPorts)); diff != "" {
			t.Error(diff)
		}
		if text := f.read("state.json"); strings.Contains(text, "ports") {
			t.Errorf("it has no ports of its own, but: %s", text)
		}
		if !f.serving(proxy.Blue) || !f.serving(proxy.Green) {
			t.Error("no slot serves there, yet one is remembered")
		}
		f.must(l.Append(t.Context(), Entry{Run: "r1"}))
		f.must(l.Release(t.Context()))
		f.acquire()
	})
}

func equalAddrPorts(a, b netip.AddrPort) bool { return a == b }

// serving asks the host whether the slot serves, as a teardown does.
func (f *fixture) serving(slot proxy.Slot) bool {
	f.Helper()
	script, args := f.store.ServesScript(f.app, slot)
	err := f.host.Run(f.Context(), &plugins.Command{Args: append([]string{"sh", "-c", script, "teal"}, args...)})
	if exit, ok := errors.AsType[*plugins.ExitError](err); ok && exit.Code == 1 && len(exit.Stderr) == 0 {
		return false
	}
	f.must(err)
	return true
}

func TestServesScriptSaysYesUnlessSure(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		active := func(slot proxy.Slot) *Release { return &Release{ID: "r1", Slot: slot} }
		damage := func(text string) func() {
			return func() { write(t, filepath.Join(f.store.Dir(f.app), "serves"), text) }
		}
		for _, tt := range []struct {
			name        string
			change      func()
			blue, green bool
		}{
			{"no record", func() {}, true, true},
			{"blue", func() { f.must(l.Write(t.Context(), State{Active: active(proxy.Blue)})) }, true, false},
			{"green is coming", func() {
				f.must(l.Write(t.Context(), State{Active: active(proxy.Blue), Switching: active(proxy.Green)}))
			}, true, false},
			{"green", func() { f.must(l.Write(t.Context(), State{Active: active(proxy.Green)})) }, false, true},
			{"none", func() { f.must(l.Write(t.Context(), State{})) }, true, true},
			{"none again", func() { f.must(l.Write(t.Context(), State{})) }, true, true},
			{"empty", damage(""), true, true},
			{"a part", damage("green"), true, true},
			{"something else", damage("red\n"), true, true},
			{"repaired", func() { f.must(l.Write(t.Context(), State{Active: active(proxy.Green)})) }, false, true},
		} {
			tt.change()
			if got := f.serving(proxy.Blue); got != tt.blue {
				t.Errorf("%s: blue serves: %t, want %t", tt.name, got, tt.blue)
			}
			if got := f.serving(proxy.Green); got != tt.green {
				t.Errorf("%s: green serves: %t, want %t", tt.name, got, tt.green)
			}
		}
	})
}

// A crash between the two leaves a state that is behind, never one that is
// ahead of what teardowns are told.
func TestWhatServesIsWrittenBeforeTheState(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	l := f.acquire()
	f.must(l.Write(t.Context(), State{Active: &Release{ID: "r1", Slot: proxy.Blue}}))
	f.must(l.Release(t.Context()))
	before := f.read("state.json")
	f.host.shell.path = withoutFlock(t)
	for _, program := range []string{"mv", "rm"} { // which now fail for the file serves
		path := filepath.Join(f.host.shell.path, program)
		real, err := os.Readlink(path)
		f.must(err)
		writeProgram(t, path, fmt.Sprintf("#!/bin/sh\nfor last; do :; done\n[ \"${last##*/}\" != serves ] || exit 1\nexec %s \"$@\"\n", real))
	}
	l = f.acquire()
	for _, st := range []State{{Active: &Release{ID: "r2", Slot: proxy.Green}}, {}} {
		if err := l.Write(t.Context(), st); !errors.Is(err, plugins.Unavailable) {
			t.Errorf("got %v, want that it could not be written", err)
		}
		if after := f.read("state.json"); after != before {
			t.Errorf("the state is ahead: %s", after)
		}
	}
}

func TestFencedLockChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	l := f.acquire()
	f.must(l.Write(t.Context(), State{Active: &Release{ID: "r1", Slot: proxy.Blue}}))
	write(t, filepath.Join(f.store.Dir(f.app), "epoch"), "7\n")
	f.is(l.Write(t.Context(), State{Active: &Release{ID: "r2", Slot: proxy.Green}}), ErrFenced)
	if !f.serving(proxy.Blue) || f.serving(proxy.Green) || f.observe().State.Active.ID != "r1" {
		t.Error("a fenced run has changed the record")
	}
}

// cutHost loses the end of what is sent, as a connection that breaks does.
type cutHost struct{ plugins.Host }

func (h cutHost) Run(ctx context.Context, cmd *plugins.Command) error {
	c := *cmd
	c.Stdin = io.LimitReader(c.Stdin, 20)
	return h.Host.Run(ctx, &c)
}

func TestNothingIsReplacedByWhatArrivedInPart(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		f.must(l.Write(t.Context(), State{Ports: Ports{Stable: 1}}))
		f.must(l.Append(t.Context(), Entry{Run: "r1"}))
		before := f.read("state.json") + f.read("history.jsonl")
		l.host = cutHost{f.host}
		for name, err := range map[string]error{
			"Write":  l.Write(t.Context(), State{Ports: Ports{Stable: 2}}),
			"Append": l.Append(t.Context(), Entry{Run: "r2"}),
			"Arm":    l.Arm(t.Context(), f.teardown(&container{dir: t.TempDir()}, 0, 0)),
		} {
			if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "less than was sent") {
				t.Errorf("%s: %v, want that it was cut", name, err)
			}
		}
		if after := f.read("state.json") + f.read("history.jsonl"); after != before {
			t.Errorf("changed to %q", after)
		}
		if p := f.observe().Pending; len(p) != 0 {
			t.Errorf("pending %+v, want none", p)
		}
	})
}

func TestHistoryKeepsTheLastRuns(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		entries, err := f.store.History(t.Context(), f.host, f.app, 10)
		if err != nil || len(entries) != 0 {
			t.Errorf("history of an unknown app: %v, %v", entries, err)
		}
		l := f.acquire()
		var old strings.Builder
		for i := range 2 * keepHistory {
			fmt.Fprintf(&old, "{\"run\":\"old%d\"}\n", i)
		}
		write(t, filepath.Join(f.store.Dir(f.app), "history.jsonl"), old.String())
		want := Entry{
			Run: "r1", Command: "deploy", Release: "it's\nr1", Version: "%s", Result: "done",
			Start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), End: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC),
		}
		f.must(l.Append(t.Context(), want))
		entries, err = f.store.History(t.Context(), f.host, f.app, 1000)
		f.must(err)
		if len(entries) != keepHistory {
			t.Errorf("%d entries, want %d", len(entries), keepHistory)
		}
		if diff := cmp.Diff(want, entries[0]); diff != "" {
			t.Error(diff)
		}
		if last := entries[len(entries)-1].Run; last != "old201" {
			t.Errorf("the oldest is %q", last)
		}
		entries, err = f.store.History(t.Context(), f.host, f.app, 2)
		f.must(err)
		if len(entries) != 2 || entries[0].Run != "r1" || entries[1].Run != "old399" {
			t.Errorf("the last two are %+v", entries)
		}
	})
}

func TestHistoryReadsOnPastADamagedLine(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	l := f.acquire()
	write(t, filepath.Join(f.store.Dir(f.app), "history.jsonl"), "{\"run\":\"r1\"}\n{\"run\n")
	f.must(l.Append(t.Context(), Entry{Run: "r3"}))
	entries, err := f.store.History(t.Context(), f.host, f.app, 10)
	f.is(err, plugins.Invalid)
	if len(entries) != 2 || entries[0].Run != "r3" || entries[1].Run != "r1" {
		t.Errorf("entries %+v", entries)
	}
}

func TestAuditTrailHasALineForEachText(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		f.must(l.Audit(t.Context(), "it's \"switched\"\nto $(green) 100%"))
		f.must(l.Audit(t.Context(), `-n \n`))
		lines := strings.Split(strings.TrimSuffix(f.read("audit.log"), "\n"), "\n")
		var got []string
		for _, line := range lines {
			at, text, _ := strings.Cut(line, " ")
			if when, err := time.Parse(time.RFC3339, at); err != nil || time.Since(when).Abs() > time.Minute {
				t.Errorf("time %q: %v", at, err)
			}
			got = append(got, text)
		}
		want := []string{`ann@desk r1: it's "switched" to $(green) 100%`, `ann@desk r1: -n \n`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAuditTrailIsBounded(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		write(t, filepath.Join(f.store.Dir(f.app), "audit.log"), strings.Repeat("x", 1<<20+1))
		f.must(l.Audit(t.Context(), "one"))
		f.must(l.Audit(t.Context(), "two"))
		if got := strings.Count(f.read("audit.log"), "\n"); got != 2 {
			t.Errorf("%d lines, want 2", got)
		}
		if got := len(f.read("audit.log.1")); got != 1<<20+1 {
			t.Errorf("the former trail has %d bytes", got)
		}
	})
}

func TestTakingTheLockClearsWhatACrashLeft(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		f.must(f.acquire().Release(t.Context()))
		dir := f.store.Dir(f.app)
		f.must(os.MkdirAll(filepath.Join(dir, "pending", ".new.7"), 0o755))
		f.must(os.MkdirAll(filepath.Join(dir, "pending", ".gone.7"), 0o755))
		write(t, filepath.Join(dir, ".new.7"), "half a st")
		f.acquire()
		for _, name := range f.files() {
			if strings.Contains(name, ".new") || strings.Contains(name, ".gone") {
				t.Errorf("%s was left behind", name)
			}
		}
	})
}
