package haproxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

// tally asks so many times and counts the members and slots that answer.
func tally(t testing.TB, n int, url string, header ...string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		resp, slot := proxytest.Request(t, url, header...)
		if resp.StatusCode != http.StatusOK {
			slot = resp.Status
		}
		counts[strings.TrimSpace(resp.Header.Get("Member")+" "+slot)]++
	}
	return counts
}

func TestHaproxyNamesTheReleasesItServes(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t, "web1", "web2")
	for _, step := range []struct {
		change proxy.Route
		holds  proxy.Releases
		want   proxy.Releases
	}{
		{
			proxy.Route{"web1": 0},
			proxy.Releases{"web1": {proxy.Blue: "r1"}},
			proxy.Releases{"web1": {proxy.Blue: "r1"}},
		},
		{
			proxy.Route{"web1": 100, "web2": 100},
			proxy.Releases{"web1": {proxy.Green: "r2"}, "web2": {proxy.Blue: "r1", proxy.Green: "r2"}},
			proxy.Releases{"web1": {proxy.Blue: "r1", proxy.Green: "r2"}, "web2": {proxy.Blue: "r1", proxy.Green: "r2"}},
		},
		{ // the share stays, the name does not
			proxy.Route{"web1": 100},
			proxy.Releases{"web1": {proxy.Green: "r3"}, "web2": {proxy.Green: "of-nobody"}},
			proxy.Releases{"web1": {proxy.Blue: "r1", proxy.Green: "r3"}, "web2": {proxy.Blue: "r1", proxy.Green: "r2"}},
		},
	} {
		if err := d.proxy().Switch(t.Context(), host(), l, step.change, step.holds); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, observe(t, d, l).Holds); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", step.holds, diff)
		}
	}
	last := observe(t, d, l).Holds
	if err := d.proxy().Switch(t.Context(), host(), l, proxytest.All(l, 0), proxy.Releases{"web1": {proxy.Blue: "r 1"}}); !errors.Is(err, plugins.Invalid) {
		t.Errorf("a name with a space: %v", err)
	}
	d.kill(syscall.SIGKILL)
	d.run()
	if diff := cmp.Diff(last, observe(t, d, l).Holds); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if err := os.Remove(releasesFile(l)); err != nil {
		t.Fatal(err)
	}
	prepare(t, d, l, true)
	if diff := cmp.Diff(last, observe(t, d, l).Holds); diff != "" {
		t.Errorf("after the file was lost (-want +got):\n%s", diff)
	}
}

func TestMembersBeginOffAndAreBalanced(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := layout(t, d, "web1", "web2", "web3")
	site := proxytest.Port(t)
	d.write("haproxy.cfg", d.file("haproxy.cfg")+frontend(site, "shop"))
	url := fmt.Sprintf("http://127.0.0.1:%d", site)
	prepare(t, d, l, true)
	observed(t, d, l, proxytest.All(l, proxy.Off))
	if diff := cmp.Diff(map[string]int{"503 Service Unavailable": 5}, tally(t, 5, "http://"+l.Members[0].Stable.String())); diff != "" {
		t.Errorf("all off (-want +got):\n%s", diff)
	}
	change(t.Context(), t, d, l, proxy.Route{"web2": 100})
	if diff := cmp.Diff(map[string]int{"web2 green": 20}, tally(t, 20, url)); diff != "" {
		t.Errorf("one on, at once (-want +got):\n%s", diff)
	}
	// A member that is off hands its requests on.
	if diff := cmp.Diff(map[string]int{"web2 green": 5}, tally(t, 5, "http://"+l.Members[0].Stable.String())); diff != "" {
		t.Errorf("by way of a member that is off (-want +got):\n%s", diff)
	}
	change(t.Context(), t, d, l, proxy.Route{"web1": 0, "web3": 0})
	if diff := cmp.Diff(map[string]int{"web1 blue": 10, "web2 green": 10, "web3 blue": 10}, tally(t, 30, url)); diff != "" {
		t.Errorf("all on (-want +got):\n%s", diff)
	}
	change(t.Context(), t, d, l, proxy.Route{"web2": proxy.Off})
	observed(t, d, l, proxy.Route{"web1": 0, "web2": proxy.Off, "web3": 0})
	if got := tally(t, 30, url); got["web1 blue"]+got["web3 blue"] != 30 || got["web1 blue"] < 8 || got["web3 blue"] < 8 {
		t.Errorf("one off again: %v", got)
	}
}

// Whoever asks for all members within one request sees all of them before the
// switch, or all of them after it: the version is committed at once. Two
// requests, one begun before and one after, never see the former share last.
func TestSeveralMembersSwitchAtOneInstant(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t, "web1", "web2", "web3")
	site := proxytest.Port(t)
	probe := fmt.Sprintf("\nfrontend probe\n    bind 127.0.0.1:%d\n    http-request return status 200 content-type text/plain lf-string \"", site)
	for _, m := range l.Members {
		probe += fmt.Sprintf("%%[str(%s),map_str_int(%s,-1)] ", m.Name, mapFile(l))
	}
	d.write("haproxy.cfg", strings.Replace(d.file("haproxy.cfg"), "# teal:shop begin", probe+"\"\n# teal:shop begin", 1))
	d.kill(9)
	d.run()
	var (
		wg   sync.WaitGroup
		stop = make(chan struct{})
		mu   sync.Mutex
		seen = map[string]int{}
	)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				body := proxytest.Get(t, fmt.Sprintf("http://127.0.0.1:%d", site))
				mu.Lock()
				seen[strings.TrimSpace(body)]++
				mu.Unlock()
			}
		})
	}
	slot := proxy.Green
	for range 40 {
		switchTo(t.Context(), t, d, l, slot)
		slot = slot.Other()
	}
	close(stop)
	wg.Wait()
	n := seen["0 0 0"] + seen["100 100 100"]
	if len(seen) > 2 || n < 200 {
		t.Errorf("seen %v", seen)
	}
}

func TestFivePercentAreFivePercent(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t, "web1")
	change(t.Context(), t, d, l, proxy.Route{"web1": 5})
	observed(t, d, l, proxy.Route{"web1": 5})
	green := 0
	for range 10000 {
		if proxytest.Get(t, url) == "green" {
			green++
		}
	}
	if green < 400 || green > 600 {
		t.Errorf("%d of 10000 requests", green)
	}
}

func TestStickyClientsStayOnASlot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sticky proxy.Sticky
		header func(client int) []string
	}{
		"cookie":  {proxy.Sticky{Cookie: "session"}, func(i int) []string { return []string{"Cookie", fmt.Sprintf("a=b; session=s%d", i)} }},
		"address": {proxy.Sticky{Address: true}, func(i int) []string { return []string{"X-Forwarded-For", fmt.Sprintf("10.0.%d.7, 10.9.9.9", i)} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			l := layout(t, d, "web1")
			l.Sticky = c.sticky
			prepare(t, d, l, true)
			change(t.Context(), t, d, l, proxy.Route{"web1": 40})
			url := "http://" + l.Members[0].Stable.String()
			green := 0
			for client := range 100 {
				counts := tally(t, 5, url, c.header(client)...)
				if len(counts) != 1 {
					t.Errorf("client %d: %v", client, counts)
				}
				green += counts["web1 green"] / 5
			}
			if green < 20 || green > 60 {
				t.Errorf("%d of 100 clients are on green", green)
			}
			if counts := tally(t, 100, url); len(counts) != 2 {
				t.Errorf("clients that cannot be kept: %v", counts)
			}
		})
	}
}

func TestAMemberWhoseSlotsAreDownIsStoodInFor(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := layout(t, d, "web1", "web2")
	blue, process := proxytest.ServeHTTP(t, "web1", "blue")
	l.Members[0].Blue = []netip.AddrPort{blue}
	l.Members[0].Green = []netip.AddrPort{proxytest.Loopback(proxytest.Port(t))} // nobody
	site := proxytest.Loopback(proxytest.Port(t))
	l.Site = &proxy.Site{Listen: []netip.AddrPort{site}, Names: []string{"shop.example.com", "*.shop.test"}}
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)
	url, shop := "http://"+site.String(), []string{"Host", "shop.example.com"}
	if got := tally(t, 10, url, shop...); got["web1 blue"] != 5 || got["web2 blue"] != 5 {
		t.Errorf("before: %v", got)
	}
	_ = process.Close()
	if got := tally(t, 50, url, shop...); got["web2 blue"] < 49 { // the connection that broke may have had one
		t.Errorf("after: %v", got)
	}
	time.Sleep(1200 * time.Millisecond)
	if got := tally(t, 20, url, shop...); got["web2 blue"] != 20 {
		t.Errorf("later: %v", got)
	}
	for name, want := range map[string]int{"SHOP.example.com:80": 200, "a.shop.test": 200, "shop.test": 404, "other.example.com": 404} {
		if resp, _ := proxytest.Request(t, url, "Host", name); resp.StatusCode != want {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	if resp, _ := proxytest.Request(t, url+"/.teal/slot", shop...); resp.StatusCode != http.StatusNotFound {
		t.Errorf("/.teal/slot from outside: %s", resp.Status)
	}
	_, headers := proxytest.Request(t, url+"/headers", append(shop, "X-Odd", "a,  b")...)
	for _, want := range []string{"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: shop.example.com", "X-Real-Ip: 127.0.0.1", "X-Odd: a,  b"} {
		if !strings.Contains(headers, want) {
			t.Errorf("%s is missing in\n%s", want, headers)
		}
	}
}

// The headers that reach the app by the user's frontend are those that reach
// it without teal.
func TestHeadersAreTheUsersOwn(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := layout(t, d, "web1")
	with, without := proxytest.Port(t), proxytest.Port(t)
	d.write("haproxy.cfg", d.file("haproxy.cfg")+frontend(with, "shop")+frontend(without, "plain")+
		fmt.Sprintf("\nbackend plain\n    server a %s\n", l.Members[0].Blue[0]))
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)
	header := []string{"Host", "shop.example.com", "X-Forwarded-For", "10.1.2.3", "Cookie", "a=b"}
	_, got := proxytest.Request(t, fmt.Sprintf("http://127.0.0.1:%d/headers", with), header...)
	_, want := proxytest.Request(t, fmt.Sprintf("http://127.0.0.1:%d/headers", without), header...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOpenCountsRequestsAndTunnelsOfEachSlot(t *testing.T) {
	t.Parallel()
	d, l, url := prepared(t, "web1")
	load := proxytest.NewLoad(url)
	for range 3 {
		load.Client(load.WebSocket)
	}
	counted := func(want map[proxy.Slot]int) {
		t.Helper()
		var got map[proxy.Slot]int
		for range 50 {
			got = observe(t, d, l).Open["web1"]
			if cmp.Equal(want, got) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("open %v, want %v", got, want)
	}
	counted(map[proxy.Slot]int{proxy.Blue: 3, proxy.Green: 0})
	switchTo(t.Context(), t, d, l, proxy.Green)
	load.Client(load.WebSocket)
	counted(map[proxy.Slot]int{proxy.Blue: 3, proxy.Green: 1})
	load.End(t, 4)
	counted(map[proxy.Slot]int{proxy.Blue: 0, proxy.Green: 0})
}
