package nginx

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

// prepareAll prepares several apps with one reload.
func prepareAll(t testing.TB, d *daemon, ls ...proxy.Layout) {
	t.Helper()
	for _, l := range ls {
		conf, _, err := text(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := makeRoute(t.Context(), host(), l, false); err != nil {
			t.Fatal(err)
		}
		if l.App != ls[0].App {
			d.write("conf.d/teal-"+l.App+".conf", string(conf))
		}
	}
	for _, l := range ls {
		if _, err := d.proxy().Prepare(t.Context(), host(), l); err != nil {
			t.Fatal(err)
		}
	}
}

// do makes a request of its own and returns who answered, as member/slot.
func do(t testing.TB, method, url string, header ...string) (who, body string) {
	t.Helper()
	var content io.Reader = http.NoBody
	if method == http.MethodPost || method == http.MethodPut {
		content = strings.NewReader(strings.Repeat("x", 5000))
	}
	resp, body := proxytest.Send(t, method, url, content, header...)
	if resp.StatusCode != http.StatusOK {
		return resp.Status, body
	}
	return resp.Header.Get("Member") + "/" + resp.Header.Get("App"), body
}

// tally counts who answers n requests.
func tally(t testing.TB, n int, method, url string, header ...string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for range n {
		who, _ := do(t, method, url, header...)
		seen[who]++
	}
	return seen
}

func stable(l proxy.Layout, i int) string { return "http://" + l.Members[i].Stable.String() + "/" }

// names returns the keys of a tally without their counts.
func names(seen map[string]int) map[string]bool {
	found := map[string]bool{}
	for who := range seen {
		found[who] = true
	}
	return found
}

func TestMembersOfALoadBalancer(t *testing.T) {
	t.Parallel()
	d, l := start(t), fleet(t, "shop", 3)
	at := proxytest.Port(t)
	d.write("sites-enabled/shop", userSite(at, "shop"))
	site := fmt.Sprintf("http://127.0.0.1:%d/", at)
	prepare(t, d, l, true)
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete}

	t.Run("begin with off, and all off is 503 with a word why", func(t *testing.T) {
		if diff := cmp.Diff(serving(proxytest.All(l, proxy.Off)), observe(t, d, l)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, method := range methods {
			who, body := do(t, method, site)
			if who != "503 Service Temporarily Unavailable" || method != http.MethodHead && body != "shop: every member is off\n" {
				t.Errorf("%s: %s, %q", method, who, body)
			}
		}
	})
	t.Run("one that is on takes the requests of those that are off", func(t *testing.T) {
		change(t.Context(), t, d, l, proxy.Route{"web2": 100})
		for _, method := range methods {
			if diff := cmp.Diff(map[string]int{"web2/green": 12}, tally(t, 12, method, site)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", method, diff)
			}
		}
		if diff := cmp.Diff(serving(proxy.Route{"web1": proxy.Off, "web2": 100, "web3": proxy.Off}), observe(t, d, l)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("those that are on share the requests of one that is off", func(t *testing.T) {
		change(t.Context(), t, d, l, proxy.Route{"web1": 0})
		seen := tally(t, 400, http.MethodPost, stable(l, 2))
		if seen["web1/blue"] < 150 || seen["web2/green"] < 150 || len(seen) != 2 {
			t.Errorf("web3 is off: %v", seen)
		}
	})
	t.Run("each has its share, and a change leaves the others", func(t *testing.T) {
		change(t.Context(), t, d, l, proxy.Route{"web1": 100, "web3": 0})
		change(t.Context(), t, d, l, proxy.Route{"web2": 0})
		want := proxy.Route{"web1": 100, "web2": 0, "web3": 0}
		if diff := cmp.Diff(serving(want), observe(t, d, l)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		want2 := map[string]int{"web1/green": 10, "web2/blue": 10, "web3/blue": 10}
		seen := tally(t, 30, http.MethodGet, site)
		if diff := cmp.Diff(names(want2), names(seen)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", seen, diff)
		}
	})
	t.Run("switch at one instant", func(t *testing.T) { atOneInstant(t, d, l) })
	t.Run("under load no request fails", func(t *testing.T) {
		switchTo(t.Context(), t, d, l, proxy.Blue)
		load := proxytest.StartLoad(strings.TrimSuffix(site, "/"))
		for i, slot := range []proxy.Slot{"green", "blue", "green", "blue", "green", "blue", "green", "blue"} {
			time.Sleep(40 * time.Millisecond)
			flip(t, load, d, l, slot)
			load.Anyone()
			change(t.Context(), t, d, l, proxy.Route{"web1": proxy.Off, "web2": []proxy.Share{proxy.Off, 0, 100}[i%3]})
		}
		load.End(t, 100)
	})
	t.Run("survive a restart and a SIGKILL with their shares", func(t *testing.T) {
		r := proxy.Route{"web1": proxy.Off, "web2": 5, "web3": 100}
		change(t.Context(), t, d, l, r)
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			d.kill(sig)
			o := observe(t, d, l)
			if diff := cmp.Diff(r, o.Disk); diff != "" || len(o.Live) > 0 || o.Problem == "" {
				t.Errorf("while it is down: %+v", o)
			}
			d.run()
			if diff := cmp.Diff(serving(r), observe(t, d, l)); diff != "" {
				t.Errorf("after %s (-want +got):\n%s", sig, diff)
			}
		}
		prepare(t, d, l, false)
	})
	t.Run("come and go with one reload, and the others keep their shares", func(t *testing.T) { comeAndGo(t, d, l) })
}

// atOneInstant asks the members in turn while they switch: once one has
// answered from its new slot, none may answer from its old one.
func atOneInstant(t *testing.T, d *daemon, l proxy.Layout) {
	switchTo(t.Context(), t, d, l, proxy.Blue)
	for round := range 6 {
		slot := []proxy.Slot{proxy.Green, proxy.Blue}[round%2]
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				turned := false
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					who, _ := do(t, http.MethodGet, stable(l, i%len(l.Members)))
					_, got, _ := strings.Cut(who, "/")
					if turned && got != string(slot) {
						t.Errorf("%s after %s had begun to serve", who, slot)
						return
					}
					turned = turned || got == string(slot)
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		switchTo(t.Context(), t, d, l, slot)
		for i := range l.Members {
			if who, _ := do(t, http.MethodGet, stable(l, i)); who != l.Members[i].Name+"/"+string(slot) {
				t.Errorf("after the switch: %s", who)
			}
		}
		close(stop)
		wg.Wait()
	}
}

func comeAndGo(t *testing.T, d *daemon, l proxy.Layout) {
	change(t.Context(), t, d, l, proxy.Route{"web1": 100, "web2": 20, "web3": 0})
	more := l
	more.Members = append([]proxy.Member{proxytest.Member(t, "web0.Example")}, l.Members[1:]...)
	workers := d.workers()
	prepare(t, d, more, true)
	if d.workers() == workers {
		t.Error("nothing reloaded")
	}
	want := proxy.Route{"web0.Example": proxy.Off, "web2": 20, "web3": 0}
	if diff := cmp.Diff(serving(want), observe(t, d, more)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c, err := net.Dial("tcp", l.Members[0].Stable.String()); err == nil {
		c.Close()
		t.Error("nginx still listens for the member that left")
	}
	links, err := filepath.Glob(routeDir(l) + "/cur/[a-z0-9_]*")
	if err != nil || len(links) != 3 {
		t.Errorf("links %q, %v", links, err)
	}
	change(t.Context(), t, d, more, proxy.Route{"web0.Example": 100})
	if who, _ := do(t, http.MethodGet, stable(more, 0)); who != "web0.Example/green" {
		t.Errorf("the new member: %s", who)
	}
	prepare(t, d, more, false)
}

func TestNginxNamesTheReleasesItServes(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := fleet(t, "shop", 2)
	prepare(t, d, l, true)
	named := func(when string, want proxy.Releases) {
		t.Helper()
		if diff := cmp.Diff(want, observe(t, d, l).Holds); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	turn := func(change proxy.Route, holds proxy.Releases) {
		t.Helper()
		if err := d.proxy().Switch(t.Context(), host(), l, change, holds); err != nil {
			t.Fatal(err)
		}
	}
	named("before any switch", nil)
	turn(proxy.Route{"web1": 0}, proxy.Releases{"web1": {proxy.Blue: "r1"}})
	named("one slot", proxy.Releases{"web1": {proxy.Blue: "r1"}})
	turn(proxytest.All(l, 100), proxy.Releases{"web1": {proxy.Green: "r2"}, "web2": {proxy.Blue: "r1", proxy.Green: "r2"}})
	both := map[proxy.Slot]string{proxy.Blue: "r1", proxy.Green: "r2"}
	named("all of them", proxy.Releases{"web1": both, "web2": both})
	// The share stays, the name does not; and who is not in the change is left alone.
	turn(proxy.Route{"web1": 100}, proxy.Releases{"web1": {proxy.Green: "r3"}, "web2": {proxy.Green: "of-nobody"}})
	last := proxy.Releases{"web1": {proxy.Blue: "r1", proxy.Green: "r3"}, "web2": both}
	named("a name alone", last)
	if err := d.proxy().Switch(t.Context(), host(), l, proxytest.All(l, 0), proxy.Releases{"web1": {proxy.Blue: "r 1"}}); !errors.Is(err, plugins.Invalid) {
		t.Errorf("a name with a space: %v", err)
	}
	if err := os.RemoveAll(routeDir(l) + "/cur/.says"); err != nil {
		t.Fatal(err)
	}
	prepare(t, d, l, true)
	turn(proxytest.All(l, 100), last)
	named("after they were lost", last)
}

func TestSetsDoNotPileUp(t *testing.T) {
	t.Parallel()
	l := fleetOnPaper(3)
	l.Dir = publicDir(t)
	if err := makeRoute(t.Context(), host(), l, false); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		former, _, err := turn(t.Context(), host(), l, proxy.Route{"web1": proxy.Share(i % 2 * 100), "web2": proxy.Off}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(routeDir(l), former)); err != nil {
			t.Errorf("the set that was just left: %v", err)
		}
	}
	sets, err := filepath.Glob(routeDir(l) + "/s[0-9]*")
	if err != nil || len(sets) > 17 {
		t.Errorf("%d sets, %v", len(sets), err)
	}
	before, _ := os.Readlink(routeDir(l) + "/cur")
	if _, _, err := turn(t.Context(), host(), l, proxy.Route{"web1": 100}, nil); err != nil {
		t.Error(err)
	}
	if after, _ := os.Readlink(routeDir(l) + "/cur"); after != before {
		t.Errorf("a change that changes nothing made %s of %s", after, before)
	}
}

// fleetOnPaper is a layout of members that do not run.
func fleetOnPaper(n int) proxy.Layout {
	l := layout()
	l.Members = nil
	for i := range n {
		at := func(port int) netip.AddrPort { return proxytest.Loopback(uint16(port + 10*i)) }
		l.Members = append(l.Members, proxy.Member{
			Name: fmt.Sprintf("web%d", i+1), Stable: at(20000),
			Blue: []netip.AddrPort{at(20001)}, Green: []netip.AddrPort{at(20002)},
		})
	}
	return l
}

// nobody returns an address where connections are refused.
func nobody(t testing.TB) []netip.AddrPort {
	return []netip.AddrPort{proxytest.Loopback(proxytest.Port(t))}
}

func TestRequestsLeaveADeadMember(t *testing.T) {
	t.Parallel()
	half, twins, gone, sole, mute := fleet(t, "half", 4), fleet(t, "twins", 2), fleet(t, "gone", 3), fleet(t, "sole", 1), fleet(t, "mute", 2)
	for _, i := range []int{1, 2} { // both slots, of two in a row
		half.Members[i].Blue, half.Members[i].Green = nobody(t), nobody(t)
	}
	for i := range twins.Members { // of all members the slot that serves
		twins.Members[i].Green = nobody(t)
	}
	for i := range gone.Members {
		gone.Members[i].Blue, gone.Members[i].Green = nobody(t), nobody(t)
	}
	sole.Members[0].Blue = append(nobody(t), append(nobody(t), sole.Members[0].Blue...)...) // of three replicas two
	mute.Members[0].Blue = []netip.AddrPort{deaf(t)}
	d := start(t)
	prepareAll(t, d, half, twins, gone, sole, mute)

	t.Run("to the others, whatever the method", func(t *testing.T) {
		switchTo(t.Context(), t, d, half, proxy.Blue)
		for i := range half.Members {
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
				seen := tally(t, 40, method, stable(half, i))
				if seen["web1/blue"]+seen["web4/blue"] != 40 {
					t.Errorf("%s to web%d: %v", method, i+1, seen)
				}
			}
		}
	})
	t.Run("also one that is off leads past them", func(t *testing.T) {
		change(t.Context(), t, d, half, proxy.Route{"web1": proxy.Off})
		for i := range half.Members {
			if seen := tally(t, 40, http.MethodPost, stable(half, i)); seen["web4/blue"] != 40 {
				t.Errorf("to web%d: %v", i+1, seen)
			}
		}
	})
	t.Run("to the other slot, when no member serves from its own", func(t *testing.T) {
		switchTo(t.Context(), t, d, twins, proxy.Green)
		seen := tally(t, 40, http.MethodPost, stable(twins, 0))
		if seen["web1/blue"]+seen["web2/blue"] != 40 {
			t.Errorf("%v", seen)
		}
	})
	t.Run("nowhere when all are dead, and soon", func(t *testing.T) {
		switchTo(t.Context(), t, d, gone, proxy.Blue)
		begin := time.Now()
		if seen := tally(t, 20, http.MethodGet, stable(gone, 1)); seen["502 Bad Gateway"] != 20 {
			t.Errorf("%v", seen)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	t.Run("of replicas to those that live", func(t *testing.T) {
		switchTo(t.Context(), t, d, sole, proxy.Blue)
		if seen := tally(t, 60, http.MethodPost, stable(sole, 0)); seen["web1/blue"] != 60 {
			t.Errorf("%v", seen)
		}
	})
	t.Run("also of a host that does not even refuse", func(t *testing.T) {
		switchTo(t.Context(), t, d, mute, proxy.Blue)
		begin := time.Now()
		if who, _ := do(t, http.MethodPost, stable(mute, 0)); who != "web2/blue" {
			t.Error(who)
		}
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	t.Run("a header of a client's changes nothing", func(t *testing.T) {
		for _, forged := range []string{"9", "x-1", "generation-2"} {
			if seen := tally(t, 10, http.MethodPost, stable(half, 1), "Teal-Hop", forged); seen["web4/blue"] != 10 {
				t.Errorf("%s: %v", forged, seen)
			}
		}
	})
}

// deaf returns an address where a connection is neither taken nor refused, as
// of a host that has lost its power: a listener whose queue is full.
func deaf(t testing.TB) netip.AddrPort {
	t.Helper()
	at := proxytest.Loopback(proxytest.Port(t))
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		c, err := net.DialTimeout("tcp", at.String(), 50*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return at
}

func TestSharesOfRequests(t *testing.T) {
	t.Parallel()
	any1, cookie, address := fleet(t, "any", 1), fleet(t, "cookie", 2), fleet(t, "address", 1)
	cookie.Sticky.Cookie = "s-id.x"
	address.Sticky.Address = true
	d := start(t)
	prepareAll(t, d, any1, cookie, address)

	t.Run("five percent are five percent", func(t *testing.T) {
		change(t.Context(), t, d, any1, proxy.Route{"web1": 5})
		if diff := cmp.Diff(serving(proxy.Route{"web1": 5}), observe(t, d, any1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var green atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 2500 {
					if who, _ := do(t, http.MethodGet, stable(any1, 0)); who == "web1/green" {
						green.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := green.Load(); n < 400 || n > 600 {
			t.Errorf("%d of 10000", n)
		}
	})
	for _, c := range []struct {
		app        proxy.Layout
		name, form string
	}{
		{cookie, "Cookie", "a=b; s-id.x=%s; c=d"},
		{address, "X-Forwarded-For", "198.51.100.%s, 10.0.0.1"},
	} {
		t.Run("a client stays by its "+c.name, func(t *testing.T) {
			change(t.Context(), t, d, c.app, proxytest.All(c.app, 50))
			slots := map[string]int{}
			for client := range 50 {
				header := fmt.Sprintf(c.form, fmt.Sprint(client))
				seen := map[string]int{}
				for i := range 5 {
					who, _ := do(t, http.MethodGet, stable(c.app, i%len(c.app.Members)), c.name, header)
					_, slot, _ := strings.Cut(who, "/")
					seen[slot]++
				}
				if len(seen) != 1 {
					t.Errorf("client %d: %v", client, seen)
				}
				for slot := range seen {
					slots[slot]++
				}
			}
			if slots["blue"] < 10 || slots["green"] < 10 {
				t.Errorf("clients by slot: %v", slots)
			}
			if seen := tally(t, 100, http.MethodGet, stable(c.app, 0)); seen["web1/blue"] < 20 || seen["web1/green"] < 20 {
				t.Errorf("clients that are not known: %v", seen)
			}
			other := tally(t, 40, http.MethodGet, stable(c.app, 0), "Cookie", "xs-id.x=1; s-idAx=1; s-id.x=")
			if c.name == "Cookie" && len(other) != 2 {
				t.Errorf("another cookie: %v", other)
			}
		})
	}
}
