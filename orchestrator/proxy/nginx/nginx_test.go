package nginx

import (
	"bytes"
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

// A daemon is an nginx of a test's own, in a folder of its own.
type daemon struct {
	t    testing.TB
	dir  string
	conf string
	cmd  *exec.Cmd
}

// publicDir makes a folder that the workers of nginx may enter.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "teal-nginx-") //nolint:usetesting // the folder of t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

const mainConf = `
worker_processes 2;
pid nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    open_file_cache max=1000;
    open_file_cache_valid 60s;
    add_header X-Outer yes;
    gzip on;
    gzip_proxied any;
    gzip_types *;
    include conf.d/*.conf;
    include sites-enabled/*;
}
`

// start runs an nginx with the given site files, which may be none.
func start(t testing.TB, sites ...string) *daemon {
	t.Helper()
	files := map[string]string{"nginx.conf": mainConf}
	for i, site := range sites {
		files[fmt.Sprintf("sites-enabled/site%d", i)] = site
	}
	return launch(t, files)
}

// launch runs an nginx with these files, in which %[1]s is their folder.
func launch(t testing.TB, files map[string]string) *daemon {
	t.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("nginx is not installed")
		}
		t.Skip("nginx is not installed")
	}
	d := &daemon{t: t, dir: publicDir(t)}
	for _, sub := range []string{"conf.d", "sites-enabled"} {
		if err := os.Mkdir(filepath.Join(d.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		d.write(name, strings.ReplaceAll(text, "%[1]s", d.dir))
	}
	d.conf = filepath.Join(d.dir, "nginx.conf")
	d.run()
	t.Cleanup(func() { d.kill(syscall.SIGTERM) })
	return d
}

func (d *daemon) write(name, text string) string {
	d.t.Helper()
	file := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	return file
}

// run starts the process and waits for its workers.
func (d *daemon) run() {
	d.t.Helper()
	d.cmd = exec.Command("nginx", "-p", d.dir, "-c", d.conf, "-g", "daemon off; master_process on;")
	d.cmd.Stderr = d.t.Output()
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for range 200 {
		if len(strings.Fields(d.workers())) == 2 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.t.Fatal("nginx has not its two workers")
}

// kill ends the whole process group, as a power loss would with SIGKILL.
func (d *daemon) kill(sig syscall.Signal) {
	if d.cmd.ProcessState != nil {
		return
	}
	pid := d.cmd.Process.Pid
	if sig == syscall.SIGKILL {
		pid = -pid
	}
	_ = syscall.Kill(pid, sig)
	_ = d.cmd.Wait()
}

// workers returns the processes that serve, without those that leave.
func (d *daemon) workers() string {
	pid := d.cmd.Process.Pid
	kids, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var found []string
	for k := range strings.FieldsSeq(string(kids)) {
		title, _ := os.ReadFile("/proc/" + k + "/cmdline")
		if bytes.HasPrefix(title, []byte("nginx: worker process")) && !bytes.Contains(title, []byte("shutting down")) {
			found = append(found, k)
		}
	}
	return strings.Join(found, " ")
}

func (d *daemon) proxy() *Proxy { return &Proxy{Config: d.conf} }

func (d *daemon) file(name string) string {
	b, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		return "none"
	}
	return string(b)
}

// app starts a program in each slot, which answers with the slot's name, and
// returns a layout for both.
func app(t testing.TB, name string) proxy.Layout { return fleet(t, name, 1) }

// fleet is app for members web1 to webN.
func fleet(t testing.TB, name string, n int) proxy.Layout {
	t.Helper()
	l := proxy.Layout{
		App:      name,
		Upstream: name,
		Protocol: proxy.HTTP,
		Dir:      filepath.Join(publicDir(t), name),
	}
	if err := os.Mkdir(l.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		l.Members = append(l.Members, proxytest.Member(t, fmt.Sprintf("web%d", i+1)))
	}
	return l
}

// userSite is a site that a user wrote.
func userSite(p uint16, upstream string) string {
	return fmt.Sprintf(`server {
    listen 127.0.0.1:%d;
    location / {
        proxy_pass http://%s;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
        proxy_read_timeout 60s;
    }
}
`, p, upstream)
}

func host() plugins.Host { return plugintest.Local("web1") }

// prepared starts an nginx, adds a user's site of an app that it does not know
// yet, as people do, and prepares it.
func prepared(t testing.TB) (*daemon, proxy.Layout, string) {
	t.Helper()
	site := proxytest.Port(t)
	d := start(t)
	l := app(t, "shop")
	d.write("sites-enabled/shop", userSite(site, "shop"))
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

// switchTo lets the slot of every member get all requests.
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

// serving is an observation without a complaint.
func serving(r proxy.Route) proxy.Observation {
	return proxy.Observation{Prepared: true, Disk: r, Live: r}
}
