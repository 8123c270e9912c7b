package haproxy

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// balanced is a layout with all that a layout can have.
func balanced() proxy.Layout {
	a := netip.MustParseAddrPort
	l := sample()
	l.Members = append(l.Members, proxy.Member{
		Name: "web2", Stable: a("[::1]:7002"),
		Blue: []netip.AddrPort{a("10.0.0.2:8001")}, Green: []netip.AddrPort{a("[2001:db8::1]:8002")},
	})
	l.Sticky.Cookie = "session"
	l.Up = &proxy.Up{Path: "/up?x=1", Host: "shop.example.com"}
	l.Site = &proxy.Site{Listen: []netip.AddrPort{a("0.0.0.0:80"), a("[::]:80")}, Names: []string{"shop.example.com", "*.shop.example.com"}}
	return l
}

func TestTextIsAsTheGoldenFilesHaveIt(t *testing.T) {
	t.Parallel()
	tcp := balanced()
	tcp.Protocol, tcp.Sticky, tcp.Up, tcp.Site = proxy.TCP, proxy.Sticky{}, nil, nil
	for name, l := range map[string]proxy.Layout{"host": sample(), "balancer": balanced(), "tcp": tcp} {
		got, _, err := text(l)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".cfg")
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
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// haproxy itself reads what is written for any layout, without a warning.
func TestHaproxyAcceptsEveryText(t *testing.T) {
	t.Parallel()
	installed(t)
	for name, change := range map[string]func(l *proxy.Layout){
		"one member": func(l *proxy.Layout) { *l = sample() },
		"balanced":   func(*proxy.Layout) {},
		"by address": func(l *proxy.Layout) { l.Sticky = proxy.Sticky{Address: true} },
		"grpc":       func(l *proxy.Layout) { l.Protocol = proxy.GRPC },
		"tcp":        func(l *proxy.Layout) { l.Protocol, l.Sticky, l.Up, l.Site.Names = proxy.TCP, proxy.Sticky{}, nil, nil },
		"odd names":  func(l *proxy.Layout) { l.App, l.Upstream, l.Members[0].Name = "a.b-c_d", "1.x", "_web.1-a" },
		"many members": func(l *proxy.Layout) {
			for i := range 60 {
				m := l.Members[0]
				m.Name += strings.Repeat("x", i+1)
				m.Stable = proxytest.Loopback(uint16(20000 + i))
				m.Blue, m.Green = []netip.AddrPort{proxytest.Loopback(uint16(21000 + i))}, []netip.AddrPort{proxytest.Loopback(uint16(22000 + i))}
				l.Members = append(l.Members, m)
			}
		},
	} {
		l := balanced()
		change(&l)
		l.Dir = t.TempDir()
		if l.Protocol == proxy.TCP {
			l.Dir = "/tmp"
		}
		block, _, err := text(l)
		if err != nil {
			t.Fatal(name, err)
		}
		conf := "global\n    log 127.0.0.1 local0\n" + strings.NewReplacer(mapFile(l), "/dev/null", releasesFile(l), "/dev/null").Replace(string(block))
		file := filepath.Join(t.TempDir(), "a.cfg")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("haproxy", "-c", "-f", file).CombinedOutput()
		if err != nil || strings.Contains(string(out), "[WARNING]") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestValidRefuses(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddrPort
	for says, change := range map[string]func(l *proxy.Layout){
		"app \"a b\"":                  func(l *proxy.Layout) { l.App = "a b" },
		"app \"a:b\"":                  func(l *proxy.Layout) { l.App = "a:b" },
		"upstream \"\"":                func(l *proxy.Layout) { l.Upstream = "" },
		"folder \"/a b\"":              func(l *proxy.Layout) { l.Dir = "/a b" },
		"folder \"a\"":                 func(l *proxy.Layout) { l.Dir = "a" },
		"folder \"/a/../b\"":           func(l *proxy.Layout) { l.Dir = "/a/../b" },
		"protocol \"udp\"":             func(l *proxy.Layout) { l.Protocol = "udp" },
		"no member":                    func(l *proxy.Layout) { l.Members = nil },
		"it is there twice":            func(l *proxy.Layout) { l.Members[1].Name = "web1" },
		"member \"a,b\"":               func(l *proxy.Layout) { l.Members[0].Name = "a,b" },
		"not on loopback":              func(l *proxy.Layout) { l.Members[0].Stable = a("10.0.0.1:80") },
		"one for green":                func(l *proxy.Layout) { l.Members[0].Green = nil },
		"the address of blue":          func(l *proxy.Layout) { l.Members[0].Green[0] = l.Members[0].Blue[0] },
		"address 127.0.0.1:0":          func(l *proxy.Layout) { l.Members[0].Blue[0] = a("127.0.0.1:0") },
		"address invalid AddrPort":     func(l *proxy.Layout) { l.Members[0].Blue[0] = netip.AddrPort{} },
		"cookie \"a;b\"":               func(l *proxy.Layout) { l.Sticky.Cookie = "a;b" },
		"not by both":                  func(l *proxy.Layout) { l.Sticky.Address = true },
		"path \"/a b\"":                func(l *proxy.Layout) { l.Up.Path = "/a b" },
		"path \"/%[src]\"":             func(l *proxy.Layout) { l.Up.Path = "/%[src]" },
		"host \"a b\"":                 func(l *proxy.Layout) { l.Up.Host = "a b" },
		"it listens nowhere":           func(l *proxy.Layout) { l.Site.Listen = nil },
		"site: name \"a b\"":           func(l *proxy.Layout) { l.Site.Names = []string{"a b"} },
		"neither cookies":              func(l *proxy.Layout) { l.Protocol = proxy.TCP },
		"no name for the site":         func(l *proxy.Layout) { l.Protocol, l.Sticky = proxy.TCP, proxy.Sticky{} },
		"too long for a socket":        func(l *proxy.Layout) { l.Protocol, l.Dir = proxy.TCP, "/"+strings.Repeat("a", 90) },
		"the address of the proxy for": func(l *proxy.Layout) { l.Site.Listen[0] = l.Members[0].Stable },
	} {
		l := balanced()
		change(&l)
		if _, _, err := text(l); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestRoutedScriptSaysYesUnlessSure(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ blue, green int }{
		"web1 0\n":                   {0, 1},
		"web1 100\n":                 {1, 0},
		"web1 5\n":                   {0, 0},
		"web1 -1\n":                  {1, 1},
		"web2 0\nweb1 100\nweb3 5":   {1, 0},
		"web2 0\nweb1 100":           {1, 0},
		"web1 0\nweb1 100\n":         {0, 0},
		"web1 100 0\n":               {0, 0},
		"web1 1e2\n":                 {0, 0},
		"web1\n":                     {0, 0},
		"web10 100\n":                {0, 0},
		"# web1 100\n":               {0, 0},
		"":                           {0, 0},
		"none":                       {0, 0},
		"web1 100\nweb2 0\nweb1 x\n": {0, 0},
	} {
		l := sample()
		l.Dir = t.TempDir()
		if text != "none" {
			if err := os.MkdirAll(dataDir(l), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(mapFile(l), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, shell := range [][]string{{"sh"}, {"busybox", "sh"}, {"bash", "--posix"}} {
			if _, err := exec.LookPath(shell[0]); err != nil {
				unable(t, "%s is not installed", shell[0])
			}
			for slot, want := range map[proxy.Slot]int{proxy.Blue: want.blue, proxy.Green: want.green, "other": 0} {
				script, args := new(Proxy).RoutedScript(l, "web1", slot)
				cmd := exec.Command(shell[0], append(append(shell[1:len(shell):len(shell)], "-c", script, "teal"), args...)...)
				out, _ := cmd.CombinedOutput()
				if got := cmd.ProcessState.ExitCode(); got != want || len(out) > 0 {
					t.Errorf("%q, %s in %s: exit code %d, want %d: %s", text, slot, shell[0], got, want, out)
				}
			}
		}
	}
}

func TestUsageNamesTheUpstream(t *testing.T) {
	t.Parallel()
	for protocol, mode := range map[proxy.Protocol]string{proxy.HTTP: "mode http", proxy.GRPC: "alpn h2", proxy.TCP: "mode tcp"} {
		l := sample()
		l.Protocol, l.Upstream = protocol, "mine"
		got := new(Proxy).Usage(l)
		if !strings.Contains(got, "default_backend mine\n") || !strings.Contains(got, mode) {
			t.Errorf("%s: %q", protocol, got)
		}
	}
}
