package nginx

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

var update = flag.Bool("update", false, "write the golden files")

func layout() proxy.Layout {
	return proxy.Layout{
		App:      "shop",
		Upstream: "shop",
		Protocol: proxy.HTTP,
		Dir:      "/var/lib/teal/shop",
		Members: []proxy.Member{{
			Name:   "web1",
			Stable: netip.MustParseAddrPort("127.0.0.1:20000"),
			Blue:   []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:20001")},
			Green:  []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:20002")},
		}},
	}
}

func TestTextIsTheGoldenOne(t *testing.T) {
	site := layout()
	site.App, site.Upstream, site.Dir = "shop-2.eu", "shop_backend", "/srv/teal/shop-2.eu"
	site.Members[0].Stable = netip.MustParseAddrPort("[::1]:20000")
	site.Sticky.Cookie = "sid.x"
	site.Members = append(site.Members, proxy.Member{
		Name:   "Web_2.eu",
		Stable: netip.MustParseAddrPort("127.0.0.1:20010"),
		Blue:   []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:20001"), netip.MustParseAddrPort("10.0.0.2:20003")},
		Green:  []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::2]:20002"), netip.MustParseAddrPort("[2001:db8::2]:20004")},
	})
	site.Site = &proxy.Site{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80"), netip.MustParseAddrPort("[::]:80"), netip.MustParseAddrPort("192.0.2.7:8080")},
		Names:  []string{"shop.example.com", "*.shop.example.com"},
	}
	grpc := layout()
	grpc.Protocol, grpc.Sticky.Address = proxy.GRPC, true
	grpc.Site = &proxy.Site{Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}}
	for file, l := range map[string]proxy.Layout{
		"testdata/grpc.conf": grpc,
		"testdata/shop.conf": layout(),
		"testdata/site.conf": site,
	} {
		got, generation, err := text(l)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
		if n := strings.Count(string(got), generation); n != 2 || len(generation) != 12 {
			t.Errorf("%s: generation %q occurs %d times", file, generation, n)
		}
	}
}

func TestTextOfASiteWithoutNamesTakesEveryRequest(t *testing.T) {
	l := layout()
	l.Site = &proxy.Site{Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}}
	got, _, err := text(l)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got, []byte("\n    listen 80 default_server;\n")) || bytes.Contains(got, []byte("server_name")) {
		t.Errorf("got:\n%s", got)
	}
}

func TestGenerationChangesWithTheLayoutOnly(t *testing.T) {
	_, first, err := text(layout())
	if err != nil {
		t.Fatal(err)
	}
	_, again, _ := text(layout())
	if first != again {
		t.Errorf("the same layout gave %s and %s", first, again)
	}
	other := layout()
	other.Members[0].Green[0] = netip.MustParseAddrPort("127.0.0.1:20009")
	if _, second, _ := text(other); second == first {
		t.Errorf("another layout gave %s as well", second)
	}
}

func TestTextRefusesWhatNginxWouldMisread(t *testing.T) {
	var none netip.AddrPort
	zone := netip.MustParseAddrPort("[fe80::1%eth0]:80")
	for name, change := range map[string]func(*proxy.Layout){
		"app empty":           func(l *proxy.Layout) { l.App = "" },
		"app with a slash":    func(l *proxy.Layout) { l.App = "../shop" },
		"app with a dot":      func(l *proxy.Layout) { l.App = ".shop" },
		"upstream injection":  func(l *proxy.Layout) { l.Upstream = "shop{}" },
		"folder relative":     func(l *proxy.Layout) { l.Dir = "shop" },
		"folder unclean":      func(l *proxy.Layout) { l.Dir = "/var/lib/../shop" },
		"folder with $":       func(l *proxy.Layout) { l.Dir = "/var/$http_host" },
		"folder with a blank": func(l *proxy.Layout) { l.Dir = "/var/a b" },
		"protocol unknown":    func(l *proxy.Layout) { l.Protocol = "quic" },
		"protocol tcp":        func(l *proxy.Layout) { l.Protocol = proxy.TCP },
		"cookie injection":    func(l *proxy.Layout) { l.Sticky.Cookie = "a;b" },
		"sticky in two ways":  func(l *proxy.Layout) { l.Sticky = proxy.Sticky{Cookie: "a", Address: true} },
		"stable missing":      func(l *proxy.Layout) { l.Members[0].Stable = none },
		"stable public":       func(l *proxy.Layout) { l.Members[0].Stable = netip.MustParseAddrPort("0.0.0.0:20000") },
		"member without name": func(l *proxy.Layout) { l.Members[0].Name = "" },
		"member twice": func(l *proxy.Layout) {
			l.Members = append(l.Members, l.Members[0])
			l.Members[1].Stable = netip.MustParseAddrPort("127.0.0.1:20009")
		},
		"slots with the same address": func(l *proxy.Layout) { l.Members[0].Green = l.Members[0].Blue },
		"no member":                   func(l *proxy.Layout) { l.Members = nil },
		"no green":                    func(l *proxy.Layout) { l.Members[0].Green = nil },
		"member without port":         func(l *proxy.Layout) { l.Members[0].Blue[0] = netip.MustParseAddrPort("127.0.0.1:0") },
		"member with a zone":          func(l *proxy.Layout) { l.Members[0].Blue[0] = zone },
		"member is stable":            func(l *proxy.Layout) { l.Members[0].Blue[0] = l.Members[0].Stable },
		"site nowhere":                func(l *proxy.Layout) { l.Site = &proxy.Site{} },
		"site with a zone":            func(l *proxy.Layout) { l.Site = &proxy.Site{Listen: []netip.AddrPort{zone}} },
		"site on stable":              func(l *proxy.Layout) { l.Site = &proxy.Site{Listen: []netip.AddrPort{l.Members[0].Stable}} },
		"site name injection": func(l *proxy.Layout) {
			l.Site = &proxy.Site{Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}, Names: []string{"a; return 200"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := layout()
			change(&l)
			if conf, _, err := text(l); err == nil {
				t.Errorf("it was written:\n%s", conf)
			}
		})
	}
}

func TestIDsOfTwoAppsNeverCollide(t *testing.T) {
	seen := map[string]string{}
	for _, app := range []string{"a-b", "a_b", "a.b", "ab", "a__b", "a-_b", "a_2db", "A-b", "Shop", "shop", strings.Repeat("a-", 20), strings.Repeat("a-", 21), strings.Repeat("a", 40)} {
		if other, ok := seen[strings.ToLower(id(app))]; ok {
			t.Errorf("%s and %s are both %s", app, other, id(app))
		}
		if seen[strings.ToLower(id(app))] = app; len(id(app)) > 26 {
			t.Errorf("%s is %s, too long for a variable", app, id(app))
		}
	}
}
