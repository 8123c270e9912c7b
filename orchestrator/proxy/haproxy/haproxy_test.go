package haproxy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// A daemon is a haproxy of a test's own, in a folder of its own.
type daemon struct {
	t    testing.TB
	dir  string
	conf string
	args []string
	cmd  *exec.Cmd
}

// mainConf has what a user's defaults may have, none of which may reach the
// app's own sections.
const mainConf = `global
    stats socket %[1]s/admin.sock mode 600 level admin

defaults
    mode http
    timeout connect 1s
    timeout client 20s
    timeout server 20s
    option idle-close-on-response
    option forwardfor
    monitor-uri /user/monitor
    stats uri /user/stats
    stats enable
    errorfile 503 /dev/null
`

// frontend is a section that a user wrote.
func frontend(p uint16, upstream string) string {
	return fmt.Sprintf("\nfrontend user_%s\n    bind 127.0.0.1:%d\n    default_backend %s\n", upstream, p, upstream)
}

func installed(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("haproxy"); err != nil {
		unable(t, "haproxy is not installed")
	}
}

// unable skips a test that this machine cannot run, but not where all must run.
func unable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// start runs a haproxy with the usual configuration and more sections.
func start(t testing.TB, more ...string) *daemon {
	t.Helper()
	d := idle(t)
	d.conf = d.write("haproxy.cfg", fmt.Sprintf(mainConf, d.dir)+strings.Join(more, ""))
	d.args = []string{"-W", "-f", d.conf, "-p", filepath.Join(d.dir, "pid")}
	d.run()
	return d
}

// idle is a haproxy that does not run yet.
func idle(t testing.TB) *daemon {
	t.Helper()
	installed(t)
	dir, err := os.MkdirTemp("", "teal-haproxy-") //nolint:usetesting // the path of t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir}
	t.Cleanup(func() {
		d.kill(syscall.SIGTERM)
		_ = os.RemoveAll(dir)
	})
	return d
}

func (d *daemon) write(name, text string) string {
	d.t.Helper()
	file := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		d.t.Fatal(err)
	}
	return file
}

func (d *daemon) file(name string) string {
	b, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		return "none"
	}
	return string(b)
}

// run starts the process and waits until its admin socket answers.
func (d *daemon) run() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command("haproxy", d.args...)
	d.cmd.Dir = d.dir
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for range 500 {
		if _, err := d.admin().ask(context.Background(), "show info"); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.t.Fatalf("haproxy does not answer: %s", d.file("log"))
}

func (d *daemon) admin() admin { return admin{host(), filepath.Join(d.dir, "admin.sock")} }

// kill ends the master, or the whole process group with SIGKILL, as a power
// loss would.
func (d *daemon) kill(sig syscall.Signal) {
	if d.cmd == nil || d.cmd.ProcessState != nil {
		return
	}
	pid := d.cmd.Process.Pid
	if sig == syscall.SIGKILL {
		pid = -pid
	}
	_ = syscall.Kill(pid, sig)
	_ = d.cmd.Wait()
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
}

// worker returns the process that serves.
func (d *daemon) worker() string {
	d.t.Helper()
	said, err := d.admin().ask(context.Background(), "show info")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(said) {
		if pid, ok := strings.CutPrefix(line, "Pid: "); ok {
			return strings.TrimSpace(pid)
		}
	}
	return ""
}

func (d *daemon) proxy() *Proxy { return &Proxy{Config: d.conf} }

// layout starts an app in both slots of each member, and returns a layout.
func layout(t testing.TB, d *daemon, members ...string) proxy.Layout {
	t.Helper()
	l := proxy.Layout{App: "shop", Upstream: "shop", Dir: filepath.Join(d.dir, "apps/shop"), Protocol: proxy.HTTP}
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range members {
		l.Members = append(l.Members, proxytest.Member(t, name))
	}
	return l
}

func host() plugins.Host { return plugintest.Local("web1") }

// prepared starts a haproxy with a user's frontend for an app that it does not
// know yet, as people do, prepares it and lets blue of all members serve.
func prepared(t testing.TB, members ...string) (*daemon, proxy.Layout, string) {
	t.Helper()
	d := start(t)
	l := layout(t, d, members...)
	site := proxytest.Port(t)
	d.write("haproxy.cfg", d.file("haproxy.cfg")+frontend(site, "shop"))
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)
	return d, l, fmt.Sprintf("http://127.0.0.1:%d", site)
}

func prepare(t testing.TB, d *daemon, l proxy.Layout, want bool) {
	t.Helper()
	changed, err := d.proxy().Prepare(t.Context(), host(), l)
	if err != nil {
		t.Fatal(err)
	}
	if changed != want {
		t.Fatalf("Prepare changed: %t, want %t", changed, want)
	}
}

func switchTo(ctx context.Context, t testing.TB, d *daemon, l proxy.Layout, slot proxy.Slot) {
	t.Helper()
	change(ctx, t, d, l, proxytest.All(l, slot.All()))
}

func change(ctx context.Context, t testing.TB, d *daemon, l proxy.Layout, r proxy.Route) {
	t.Helper()
	if err := d.proxy().Switch(ctx, host(), l, r, nil); err != nil {
		t.Fatal(err)
	}
}

func observe(t testing.TB, d *daemon, l proxy.Layout) proxy.Observation {
	t.Helper()
	o, err := d.proxy().Observe(t.Context(), host(), l)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// observed checks what Observe says of the shares, with nothing wrong.
func observed(t testing.TB, d *daemon, l proxy.Layout, want proxy.Route) {
	t.Helper()
	o := observe(t, d, l)
	if o.Problem != "" || o.Outdated || !o.Prepared || mapText(o.Disk) != mapText(want) || mapText(o.Live) != mapText(want) || len(o.Open) != len(want) {
		t.Errorf("observed %+v, want %v", o, want)
	}
}
