package haproxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

func TestSecondPrepareDoesNothing(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t, "web1", "web2")
	worker := d.worker()
	c := &proxytest.Host{Host: host()}
	if changed, err := d.proxy().Prepare(t.Context(), c, l); err != nil || changed {
		t.Errorf("Prepare: %t, %v", changed, err)
	}
	if c.Runs.Load() != 1 || c.Dials.Load() != 2 || c.Becomes.Load() != 0 {
		t.Errorf("it took %d commands, %d of them as root, and %d connections", c.Runs.Load(), c.Becomes.Load(), c.Dials.Load())
	}
	if got := d.worker(); got != worker {
		t.Errorf("worker %s became %s", worker, got)
	}
}

func TestPrepareNeverChangesWhatServes(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t, "web1", "web2")
	change(t.Context(), t, d, l, proxy.Route{"web1": 100, "web2": 30})
	former := l
	l.Members = []proxy.Member{l.Members[1], l.Members[0], proxytest.Member(t, "web3")}
	l.Members[0].Blue = append(l.Members[0].Blue[:1:1], proxytest.Serve(t, "web2", "blue"))
	if o := observe(t, d, l); !o.Outdated || o.Live["web1"] != 100 || o.Problem == "" {
		t.Errorf("before: %+v", o)
	}
	prepare(t, d, l, true)
	observed(t, d, l, proxy.Route{"web1": 100, "web2": 30, "web3": proxy.Off})
	prepare(t, d, former, true)
	observed(t, d, former, proxy.Route{"web1": 100, "web2": 30})
	former.Members = former.Members[1:]
	prepare(t, d, former, true)
	prepare(t, d, former, false)
	observed(t, d, former, proxy.Route{"web2": 30})
}

func TestPrepareRepairs(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t, "web1")
	switchTo(t.Context(), t, d, l, proxy.Green)
	for name, damage := range map[string]func() error{
		"map gone":   func() error { return os.Remove(mapFile(l)) },
		"names gone": func() error { return os.Remove(releasesFile(l)) },
		"map broken": func() error { return os.WriteFile(mapFile(l), []byte("web1 many\n"), 0o644) },
		"note gone":  func() error { return os.Remove(dataDir(l) + "/note") },
		"block by hand": func() error {
			d.write("haproxy.cfg", strings.Replace(d.file("haproxy.cfg"), "fall 2", "fall 9", 1))
			return nil
		},
		"live map by hand": func() error { return d.admin().load(t.Context(), l, data{proxytest.All(l, 0), nil}, nil) },
		"block gone": func() error {
			from, to, _ := span([]byte(d.file("haproxy.cfg")), "shop")
			d.write("haproxy.cfg", d.file("haproxy.cfg")[:from]+d.file("haproxy.cfg")[to:])
			return nil
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(name, err)
		}
		if changed, err := d.proxy().Prepare(t.Context(), host(), l); err != nil || !changed {
			t.Errorf("%s: %t, %v", name, changed, err)
		}
		observed(t, d, l, proxytest.All(l, 100))
		if got := proxytest.Get(t, url); got != "green" {
			t.Errorf("%s: the site answers %q", name, got)
		}
	}
}

// realWorld are configurations as they are met, as facts: what stands in them
// and how the file ends.
var realWorld = map[string]string{
	"debian": `global
	log /dev/log	local0
	log /dev/log	local1 notice
	stats socket DIR/admin.sock mode 660 level admin
	stats timeout 30s

	# Default SSL material locations
	ca-base /etc/ssl/certs
	crt-base /etc/ssl/private
	ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets

defaults
	log	global
	mode	http
	option	httplog
	option	dontlognull
        timeout connect 5000
        timeout client  50000
        timeout server  50000
	errorfile 503 /dev/null
`,
	"statistics": `global
    stats socket DIR/admin.sock level admin expose-fd listeners
    nbthread 2
listen stats # for people
    bind 127.0.0.1:PORT
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
    stats enable
    stats uri /
    stats auth "admin:p#ss"
defaults odd
    mode tcp
    option httpclose
    timeout client 1s
    timeout server 1s
    timeout connect 1s
    balance source
    default-server on-marked-down shutdown-sessions weight 7
`,
	"sections": `global
    stats socket unix@DIR/admin.sock mode 600 level admin
userlist people
    user alice insecure-password 'a b'
peers mine
    peer vm 127.0.0.1:PORT
resolvers dns
    nameserver one 127.0.0.1:53
defaults
    mode http
    timeout client 1m
    timeout server 1m
    timeout connect 1s
    option http-server-close
frontend f
    bind 127.0.0.1:PORT
    default_backend b
backend b
    stick-table type ip size 10k expire 1m peers mine
    server a 127.0.0.1:1 check inter 60s resolvers dns
`,
}

func TestPrepareLeavesEveryByteOfTheirs(t *testing.T) {
	t.Parallel()
	for name, text := range realWorld {
		for ending, convert := range map[string]func(string) string{
			"":             func(s string) string { return s },
			" with CRLF":   func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
			" in a folder": nil,
		} {
			t.Run(name+ending, func(t *testing.T) {
				t.Parallel()
				d := idle(t)
				text := strings.ReplaceAll(text, "DIR", d.dir)
				for strings.Contains(text, "PORT") {
					text = strings.Replace(text, "PORT", fmt.Sprint(proxytest.Port(t)), 1)
				}
				file, ours := "conf/a.cfg", "conf/a.cfg"
				if convert != nil {
					text = convert(text)
					d.conf = d.write(file, text)
				} else {
					d.write(file, text)
					d.write("conf/zz.cfg", "defaults\n    mode tcp\n")
					d.conf, ours = filepath.Join(d.dir, "conf"), "conf/teal-shop.cfg"
				}
				d.args = []string{"-W", "-L", "vm", "-f", d.conf}
				d.run()
				l := layout(t, d, "web1", "web2")
				prepare(t, d, l, true)
				switchTo(t.Context(), t, d, l, proxy.Green)
				observed(t, d, l, proxytest.All(l, 100))
				if resp, slot := proxytest.Request(t, "http://"+l.Members[0].Stable.String()); slot != "green" || resp.Close {
					t.Errorf("%s %q", resp.Status, slot)
				}
				block, _, err := textOf(l)
				if err != nil {
					t.Fatal(err)
				}
				want := text + block
				if convert == nil {
					want = text
					if diff := cmp.Diff(block, d.file(ours)); diff != "" {
						t.Error(diff)
					}
				}
				if diff := cmp.Diff(want, d.file(file)); diff != "" {
					t.Error(diff)
				}
				if info, err := os.Stat(filepath.Join(d.dir, file)); err != nil || info.Mode().Perm() != 0o640 {
					t.Errorf("%v, %v", info.Mode(), err)
				}
			})
		}
	}
}

func textOf(l proxy.Layout) (string, string, error) {
	block, generation, err := text(l)
	return string(block), generation, err
}

func TestTwoAppsInOneFile(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t, "web1")
	other := layout(t, d, "web1")
	other.App, other.Upstream, other.Dir = "shop.2", "other", filepath.Join(d.dir, "apps/other")
	if err := os.Mkdir(other.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	prepare(t, d, other, true)
	l.Members[0].Green = append(l.Members[0].Green, proxytest.Serve(t, "web1", "green"))
	prepare(t, d, l, true)
	prepare(t, d, other, false)
	switchTo(t.Context(), t, d, other, proxy.Green)
	observed(t, d, l, proxytest.All(l, 0))
	observed(t, d, other, proxytest.All(l, 100))
	if got := proxytest.Get(t, url); got != "blue" {
		t.Errorf("the site answers %q", got)
	}
	other.App = "shop.3" // wants what shop.2 has
	if _, err := d.proxy().Prepare(t.Context(), host(), other); !errors.Is(err, plugins.Conflict) {
		t.Errorf("error %v", err)
	}
}

func TestPrepareRefusesAndTouchesNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", proxytest.Loopback(proxytest.Port(t)).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	busy := netip.MustParseAddrPort(taken.Addr().String())
	for name, c := range map[string]struct {
		damage func(d *daemon, l *proxy.Layout)
		kind   plugins.Kind
		says   string
	}{
		"port taken": {func(_ *daemon, l *proxy.Layout) { l.Members[0].Stable = busy }, plugins.Conflict, "another program listens on " + busy.String()},
		"site bound by a frontend": {func(_ *daemon, l *proxy.Layout) {
			l.Site = &proxy.Site{Listen: []netip.AddrPort{proxytest.Loopback(9)}}
		}, plugins.Conflict, "haproxy.cfg:17 listens on 127.0.0.1:9 already"},
		"broken":         {func(d *daemon, _ *proxy.Layout) { d.write("haproxy.cfg", d.file("haproxy.cfg")+"    bogus word\n") }, plugins.Invalid, "haproxy.cfg:19] : unknown keyword 'bogus'"},
		"upstream taken": {func(d *daemon, _ *proxy.Layout) { d.write("haproxy.cfg", d.file("haproxy.cfg")+"backend shop\n") }, plugins.Conflict, "haproxy.cfg:19 defines the backend shop"},
		"no admin": {func(d *daemon, _ *proxy.Layout) {
			d.write("haproxy.cfg", strings.Replace(d.file("haproxy.cfg"), "level admin", "", 1))
		}, plugins.Denied, "haproxy.cfg:2: the admin socket must have the level admin"},
		"no socket": {func(d *daemon, _ *proxy.Layout) {
			d.write("haproxy.cfg", strings.Replace(d.file("haproxy.cfg"), "stats socket", "#", 1))
		}, plugins.Denied, "add `stats socket"},
		"bad layout": {func(_ *daemon, l *proxy.Layout) { l.Upstream = "a b" }, plugins.Invalid, "upstream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			d.write("haproxy.cfg", d.file("haproxy.cfg")+"\nfrontend other\n    bind 127.0.0.1:9\n    default_backend shop\n")
			l := layout(t, d, "web1")
			c.damage(d, &l)
			worker, before := d.worker(), d.file("haproxy.cfg")
			_, err := d.proxy().Prepare(t.Context(), host(), l)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Prepare: %v", err)
			}
			if _, err := d.proxy().Check(t.Context(), host(), l); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Check: %v", err)
			}
			if diff := cmp.Diff(before, d.file("haproxy.cfg")); diff != "" || d.worker() != worker {
				t.Error("something was touched", diff)
			}
		})
	}
}

// A port that is taken where the look before the reload cannot see it.
func TestReloadThatIsNotTakenIsPutBack(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t, "web1")
	before, disk, worker := d.file("haproxy.cfg"), d.file("apps/shop/haproxy/shares.map"), d.worker()
	l.Members = append(l.Members, proxytest.Member(t, "web2"))
	var taken net.Listener
	t.Cleanup(func() {
		if taken != nil {
			_ = taken.Close()
		}
	})
	c := &proxytest.Host{Host: host(), Before: func(args []string) error {
		if strings.Contains(args[2], "USR2") && taken == nil {
			var err error
			taken, err = net.Listen("tcp", l.Members[1].Stable.String())
			return err
		}
		return nil
	}}
	_, err := d.proxy().Prepare(t.Context(), c, l)
	if err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(before+disk, d.file("haproxy.cfg")+d.file("apps/shop/haproxy/shares.map")); diff != "" {
		t.Error(diff)
	}
	if got := proxytest.Get(t, url); got != "blue" || d.worker() != worker {
		t.Errorf("the site answers %q", got)
	}
}

func TestFindRefuses(t *testing.T) {
	t.Parallel()
	d := idle(t)
	d.conf = d.write("haproxy.cfg", fmt.Sprintf(mainConf, d.dir)+frontend(proxytest.Port(t), "shop")+"backend shop\n")
	d.args = []string{"-db", "-f", d.conf}
	d.run()
	l := layout(t, d, "web1")
	l.Upstream = "other"
	if _, err := d.proxy().Prepare(t.Context(), host(), l); !errors.Is(err, plugins.Unsupported) || !strings.Contains(err.Error(), "start it with -W") {
		t.Errorf("no master: %v", err)
	}
	if _, err := (&Proxy{Config: "/nowhere.cfg"}).Prepare(t.Context(), host(), l); !errors.Is(err, plugins.NotFound) {
		t.Errorf("another file: %v", err)
	}
	second := start(t)
	l.App = "nobodys" // or the haproxy of another test would be found to have it
	if _, err := new(Proxy).Check(t.Context(), host(), l); !errors.Is(err, plugins.Conflict) || !strings.Contains(err.Error(), second.conf) {
		t.Errorf("several: %v", err)
	}
}

func TestSiteOfAnAppWithoutAName(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := layout(t, d, "web1")
	site := proxytest.Port(t)
	l.Site = &proxy.Site{Listen: []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), site), netip.AddrPortFrom(netip.IPv6Unspecified(), site)}}
	if warnings, err := d.proxy().Check(t.Context(), host(), l); err != nil || len(warnings) > 0 {
		t.Errorf("Check: %q, %v", warnings, err)
	}
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Green)
	for _, address := range []string{"127.0.0.1", "[::1]"} {
		if resp, slot := proxytest.Request(t, fmt.Sprintf("http://%s:%d", address, site)); resp.StatusCode != http.StatusOK || slot != "green" {
			t.Errorf("%s: %s %q", address, resp.Status, slot)
		}
	}
	if got := d.proxy().Usage(l); got != "" {
		t.Errorf("usage %q", got)
	}
	d.kill(syscall.SIGTERM)
	if b, err := os.ReadFile(mapFile(l)); err != nil || !bytes.Equal(b, []byte("web1 100\n")) {
		t.Errorf("%q, %v", b, err)
	}
}
