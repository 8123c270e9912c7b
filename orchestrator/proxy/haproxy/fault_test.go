package haproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

func TestWhatIsOnDiskServesAfterAnyEnd(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t, "web1", "web2")
	want := proxy.Route{"web1": 100, "web2": 30}
	change(t.Context(), t, d, l, want)
	for name, end := range map[string]func(){
		"restart": func() { d.kill(syscall.SIGTERM); d.run() },
		"SIGKILL": func() { d.kill(syscall.SIGKILL); d.run() },
		"reload": func() {
			worker := d.worker()
			_ = d.cmd.Process.Signal(syscall.SIGUSR2)
			for range 100 {
				if time.Sleep(20 * time.Millisecond); d.worker() != worker {
					break
				}
			}
			time.Sleep(100 * time.Millisecond)
		},
	} {
		end()
		observed(t, d, l, want)
		if got := tally(t, 4, "http://"+l.Members[0].Stable.String()); got["web1 green"] != 4 {
			t.Errorf("%s: %v", name, got)
		}
		if got := tally(t, 4, url); got["web1 green"]+got["web2 green"]+got["web2 blue"] != 4 {
			t.Errorf("%s: %v", name, got)
		}
		change(t.Context(), t, d, l, want)
	}
}

// hung listens and never answers.
func hung(t *testing.T) string {
	t.Helper()
	file := filepath.Join(idle(t).dir, "hung.sock")
	l, err := net.Listen("unix", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return file
}

func TestHangingAdminSocketChangesNothing(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t, "web1")
	silent := hung(t)
	for name, from := range map[string]int64{"from the beginning": 0, "when the file is written": 1} {
		asked := int64(0)
		c := &proxytest.Host{Host: host()}
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if network == "unix" {
				if asked++; asked > from {
					address = silent
				}
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		began := time.Now()
		err := d.proxy().Switch(t.Context(), c, l, proxy.Route{"web1": 100}, nil)
		if !errors.Is(err, plugins.Unavailable) || errors.Is(err, proxy.ErrUnknown) || !strings.Contains(err.Error(), "gave no answer") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		observed(t, d, l, proxy.Route{"web1": 0})
		if got := proxytest.Get(t, url); got != "blue" {
			t.Errorf("%s: the site answers %q", name, got)
		}
	}
}

func TestFullDiskChangesNothing(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t, "web1")
	full := filepath.Join(d.dir, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", full, "tmpfs", 0, "size=8k"); err != nil {
		unable(t, "no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(full, syscall.MNT_DETACH) })
	for _, name := range []string{"shares.map", "note"} {
		b, err := os.ReadFile(filepath.Join(dataDir(l), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(full, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// One page for each of the files, none for a third.
	if err := os.Rename(dataDir(l), dataDir(l)+".was"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(full, dataDir(l)); err != nil {
		t.Fatal(err)
	}
	err := d.proxy().Switch(t.Context(), host(), l, proxy.Route{"web1": 100}, nil)
	if err == nil || errors.Is(err, proxy.ErrUnknown) || !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(err.Error(), "No space left") {
		t.Errorf("error %v", err)
	}
	observed(t, d, l, proxy.Route{"web1": 0})
	if got := proxytest.Get(t, url); got != "blue" {
		t.Errorf("the site answers %q", got)
	}
	if left, _ := filepath.Glob(full + "/.*map"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestSwitchToADeadSlotChangesNothing(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := layout(t, d, "web1")
	l.Members[0].Green[0] = proxytest.Loopback(proxytest.Port(t)) // nobody
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)
	time.Sleep(1500 * time.Millisecond) // leaving maintenance counts as up until a check says otherwise
	if _, err := d.admin().ask(t.Context(), set("shop", "ready", []place{{l.Members[0], proxy.Green}})...); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	err := d.proxy().Switch(t.Context(), host(), l, proxytest.All(l, 100), nil)
	if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "sees teal:shop:web1:green/green:0 down") {
		t.Errorf("error %v", err)
	}
	observed(t, d, l, proxytest.All(l, 0))
}

func TestSwitchThatIsNotProvenGoesBack(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(c *proxytest.Host, cancel context.CancelFunc){
		"cancelled": func(c *proxytest.Host, cancel context.CancelFunc) {
			c.After = func(args []string) {
				if strings.Contains(args[2], "exit 13") {
					cancel()
				}
			}
		},
		"unproven": func(c *proxytest.Host, _ context.CancelFunc) {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if network == "unix" {
					return host().DialContext(ctx, network, address)
				}
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
						_, _ = io.WriteString(theirs, "HTTP/1.1 200 OK\r\nTeal-App: shop\r\nTeal-Member: web1\r\nContent-Length: 6\r\n\r\n0 - -\n")
					}
				}()
				return ours, nil
			}
		},
		"lost": func(c *proxytest.Host, _ context.CancelFunc) {
			c.After = func(args []string) {
				if strings.Contains(args[2], "exit 13") {
					c.Dial = func(context.Context, string, string) (net.Conn, error) {
						return nil, &plugins.Error{Op: "dial", Kind: plugins.Lost}
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, l, _ := prepared(t, "web1")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := &proxytest.Host{Host: host()}
			broken(c, cancel)
			err := d.proxy().Switch(ctx, c, l, proxy.Route{"web1": 100}, nil)
			unknown := name == "lost"
			if err == nil || errors.Is(err, proxy.ErrUnknown) != unknown || errors.Is(err, proxy.ErrUnproven) != (name == "unproven") {
				t.Fatalf("error %v", err)
			}
			observed(t, d, l, proxy.Route{"web1": 0})
		})
	}
}

func TestSwitchRefuses(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t, "web1")
	other := l
	other.Dir = d.dir
	for name, c := range map[string]struct {
		layout proxy.Layout
		change proxy.Route
		kind   plugins.Kind
	}{
		"a share above 100": {l, proxy.Route{"web1": 101}, plugins.Invalid},
		"a share below off": {l, proxy.Route{"web1": -2}, plugins.Invalid},
		"another member":    {l, proxy.Route{"web9": 0}, plugins.Invalid},
		"a bad layout":      {proxy.Layout{App: "a\nb"}, proxy.Route{}, plugins.Invalid},
		"not prepared":      {other, proxy.Route{"web1": 0}, plugins.NotFound},
	} {
		if err := d.proxy().Switch(t.Context(), host(), c.layout, c.change, nil); !errors.Is(err, c.kind) || errors.Is(err, proxy.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.kill(syscall.SIGTERM)
	if err := d.proxy().Switch(t.Context(), host(), l, proxytest.All(l, 100), nil); !errors.Is(err, plugins.Unavailable) {
		t.Errorf("haproxy down: %v", err)
	}
	if o := observe(t, d, l); len(o.Live) > 0 || o.Disk["web1"] != 0 || o.Problem == "" || o.Open != nil {
		t.Errorf("observed %+v", o)
	}
}

func TestAdminSocketIsOpenedWithBecomeWhereTheLoginMayNot(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t, "web1")
	c := &proxytest.Host{Host: host()}
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "unix" {
			return nil, &plugins.Error{Op: "dial", Host: "web1", Kind: plugins.Denied, Err: os.ErrPermission}
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	if err := d.proxy().Switch(t.Context(), c, l, proxytest.All(l, 100), nil); err != nil {
		t.Fatal(err)
	}
	if c.Becomes.Load() == 0 {
		t.Error("nothing ran with other rights")
	}
	observed(t, d, l, proxytest.All(l, 100))
	c.Before = func(args []string) error {
		if strings.Contains(args[2], "socat") {
			return &plugins.ExitError{Code: codeNoTool, Stderr: []byte("srw-rw---- 1 root haproxy 0 /run/haproxy/admin.sock\n")}
		}
		return nil
	}
	err := d.proxy().Switch(t.Context(), c, l, proxytest.All(l, 0), nil)
	if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "its group is haproxy") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkSwitch(b *testing.B) {
	d, l, _ := prepared(b, "web1")
	c := &proxytest.Host{Host: host()}
	slot := proxy.Blue
	for b.Loop() {
		slot = slot.Other()
		if err := d.proxy().Switch(b.Context(), c, l, proxytest.All(l, slot.All()), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(c.Runs.Load()+c.Dials.Load())/float64(b.N), "roundtrips/op")
}
