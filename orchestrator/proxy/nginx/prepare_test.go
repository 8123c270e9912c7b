package nginx

import (
	"context"
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
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

func TestSecondPrepareDoesNothing(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	workers := d.workers()
	prepare(t, d, l, false)
	c := &proxytest.Host{Host: host()}
	if changed, err := d.proxy().Prepare(t.Context(), c, l); err != nil || changed {
		t.Errorf("Prepare: %t, %v", changed, err)
	}
	if c.Runs.Load() != 1 || c.Dials.Load() != 1 || c.Becomes.Load() != 0 {
		t.Errorf("it took %d commands, %d of them as root, and %d connections", c.Runs.Load(), c.Becomes.Load(), c.Dials.Load())
	}
	if got := d.workers(); got != workers {
		t.Errorf("workers %s became %s", workers, got)
	}
}

func TestPrepareNeverChangesWhatServes(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t)
	switchTo(t.Context(), t, d, l, proxy.Green)
	l.Members[0].Blue = append(l.Members[0].Blue, proxytest.Serve(t, "web1", "blue"))
	if o := observe(t, d, l); !o.Outdated || o.Live["web1"] != 100 {
		t.Errorf("before: %+v", o)
	}
	prepare(t, d, l, true)
	if diff := cmp.Diff(serving(proxy.Route{"web1": 100}), observe(t, d, l)); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
	if got := proxytest.Get(t, url); got != "green" {
		t.Errorf("the site answers %q", got)
	}
}

func TestPrepareRewritesWhatWasChangedByHand(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	conf := d.file("conf.d/teal-shop.conf")
	d.write("conf.d/teal-shop.conf", strings.ReplaceAll(conf, "4s", "60s"))
	if o := observe(t, d, l); !o.Outdated {
		t.Errorf("not seen: %+v", o)
	}
	prepare(t, d, l, true)
	if diff := cmp.Diff(conf, d.file("conf.d/teal-shop.conf")); diff != "" {
		t.Error(diff)
	}
	prepare(t, d, l, false)
}

func TestPrepareRestoresALostFile(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	switchTo(t.Context(), t, d, l, proxy.Green)
	if err := os.Remove(filepath.Join(d.dir, "conf.d/teal-shop.conf")); err != nil {
		t.Fatal(err)
	}
	if o := observe(t, d, l); !o.Prepared || !o.Outdated || o.Disk["web1"] != 100 {
		t.Errorf("before: %+v", o)
	}
	prepare(t, d, l, true)
	if o := observe(t, d, l); o.Outdated || cmp.Diff(proxy.Route{"web1": 100}, o.Live) != "" {
		t.Errorf("after: %+v", o)
	}
}

func TestPrepareRepairsTheFolderWithoutAReload(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t)
	workers := d.workers()
	for name, damage := range map[string]func(route string) error{
		"all of it gone": os.RemoveAll,
		"words gone":     func(route string) error { return os.Remove(route + "/cur/.says/web1") },
		"words wrong":    func(route string) error { return os.WriteFile(route+"/cur/.says/web1", []byte("??"), 0o644) },
		"words of another": func(route string) error {
			return os.WriteFile(route+"/cur/.says/web1", []byte("blue 95 green 5\n- -\n"), 0o644)
		},
		"announced still": func(route string) error { return os.WriteFile(route+"/announce", nil, 0o644) },
		"link gone":       func(route string) error { return os.Remove(route + "/cur") },
		"member gone":     func(route string) error { return os.Remove(route + "/cur/web1") },
		"member astray": func(route string) error {
			return errors.Join(os.Remove(route+"/cur/web1"), os.Symlink("../w0", route+"/cur/web1"))
		},
		"stranger there":  func(route string) error { return os.Symlink("../w000", route+"/cur/web9") },
		"bucket too many": func(route string) error { return os.WriteFile(route+"/w000/7", nil, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(routeDir(l)); err != nil {
				t.Fatal(err)
			}
			if name != "bucket too many" { // that nobody sees but a request in a hundred
				prepare(t, d, l, true)
			}
			if name == "all of it gone" || name == "link gone" {
				if diff := cmp.Diff(serving(proxytest.All(l, 0)), observe(t, d, l)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
			switchTo(t.Context(), t, d, l, proxy.Green)
			switchTo(t.Context(), t, d, l, proxy.Blue)
			for range 100 {
				if got := proxytest.Get(t, url); got != "blue" {
					t.Fatalf("the site answers %q", got)
				}
			}
			prepare(t, d, l, false)
			if got := d.workers(); got != workers {
				t.Errorf("workers %s became %s", workers, got)
			}
		})
	}
}

func TestPrepareFinishesWhatAnotherRunBegan(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	l.Members[0].Green = append(l.Members[0].Green, proxytest.Serve(t, "web1", "green"))
	conf, _, err := text(l)
	if err != nil {
		t.Fatal(err)
	}
	d.write("conf.d/teal-shop.conf", string(conf)) // it died before the reload
	prepare(t, d, l, true)
	if o := observe(t, d, l); o.Outdated {
		t.Errorf("after: %+v", o)
	}
}

func TestPrepareWithAPortTakenChangesNothing(t *testing.T) {
	t.Parallel()
	for _, stable := range []bool{true, false} {
		t.Run(fmt.Sprintf("stable %t", stable), func(t *testing.T) {
			d := start(t)
			l := app(t, "shop")
			taken := l.Members[0].Stable
			if !stable {
				taken = netip.AddrPortFrom(netip.IPv4Unspecified(), proxytest.Port(t))
				l.Site = &proxy.Site{Listen: []netip.AddrPort{taken}, Names: []string{"shop"}}
			}
			other, err := net.Listen("tcp", taken.String())
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			workers := d.workers()
			_, err = d.proxy().Prepare(t.Context(), host(), l)
			if !errors.Is(err, plugins.Conflict) || !strings.Contains(err.Error(), fmt.Sprint(taken.Port())) {
				t.Errorf("error %v", err)
			}
			nothingWritten(t, d, l, workers)
		})
	}
}

// nothingWritten checks that a Prepare that failed left nothing.
func nothingWritten(t *testing.T, d *daemon, l proxy.Layout, workers string) {
	t.Helper()
	if got := d.file("conf.d/teal-" + l.App + ".conf"); got != "none" {
		t.Errorf("the file is there:\n%s", got)
	}
	if got := d.workers(); got != workers {
		t.Errorf("workers %s became %s", workers, got)
	}
	if o := observe(t, d, l); o.Prepared {
		t.Errorf("observed %+v", o)
	}
}

// A reload that nginx accepts and drops is what the check of ports is to
// prevent; it is what happens when the port is taken in between.
func TestLostReloadIsFoundOutAndUndone(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t)
	before, workers := d.file("conf.d/teal-shop.conf"), d.workers()
	s, err := d.proxy().survey(t.Context(), host(), l)
	if err != nil {
		t.Fatal(err)
	}
	l.Site = &proxy.Site{Listen: []netip.AddrPort{proxytest.Loopback(proxytest.Port(t))}, Names: []string{"shop"}}
	other, err := net.Listen("tcp", l.Site.Listen[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conf, generation, err := text(l)
	if err != nil {
		t.Fatal(err)
	}
	err = s.load(t.Context(), host(), l, conf, generation)
	if err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(before, d.file("conf.d/teal-shop.conf")); diff != "" {
		t.Errorf("the file (-before +after):\n%s", diff)
	}
	if got := d.workers(); got != workers {
		t.Errorf("workers %s became %s", workers, got)
	}
	if got := proxytest.Get(t, url); got != "blue" {
		t.Errorf("the site answers %q", got)
	}
}

// A reload took, but the workers cannot read the folder.
func TestUselessConfigurationIsTakenBack(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t, userSite(proxytest.Port(t), "127.0.0.1:1"))
	l := app(t, "shop")
	s, err := d.proxy().survey(t.Context(), host(), l)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeRoute(t.Context(), host(), l, false); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	conf, generation, err := text(l)
	if err != nil {
		t.Fatal(err)
	}
	err = s.load(t.Context(), host(), l, conf, generation)
	if err == nil || !strings.Contains(err.Error(), "cannot read "+l.Dir) {
		t.Errorf("error %v", err)
	}
	if got := d.file("conf.d/teal-shop.conf"); got != "none" {
		t.Errorf("the file is there:\n%s", got)
	}
	if c, err := net.Dial("tcp", l.Members[0].Stable.String()); err == nil {
		c.Close()
		t.Error("nginx still listens for the app")
	}
}

func TestBrokenConfigurationOfTheUserIsNotTouched(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := app(t, "shop")
	workers := d.workers()
	d.write("sites-enabled/broken", "server { listen 127.0.0.1:1; nonsense on; }")
	_, err := d.proxy().Prepare(t.Context(), host(), l)
	if !errors.Is(err, plugins.Invalid) || !strings.Contains(err.Error(), `unknown directive "nonsense"`) {
		t.Errorf("error %v", err)
	}
	nothingWritten(t, d, l, workers)
}

func TestPrepareIsRefusedByNginxAndUndone(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := app(t, "shop")
	// Broken in another place as well, which the missing upstream hides.
	d.write("sites-enabled/shop", userSite(proxytest.Port(t), "shop"))
	d.write("sites-enabled/shop2", "server { listen 127.0.0.1:1; location / { proxy_pass http://warehouse.invalid; } }")
	workers := d.workers()
	_, err := d.proxy().Prepare(t.Context(), host(), l)
	if !errors.Is(err, plugins.Invalid) || !strings.Contains(err.Error(), "warehouse.invalid") {
		t.Errorf("error %v", err)
	}
	nothingWritten(t, d, l, workers)
}

func TestKilledNginxServesTheSameSlotAgain(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t)
	switchTo(t.Context(), t, d, l, proxy.Green)
	d.kill(syscall.SIGKILL)
	o := observe(t, d, l)
	if !o.Prepared || o.Outdated || o.Disk["web1"] != 100 || len(o.Live) > 0 || o.Problem == "" {
		t.Errorf("while it is down: %+v", o)
	}
	d.run()
	var got string
	for range 100 {
		if got = answerOf(url); got != "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got != "green" {
		t.Errorf("the site answers %q", got)
	}
	prepare(t, d, l, false)
}

func answerOf(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	return resp.Header.Get("App")
}

func TestTwoAppsShareAnNginx(t *testing.T) {
	t.Parallel()
	d := start(t)
	shop, news := app(t, "shop"), app(t, "shop-news")
	prepare(t, d, shop, true)
	prepare(t, d, news, true)
	prepare(t, d, shop, false)
	switchTo(t.Context(), t, d, shop, proxy.Blue)
	switchTo(t.Context(), t, d, news, proxy.Green)
	if s, n := observe(t, d, shop), observe(t, d, news); s.Live["web1"] != 0 || n.Live["web1"] != 100 {
		t.Errorf("shop %+v\nshop-news %+v", s, n)
	}
	news.Members[0].Stable = shop.Members[0].Stable
	if o := observe(t, d, news); !strings.Contains(o.Problem, "belongs to the app shop") {
		t.Errorf("at the other's port: %+v", o)
	}
}

func TestSeveralNginxOnAHost(t *testing.T) {
	one, two := start(t), start(t)
	l := app(t, "several")
	if _, err := new(Proxy).Check(t.Context(), host(), l); !errors.Is(err, plugins.Conflict) {
		t.Errorf("without a word which: %v", err)
	}
	if _, err := (&Proxy{Config: "/nowhere/nginx.conf"}).Prepare(t.Context(), host(), l); !errors.Is(err, plugins.NotFound) {
		t.Errorf("with a wrong word: %v", err)
	}
	prepare(t, two, l, true)
	if _, err := new(Proxy).Check(t.Context(), host(), l); err != nil {
		t.Errorf("without a word, when one has the app: %v", err)
	}
	if one.file("conf.d/teal-several.conf") != "none" || two.file("conf.d/teal-several.conf") == "none" {
		t.Error("the wrong one was configured")
	}
}

func TestTheSiteOfTealServes(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := app(t, "shop")
	l.Members[0].Stable = netip.AddrPortFrom(netip.IPv6Loopback(), proxytest.Port(t))
	at, at6 := proxytest.Loopback(proxytest.Port(t)), netip.AddrPortFrom(netip.IPv6Loopback(), proxytest.Port(t))
	l.Site = &proxy.Site{Listen: []netip.AddrPort{at, at6}}
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)
	for _, a := range []netip.AddrPort{at, at6} {
		if got := proxytest.Get(t, "http://"+a.String()+"/"); got != "blue" {
			t.Errorf("%s answers %q", a, got)
		}
	}
	url := "http://" + at.String()
	if got := proxytest.Get(t, url+"/.teal/slot"); !strings.Contains(got, "404") {
		t.Errorf("the public sees %q", got)
	}
	switchTo(t.Context(), t, d, l, proxy.Green)
	if got := proxytest.Get(t, url); got != "green" {
		t.Errorf("the site answers %q", got)
	}
	if got := proxytest.Get(t, url+"/headers"); !strings.Contains(got, "X-Forwarded-For: 127.0.0.1") || !strings.Contains(got, "X-Forwarded-Proto: http") {
		t.Errorf("the app gets\n%s", got)
	}
}

// The answer of the app reaches the user's site as it was: one header of the
// http block, no second compression, and commands to nginx are for the site.
func TestTheServerOfTealChangesNoAnswer(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t)
	direct := answer10(t, l.Members[0].Stable.String())
	if !strings.HasPrefix(direct, "HTTP/1.1 200") {
		t.Errorf("a client of HTTP/1.0 without a Host gets\n%s", direct)
	}
	for _, word := range []string{"X-Outer", "gzip", "Teal-"} {
		if strings.Contains(direct, word) {
			t.Errorf("%s was added:\n%s", word, direct)
		}
	}
	resp, err := http.Get("http://" + l.Members[0].Stable.String() + "/accel")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("X-Accel-Redirect"); got != "/inside/of/the/site" {
		t.Errorf("X-Accel-Redirect %q", got)
	}
	if got := proxytest.Get(t, url); got != "blue" {
		t.Errorf("through the site: %q", got)
	}
	_ = d
}

func answer10(t *testing.T, addr string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestARefusedConnectionGoesToTheOtherSlot(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := app(t, "shop")
	l.Members[0].Blue = []netip.AddrPort{proxytest.Loopback(proxytest.Port(t)), proxytest.Loopback(proxytest.Port(t))} // nobody there
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+l.Members[0].Stable.String(), strings.NewReader("once"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Header.Get("App") != "green" {
		t.Errorf("status %d by %q", resp.StatusCode, resp.Header.Get("App"))
	}
}

func TestPrepareGoesBackWhenTheCallerLeaves(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := app(t, "shop")
	ctx, cancel := context.WithCancel(t.Context())
	c := &proxytest.Host{Host: host(), After: func(args []string) {
		if strings.Contains(strings.Join(args, " "), "teal-new") {
			cancel()
		}
	}}
	if _, err := d.proxy().Prepare(ctx, c, l); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := d.file("conf.d/teal-shop.conf"); got != "none" {
		t.Error("the file is there")
	}
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("workers of another user than the test's need root")
	}
	t.Skip("workers of another user than the test's need root")
}
