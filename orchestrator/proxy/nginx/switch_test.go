package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

func TestPrepareThenSwitchThenObserve(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t)
	for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green, proxy.Green, proxy.Blue} {
		switchTo(t.Context(), t, d, l, slot)
		if diff := cmp.Diff(serving(proxy.Route{"web1": slot.All()}), observe(t, d, l)); diff != "" {
			t.Errorf("after the switch to %s (-want +got):\n%s", slot, diff)
		}
		if got := proxytest.Get(t, url); got != string(slot) {
			t.Errorf("the site answers %q, want %s", got, slot)
		}
	}
}

func TestSwitchTakesTwoRoundTrips(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	c := &proxytest.Host{Host: host()}
	if err := d.proxy().Switch(t.Context(), c, l, green, nil); err != nil {
		t.Fatal(err)
	}
	if c.Runs.Load() != 1 || c.Dials.Load() != 1 || c.Becomes.Load() != 0 {
		t.Errorf("it took %d commands, %d of them as root, and %d connections", c.Runs.Load(), c.Becomes.Load(), c.Dials.Load())
	}
}

var green = proxy.Route{"web1": 100}

func TestSwitchRefusesANonsensicalRoute(t *testing.T) {
	t.Parallel()
	l := layout()
	for _, r := range []proxy.Route{{"web1": 101}, {"web1": -2}, {"web2": 100}, {"web1": 100, "": 100}} {
		c := &proxytest.Host{Host: host()}
		if err := new(Proxy).Switch(t.Context(), c, l, r, nil); !errors.Is(err, plugins.Invalid) || c.Runs.Load()+c.Dials.Load() > 0 {
			t.Errorf("%+v: %v", r, err)
		}
	}
	l.App = "no such\napp"
	if err := new(Proxy).Switch(t.Context(), host(), l, green, nil); !errors.Is(err, plugins.Invalid) {
		t.Errorf("a bad layout: %v", err)
	}
	if err := new(Proxy).Switch(t.Context(), nil, layout(), nil, nil); err != nil {
		t.Errorf("no change: %v", err)
	}
}

func TestSwitchWithNginxDownChangesNothing(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	d.kill(syscall.SIGTERM)
	err := d.proxy().Switch(t.Context(), host(), l, green, nil)
	if !errors.Is(err, plugins.Unavailable) || errors.Is(err, proxy.ErrUnknown) {
		t.Errorf("error %v", err)
	}
	if o := observe(t, d, l); o.Disk["web1"] != 0 {
		t.Errorf("observed %+v", o)
	}
}

func TestSwitchOfAnAppThatIsNotPrepared(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	l.Dir = publicDir(t)
	err := d.proxy().Switch(t.Context(), host(), l, green, nil)
	if !errors.Is(err, plugins.NotFound) || errors.Is(err, proxy.ErrUnknown) {
		t.Errorf("error %v", err)
	}
}

func TestSwitchWithoutProofIsTakenBack(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t)
	c := &proxytest.Host{Host: host()}
	c.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
		if c.Runs.Load() < 2 { // until the switch is taken back
			ours, theirs := net.Pipe()
			go replay(theirs, "HTTP/1.1 200 OK\r\nTeal-App: shop\r\nTeal-Member: web1\r\nTeal-Slot: blue\r\nContent-Length: 18\r\n\r\nblue 100 green 0 \n")
			return ours, nil
		}
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	err := d.proxy().Switch(t.Context(), c, l, green, nil)
	if !errors.Is(err, proxy.ErrUnproven) || errors.Is(err, proxy.ErrUnknown) || !strings.Contains(err.Error(), "all is as before (web1: blue)") {
		t.Errorf("error %v", err)
	}
	if o := observe(t, d, l); o.Live["web1"] != 0 || o.Disk["web1"] != 0 {
		t.Errorf("observed %+v", o)
	}
	if got := proxytest.Get(t, url); got != "blue" {
		t.Errorf("the site answers %q", got)
	}
}

// replay answers every request on c with text.
func replay(c net.Conn, text string) {
	b := make([]byte, 1<<12)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

func TestSwitchOfASilentNginxIsTakenBack(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	c := &proxytest.Host{Host: host(), Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		return ours, nil
	}}
	err := d.proxy().Switch(t.Context(), c, l, green, nil)
	if err == nil || errors.Is(err, proxy.ErrUnknown) || !strings.Contains(err.Error(), "nginx does not answer, all on the disk is as before") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(serving(proxy.Route{"web1": 0}), observe(t, d, l)); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
}

func TestSwitchThatCanNeitherBeProvenNorTakenBackIsUnknown(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d, l, _ := prepared(t)
	c := &proxytest.Host{Host: host(), Before: func([]string) error { return os.Chmod(l.Dir, 0o700) }}
	err := d.proxy().Switch(t.Context(), c, l, green, nil)
	if !errors.Is(err, proxy.ErrUnknown) || !strings.Contains(err.Error(), "cannot read") {
		t.Errorf("error %v", err)
	}
	if o := observe(t, d, l); !strings.Contains(o.Problem, "cannot read") || o.Disk["web1"] != 0 {
		t.Errorf("observed %+v", o)
	}
}

func TestSwitchOverALostConnectionIsUnknown(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	lost := &plugins.Error{Op: "run", Host: "web1", Kind: plugins.Lost, Err: errors.New("connection reset")}
	c := &proxytest.Host{Host: host(), Before: func([]string) error { return lost }}
	err := d.proxy().Switch(t.Context(), c, l, green, nil)
	if !errors.Is(err, proxy.ErrUnknown) || !errors.Is(err, plugins.Lost) {
		t.Errorf("error %v", err)
	}
	for _, c := range []*proxytest.Host{
		{Host: host(), Before: func([]string) error { return lost }},
		{Host: host(), Dial: func(context.Context, string, string) (net.Conn, error) { return nil, lost }},
	} {
		if _, err := d.proxy().Observe(t.Context(), c, l); !errors.Is(err, plugins.Lost) {
			t.Errorf("Observe: %v", err)
		}
	}
}

func TestCancelledSwitchIsTakenBack(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := &proxytest.Host{Host: host(), After: func([]string) { cancel() }}
	c.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
		if c.Runs.Load() == 0 { // a connection on which nobody answers
			ours, _ := net.Pipe()
			return ours, nil
		}
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	err := d.proxy().Switch(ctx, c, l, green, nil)
	if !errors.Is(err, context.Canceled) || errors.Is(err, proxy.ErrUnknown) {
		t.Errorf("error %v", err)
	}
	if o := observe(t, d, l); o.Live["web1"] != 0 || o.Disk["web1"] != 0 {
		t.Errorf("observed %+v", o)
	}
}

func TestObserveOfAnAppThatIsNotPrepared(t *testing.T) {
	t.Parallel()
	l := app(t, "shop")
	o, err := new(Proxy).Observe(t.Context(), host(), l)
	if diff := cmp.Diff(proxy.Observation{}, o); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestObserveSeesDiskAndLiveDiffer(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	other := l
	other.Dir = publicDir(t)
	if err := makeRoute(t.Context(), host(), other, true); err != nil {
		t.Fatal(err)
	}
	if err := note(t.Context(), host(), other, filepath.Join(d.dir, "conf.d/teal-shop.conf")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := turn(t.Context(), host(), other, proxy.Route{"web1": 0}, nil); err != nil {
		t.Fatal(err)
	}
	switchTo(t.Context(), t, d, l, proxy.Green)
	o := observe(t, d, other)
	if o.Live["web1"] != 100 || o.Disk["web1"] != 0 || o.Problem != "web1 is green, but blue on the disk" || !o.Outdated {
		t.Errorf("observed %+v", o)
	}
}

func TestRoutedScriptSaysYesUnlessSure(t *testing.T) {
	t.Parallel()
	route := func(t *testing.T, l proxy.Layout, share proxy.Share) {
		t.Helper()
		if _, _, err := turn(t.Context(), host(), l, proxy.Route{"web1": share}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change      func(t *testing.T, l proxy.Layout)
		blue, green int // exit codes
	}{
		"blue":  {func(t *testing.T, l proxy.Layout) { route(t, l, 0) }, 0, 1},
		"green": {func(t *testing.T, l proxy.Layout) { route(t, l, 100) }, 1, 0},
		"off":   {func(t *testing.T, l proxy.Layout) { route(t, l, proxy.Off) }, 1, 1},
		"off, but a file lost": {func(t *testing.T, l proxy.Layout) {
			route(t, l, proxy.Off)
			_ = os.Remove(routeDir(l) + "/off/off")
		}, 0, 0},
		"a member that is not there": {func(_ *testing.T, l proxy.Layout) { _ = os.Remove(routeDir(l) + "/cur/web1") }, 0, 0},
		"a share":                    {func(t *testing.T, l proxy.Layout) { route(t, l, 5) }, 0, 0},
		"nearly all":                 {func(t *testing.T, l proxy.Layout) { route(t, l, 99) }, 0, 0},
		"no link":                    {func(_ *testing.T, l proxy.Layout) { _ = os.Remove(routeDir(l) + "/cur") }, 0, 0},
		"no folder":                  {func(_ *testing.T, l proxy.Layout) { _ = os.RemoveAll(l.Dir) }, 0, 0},
		"dangling link":              {func(_ *testing.T, l proxy.Layout) { _ = os.RemoveAll(routeDir(l) + "/w000") }, 0, 0},
		"no link but a folder": {func(_ *testing.T, l proxy.Layout) {
			_ = os.Remove(routeDir(l) + "/cur")
			_ = os.Rename(routeDir(l)+"/w100", routeDir(l)+"/cur")
		}, 0, 0},
		"a link to elsewhere": {func(_ *testing.T, l proxy.Layout) {
			_ = os.Remove(routeDir(l) + "/cur")
			_ = os.Symlink("../route/w100", routeDir(l)+"/cur")
		}, 0, 0},
		"a file too few": {func(t *testing.T, l proxy.Layout) {
			route(t, l, 100)
			_ = os.Remove(routeDir(l) + "/w100/42")
		}, 0, 0},
		"a file too many": {func(_ *testing.T, l proxy.Layout) { _ = os.WriteFile(routeDir(l)+"/w000/42", nil, 0o644) }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := layout()
			l.Dir = publicDir(t)
			if err := makeRoute(t.Context(), host(), l, true); err != nil {
				t.Fatal(err)
			}
			c.change(t, l)
			for _, shell := range [][]string{{"sh"}, {"busybox", "sh"}, {"bash", "--posix"}} {
				if _, err := exec.LookPath(shell[0]); err != nil {
					t.Log(err)
					continue
				}
				for slot, want := range map[proxy.Slot]int{proxy.Blue: c.blue, proxy.Green: c.green, "other": 0} {
					script, args := new(Proxy).RoutedScript(l, "web1", slot)
					cmd := exec.Command(shell[0], append(append(shell[1:], "-c", script, "teal"), args...)...)
					out, err := cmd.CombinedOutput()
					if got := cmd.ProcessState.ExitCode(); got != want || len(bytes.TrimSpace(out)) > 0 && want == 1 {
						t.Errorf("%s in %s: exit code %d, want %d: %s (%v)", slot, shell[0], got, want, out, err)
					}
				}
			}
		})
	}
}

// The scripts keep to what a small system has.
func TestScriptsRunUnderBusybox(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	bin := t.TempDir()
	for _, tool := range []string{"sh", "readlink", "mkdir", "mv", "ln", "rm", "cat", "sync", "ls", "cp", "chmod", "grep", "sed", "tr", "id", "sleep", "tail", "wc", "pgrep", "kill", "which"} {
		if err := os.Symlink(busybox, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/sbin/nginx", filepath.Join(bin, "nginx")); err != nil {
		t.Fatal(err)
	}
	site := proxytest.Port(t)
	d := start(t)
	l := app(t, "shop")
	d.write("sites-enabled/shop", userSite(site, "shop"))
	t.Setenv("PATH", bin)
	prepare(t, d, l, true)
	prepare(t, d, l, false)
	for _, slot := range []proxy.Slot{proxy.Green, proxy.Blue, proxy.Green} {
		switchTo(t.Context(), t, d, l, slot)
		if o := observe(t, d, l); o.Live["web1"] != slot.All() || o.Disk["web1"] != slot.All() || o.Outdated {
			t.Errorf("observed %+v", o)
		}
	}
	l.Members[0].Blue = append(l.Members[0].Blue, proxytest.Serve(t, "web1", "blue"))
	prepare(t, d, l, true)
	if warnings, err := d.proxy().Check(t.Context(), host(), l); err != nil {
		t.Errorf("Check: %q, %v", warnings, err)
	}
}

func TestFoldersAreReadableWhateverTheLoginsMaskIs(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	l := layout()
	l.Dir = publicDir(t)
	if err := makeRoute(t.Context(), host(), l, true); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o755, "/w000": 0o755, "/w100/99": 0o644, "/cur/.says/web1": 0o644} {
		info, err := os.Stat(routeDir(l) + name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestNginxThatNeverAnswersIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	l := app(t, "shop")
	silent, err := net.Listen("tcp", l.Members[0].Stable.String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	start := time.Now()
	if _, err := new(Proxy).Observe(t.Context(), host(), l); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*proofWithin {
		t.Errorf("it took %s", took)
	}
}

func BenchmarkSwitch(b *testing.B) {
	for _, n := range []int{1, 10} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			d, l := start(b), fleet(b, "shop", n)
			prepare(b, d, l, true)
			c := &proxytest.Host{Host: host()}
			slot := proxy.Blue
			for b.Loop() {
				slot = slot.Other()
				if err := d.proxy().Switch(b.Context(), c, l, proxytest.All(l, slot.All()), nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.Runs.Load())/float64(b.N), "commands/op")
			b.ReportMetric(float64(c.Dials.Load())/float64(b.N), "connections/op")
		})
	}
}

func BenchmarkObserve(b *testing.B) {
	d, l, _ := prepared(b)
	for b.Loop() {
		if _, err := d.proxy().Observe(b.Context(), host(), l); err != nil {
			b.Fatal(err)
		}
	}
}
