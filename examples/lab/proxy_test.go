//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
	"github.com/teal-deploy/teal/examples/shop"
)

// haproxyShop is a backend as teal may have it, of all hosts.
func haproxyShop(hosts []*lab.Host) string {
	text := "frontend shop_site\n\tbind :80 proto h2\n\tdefault_backend shop\n\nbackend shop\n\tbalance roundrobin\n"
	for _, h := range hosts {
		text += fmt.Sprintf("\tserver %s %s:8080 proto h2\n", h, h.Addr)
	}
	return text
}

// nginxShop is an upstream as teal may have it, of all hosts.
func nginxShop(hosts []*lab.Host) string {
	text := "upstream shop {\n"
	for _, h := range hosts {
		text += fmt.Sprintf("\tserver %s:8080;\n", h.Addr)
	}
	return text + "\tkeepalive 16;\n}\nserver {\n\tlisten 80 http2;\n\tlocation / { grpc_pass grpc://shop; }\n}\n"
}

// installShop makes a release of the shop by hand in a folder of a host.
const installShop = `mkdir -p /srv/app/built && cd /srv/app/built && echo '[]' >catalogue.json
printf 'release=%s\nbuild=%s\n' "$1" "$1" >manifest
echo '<body data-release="{{.Release}}">' >page.html`

// sum returns all answers.
func sum[K comparable](of map[K]int) (n int) {
	for _, answers := range of {
		n += answers
	}
	return n
}

// overTLS sends clients of HTTP/2 and gRPC to the TLS sites, which must be there.
func overTLS(t *testing.T, l *lab.Lab) func(*load.Config) {
	t.Helper()
	roots, err := l.Roots()
	if err != nil {
		t.Fatal(err)
	}
	return func(c *load.Config) {
		c.Roots = roots
		for i := range c.Hosts {
			c.Hosts[i].TLS = netip.AddrPortFrom(c.Hosts[i].Addr.Addr(), 443)
		}
	}
}

// grpcLoad sends calls and requests of HTTP/2 to all fronts.
func grpcLoad(t *testing.T, l *lab.Lab, change ...func(*load.Config)) load.Report {
	t.Helper()
	c := load.Config{
		Net: l.Network(), Duration: 10 * time.Second, Requests: 200, Transfer: 300 * time.Millisecond,
		Clients: map[load.Class]int{load.GRPC: 2, load.GRPCStream: 1, load.HTTP2: 2},
	}
	for _, h := range l.Fronts() {
		c.Hosts = append(c.Hosts, load.Host{Name: h.Name, Addr: netip.AddrPortFrom(h.Addr, 80)})
	}
	for _, edit := range change {
		edit(&c)
	}
	var rec load.Recorder
	began := time.Now()
	if err := load.Run(t.Context(), c, &rec); err != nil {
		t.Fatal(err)
	}
	rep := rec.Report()
	if !rep.OK() {
		t.Errorf("%d of %d failed: %v", rep.Failed, rep.Requests, rep.Failures)
	}
	if n := sum(rec.Answers(began, time.Now())); n != rep.Requests {
		t.Errorf("%d answers to %d requests", n, rep.Requests)
	}
	return rep
}

// put writes a file of a host.
func put(t *testing.T, h *lab.Host, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root%s", h.PID(), path), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestBalancersOfHAProxyLeadToPublishedPorts(t *testing.T) {
	t.Parallel()
	l := start(t, lab.Config{Hosts: 2, Balancers: 2, Proxy: lab.HAProxy, Engine: lab.Docker, Services: true})
	ctx := t.Context()
	image, err := l.PushImage(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range l.Hosts() {
		must(t)(h.Exec(ctx, "sh", "-c", installShop, "lab", h.Name))
		must(t)(h.SSH(ctx, fmt.Sprintf(
			"docker run --detach --name shop --restart always --env SHOP_PROTOCOL=grpc --volume /srv/app:/srv/app --publish %s:8080:8080 %s", h.Addr, image)))
	}
	t.Run("hosts behind balancers run no proxy, and these no engine", func(t *testing.T) {
		const list = "ls -d /run/docker.sock /run/haproxy.pid /run/nginx.pid 2>/dev/null || true"
		for h, want := range map[*lab.Host]string{l.Host(1): "/run/docker.sock", l.Balancers()[1]: "/run/haproxy.pid"} {
			if got := must(t)(h.Exec(ctx, "sh", "-c", list)); got != want {
				t.Errorf("%s has %q, want %q", h, got, want)
			}
		}
	})
	t.Run("the login user commands the admin socket", func(t *testing.T) {
		const ask = `cd /run/haproxy && id -nG | tr ' ' '\n' | grep -c -x haproxy
[ -r admin.sock ] && [ -w admin.sock ] && stat -c '%a %U %G' admin.sock`
		if got, want := must(t)(l.Balancers()[0].SSH(ctx, ask)), "1\n660 root haproxy"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	lb := l.Balancers()[0]
	config := must(t)(lb.Exec(ctx, "cat", "/etc/haproxy/haproxy.cfg")) + "\n\n" + haproxyShop(l.Hosts())
	for _, b := range l.Balancers() {
		put(t, b, "/etc/haproxy/haproxy.cfg", config, 0o644)
		for range 2 { // the second replaces the first
			if err := b.AddTLSSite(ctx, lab.TLSSite{Upstream: "shop", GRPC: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("clients reach every host through every balancer", func(t *testing.T) {
		for _, change := range []func(*load.Config){func(*load.Config) {}, overTLS(t, l)} {
			if rep := grpcLoad(t, l, change); len(rep.Releases) != 4 {
				t.Errorf("releases %+v, want two of each balancer", rep.Releases)
			}
		}
	})
	t.Run("HAProxy comes back", func(t *testing.T) { testHAProxyFaults(t, lb) })
	t.Run("a restarted host is reached again", func(t *testing.T) {
		if err := l.Host(2).Reboot(ctx); err != nil {
			t.Fatal(err)
		}
		get(t, fmt.Sprintf("http://%s:8080/up", l.Host(2).Addr))
		if rep := grpcLoad(t, l, overTLS(t, l)); len(rep.Releases) != 4 {
			t.Errorf("releases %+v, want two of each balancer", rep.Releases)
		}
	})
}

// up asks the TLS site of a host whether it answers.
func up(t *testing.T, l *lab.Lab, h *lab.Host, timeout time.Duration) error {
	t.Helper()
	roots, err := l.Roots()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+h.Addr.String()+"/up", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		return fmt.Errorf("%s %s", resp.Proto, resp.Status)
	}
	return nil
}

func testHAProxyFaults(t *testing.T, h *lab.Host) {
	ctx := t.Context()
	// The first of the workers is the one that answers on the admin socket.
	worker := func() string {
		return must(t)(h.Exec(ctx, "sh", "-c", `cat /run/haproxy.pid; cat "/proc/$(cat /run/haproxy.pid)/task"/*/children`))
	}
	for _, fault := range []struct {
		name string
		do   func(*lab.Host, context.Context) error
	}{
		{"reload", (*lab.Host).ReloadProxy},
		{"restart", (*lab.Host).RestartProxy},
		{"reboot", (*lab.Host).Reboot},
		{"kill", func(h *lab.Host, ctx context.Context) error {
			if err := h.KillProxy(ctx); err != nil {
				return err
			}
			return h.Ready(ctx)
		}},
	} {
		before := worker()
		if err := fault.do(h, ctx); err != nil {
			t.Fatalf("%s: %v", fault.name, err)
		}
		if worker() == before {
			t.Errorf("%s: the processes are still %q", fault.name, before)
		}
	}
	if err := h.FreezeProxy(ctx); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := h.Ready(short); err == nil {
		t.Error("a frozen proxy is ready")
	}
	if err := h.ThawProxy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.Ready(ctx); err != nil {
		t.Error(err)
	}
}

func TestBalancerOfNginxLeadsToHosts(t *testing.T) {
	t.Parallel()
	l := start(t, lab.Config{Hosts: 1, Balancers: 1})
	ctx, h, lb := t.Context(), l.Host(1), l.Balancers()[0]
	program := filepath.Join(t.TempDir(), "shop")
	if err := shop.BuildApp(ctx, program); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	put(t, h, "/usr/local/bin/shop", string(b), 0o755)
	must(t)(h.Exec(ctx, "sh", "-c", installShop, "lab", "7"))
	must(t)(h.Exec(ctx, "sh", "-c", "setsid shop -protocol grpc >/dev/null 2>&1 &"))
	get(t, fmt.Sprintf("http://%s:8080/up", h.Addr))
	put(t, lb, "/etc/nginx/conf.d/shop.conf", nginxShop(l.Hosts()), 0o644)
	if err := lb.AddTLSSite(ctx, lab.TLSSite{Upstream: "shop", GRPC: true}); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*load.Config){func(*load.Config) {}, overTLS(t, l)} {
		if rep := grpcLoad(t, l, change); len(rep.Releases) != 1 || rep.Releases[0].Release != "7" {
			t.Errorf("releases %+v, want 7 alone", rep.Releases)
		}
	}
	t.Run("the site of an app that speaks HTTP", func(t *testing.T) {
		if err := lb.AddTLSSite(ctx, lab.TLSSite{Upstream: "shop"}); err != nil {
			t.Fatal(err)
		}
		if err := up(t, l, lb, 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Run("nginx stays away when it is killed", func(t *testing.T) { testNginxFaults(t, l, lb) })
	t.Run("a full disk", func(t *testing.T) { testFullDisk(t, lb) })
	t.Run("a site that cannot be", func(t *testing.T) {
		if err := lb.AddTLSSite(ctx, lab.TLSSite{Upstream: "no such; thing"}); err == nil {
			t.Error("nginx took a broken configuration")
		}
		if err := lb.ReloadProxy(ctx); err != nil {
			t.Errorf("the broken configuration is left: %v", err)
		}
	})
	t.Run("a host without a proxy", func(t *testing.T) {
		for name, do := range map[string]func(*lab.Host, context.Context) error{
			"reload": (*lab.Host).ReloadProxy, "kill": (*lab.Host).KillProxy, "restart": (*lab.Host).RestartProxy,
			"freeze": (*lab.Host).FreezeProxy, "thaw": (*lab.Host).ThawProxy,
			"site": func(h *lab.Host, ctx context.Context) error { return h.AddTLSSite(ctx, lab.TLSSite{Upstream: "shop"}) },
		} {
			if err := do(h, ctx); err == nil || !strings.Contains(err.Error(), "runs no proxy") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func testNginxFaults(t *testing.T, l *lab.Lab, h *lab.Host) {
	ctx := t.Context()
	if err := h.KillProxy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := up(t, l, h, time.Second); err == nil {
		t.Error("a killed nginx answers")
	}
	if err := h.FreezeProxy(ctx); err == nil {
		t.Error("a killed nginx was frozen")
	}
	for range 2 { // one that is dead, one that runs
		if err := h.RestartProxy(ctx); err != nil {
			t.Fatal(err)
		}
		if err := up(t, l, h, 5*time.Second); err != nil {
			t.Error(err)
		}
	}
	if err := h.FreezeProxy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := up(t, l, h, 300*time.Millisecond); err == nil {
		t.Error("a frozen nginx answers")
	}
	if err := h.ThawProxy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := up(t, l, h, 5*time.Second); err != nil {
		t.Error(err)
	}
}

func testFullDisk(t *testing.T, h *lab.Host) {
	ctx := t.Context()
	const dir = "/var/lib/teal"
	must(t)(h.Exec(ctx, "sh", "-c", `mkdir -p "$1/a"; chown deploy "$1/a"; chmod 700 "$1/a"; echo old >"$1/a/file"; echo gone >"$1/b"; ln -s a/file "$1/link"`, "t", dir))
	if err := h.FillDisk(ctx, dir); err != nil {
		t.Fatal(err)
	}
	if err := h.FillDisk(ctx, dir); err == nil {
		t.Error("a full disk was filled")
	}
	if got := must(t)(h.Exec(ctx, "sh", "-c", `cat "$1/link"; stat -c '%a %U' "$1/a"`, "t", dir)); got != "old\n700 deploy" {
		t.Errorf("on the full disk is %q", got)
	}
	if out, err := h.Exec(ctx, "sh", "-c", `cat /etc/hostname >"$1/a/new"`, "t", dir); err == nil || !strings.Contains(err.Error(), "No space left") {
		t.Errorf("a file on a full disk: %s, %v", out, err)
	}
	must(t)(h.Exec(ctx, "sh", "-c", `rm -f "$1/a/new" "$1/b"; mv "$1/a/file" "$1/a/moved"`, "t", dir))
	if err := h.FreeDisk(ctx, dir); err != nil {
		t.Fatal(err)
	}
	must(t)(h.Exec(ctx, "sh", "-c", `echo text >"$1/a/new"`, "t", dir))
	if err := h.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	if got := must(t)(h.Exec(ctx, "sh", "-c", `cd "$1" && find . -mindepth 1 -printf '%P\n' | sort | tr '\n' ' '; cat a/moved a/new; stat -c '%a %U' a`, "t", dir)); got != "a a/moved a/new link old\ntext\n700 deploy" {
		t.Errorf("on the disk is %q", got)
	}
	if err := h.FreeDisk(ctx, dir); err == nil {
		t.Error("a disk that is not full was freed")
	}
	must(t)(h.Exec(ctx, "ls", dir+"/a/moved"))
}
