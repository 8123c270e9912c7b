package nginx

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/ports"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

func TestCheckOfAHostThatIsReady(t *testing.T) {
	t.Parallel()
	d, l, _ := prepared(t)
	if warnings, err := d.proxy().Check(t.Context(), host(), l); err != nil || len(warnings) > 0 {
		t.Errorf("%q, %v", warnings, err)
	}
}

func TestCheckRefusesWithTheReasonAndTheRemedy(t *testing.T) {
	t.Parallel()
	d := start(t)
	site := proxytest.Port(t)
	for name, c := range map[string]struct {
		file, text string
		change     func(*proxy.Layout)
		kind       plugins.Kind
		says       string
	}{
		"broken configuration": {
			"sites-enabled/a", "server {", nil,
			plugins.Invalid, "unexpected end of file",
		},
		"upstream of the user's": {
			"sites-enabled/a", "upstream shop { server 127.0.0.1:1; }", nil,
			plugins.Conflict, "sites-enabled/a:1 defines the upstream shop",
		},
		"stable port of the user's": {
			"sites-enabled/a", "server {\n listen 127.0.0.1:STABLE; }", nil,
			plugins.Conflict, "sites-enabled/a:2 listens on port",
		},
		"site of the user's": {
			"sites-enabled/a", fmt.Sprintf("server { listen %d; server_name www.example.com shop.example.com; }", site),
			func(l *proxy.Layout) {
				l.Site = &proxy.Site{Listen: []netip.AddrPort{proxytest.Loopback(site)}, Names: []string{"shop.example.com"}}
			},
			plugins.Conflict, "sites-enabled/a:1 serves shop.example.com",
		},
		"default site of the user's": {
			"sites-enabled/a", fmt.Sprintf("server { listen 127.0.0.1:%d default_server; }", site),
			func(l *proxy.Layout) { l.Site = &proxy.Site{Listen: []netip.AddrPort{proxytest.Loopback(site)}} },
			plugins.Conflict, "is the default server",
		},
		"bad layout": {
			"sites-enabled/a", "",
			func(l *proxy.Layout) { l.Members = nil },
			plugins.Invalid, "no member",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := layout()
			l.Members[0].Stable, l.Dir = proxytest.Loopback(proxytest.Port(t)), publicDir(t)
			defer os.Remove(d.write(c.file, strings.ReplaceAll(c.text, "STABLE", fmt.Sprint(l.Members[0].Stable.Port()))))
			if c.change != nil {
				c.change(&l)
			}
			_, err := d.proxy().Check(t.Context(), host(), l)
			if plugins.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("kind %q, error %v", plugins.KindOf(err), err)
			}
		})
	}
}

func TestCheckOfANginxThatReadsNoFolder(t *testing.T) {
	t.Parallel()
	d := start(t)
	main := strings.ReplaceAll(d.file("nginx.conf"), "include", "#include")
	d.write("nginx.conf", main)
	_, err := d.proxy().Check(t.Context(), host(), layout())
	if plugins.KindOf(err) != plugins.Unsupported || !strings.Contains(err.Error(), "add the line `include "+d.dir+"/conf.d/*.conf;`") {
		t.Errorf("error %v", err)
	}
}

func TestCheckOfAFolderThatWorkersMayNotEnter(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	l := layout()
	l.Members[0].Stable = proxytest.Loopback(proxytest.Port(t))
	closed := publicDir(t)
	l.Dir = filepath.Join(closed, "shop")
	if err := os.Mkdir(l.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o750); err != nil {
		t.Fatal(err)
	}
	_, err := d.proxy().Check(t.Context(), host(), l)
	if plugins.KindOf(err) != plugins.Denied || !strings.Contains(err.Error(), "chmod o+x "+closed) {
		t.Errorf("error %v", err)
	}
}

func TestCheckWarnsOfWhatCouldFailRequests(t *testing.T) {
	t.Parallel()
	d := start(t, "limit_conn_zone $binary_remote_addr zone=c:1m;\nlimit_conn c 5;\n"+userSite(proxytest.Port(t), "127.0.0.1:1"))
	l := layout()
	l.Members[0].Stable, l.Dir = proxytest.Loopback(proxytest.Port(t)), publicDir(t)
	l.Members[0].Blue[0] = proxytest.Loopback(45000)
	got, err := d.proxy().Check(t.Context(), host(), l)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"one reload of nginx", "sites-enabled/site0:2: limit_conn", "port 45000 lies in the range"}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i, w := range want {
		if !strings.Contains(got[i], w) {
			t.Errorf("warning %d: %q does not say %q", i, got[i], w)
		}
	}
}

func TestAReloadThatEveryServerAnnouncesNeedsNoWarning(t *testing.T) {
	t.Parallel()
	site := `server {
    listen 127.0.0.1:%d;
    error_page 418 = @close;
    location / { if (-f "/srv/teal/shop/route/announce") { return 418; } return 204; }
    location @close { keepalive_timeout 0; return 204; }
}`
	for name, c := range map[string]struct {
		sites []string
		want  bool
	}{
		"no server":              {nil, true},
		"announced":              {[]string{fmt.Sprintf(site, proxytest.Port(t))}, true},
		"one announced, one not": {[]string{fmt.Sprintf(site, proxytest.Port(t)), userSite(proxytest.Port(t), "127.0.0.1:1")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, c.sites...)
			s, err := d.proxy().survey(t.Context(), host(), layout())
			if err != nil {
				t.Fatal(err)
			}
			if got := s.gentle(); got != c.want {
				t.Errorf("gentle %t", got)
			}
			if want := []string{"/srv/teal/shop/route/announce"}; len(c.sites) > 0 && cmp.Diff(want, s.announcements()) != "" {
				t.Errorf("announcements %q", s.announcements())
			}
		})
	}
	s := survey{conf: mustTree(t, "http { keepalive_min_timeout 5s; server { listen 80; } }")}
	if !s.gentle() {
		t.Error("keepalive_min_timeout is not seen")
	}
}

func TestPrepareKeepsAUsersSiteThatAnnouncesFree(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := app(t, "shop")
	prepare(t, d, l, true)
	s, err := d.proxy().survey(t.Context(), host(), l)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{routeDir(l) + "/announce"}; cmp.Diff(want, s.announcements()) != "" {
		t.Errorf("announcements %q", s.announcements())
	}
}

func TestMastersSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wrote string
		kind  plugins.Kind
		says  string
	}{
		"not installed":  {"\n\x1euid\n0\n\n\x1einstalled\n", plugins.NotFound, "not installed"},
		"not running":    {"\n\x1euid\n0\n\n\x1einstalled\n/usr/sbin/nginx\n", plugins.Unavailable, "/usr/sbin/nginx does not run"},
		"in a container": {"\n\x1euid\n0\n\n\x1einstalled\n\n\x1econtained\n", plugins.Unsupported, "in a container only"},
		"as root, without rights": {
			"\n\x1euid\n1000\n\n\x1einstalled\n\n\x1emaster\n7\n0\n\n\nnginx: master process nginx\n",
			plugins.Denied, "nginx runs as user 0 and the login as user 1000",
		},
		"unprivileged, as root": {
			"\n\x1euid\n0\n\n\x1einstalled\n\n\x1emaster\n7\n101\n/usr/sbin/nginx\n/\nnginx: master process nginx\n",
			plugins.Denied, "set become",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := masters(t.Context(), &scripted{Host: host(), out: c.wrote})
			if plugins.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("kind %q, error %v", plugins.KindOf(err), err)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for build, c := range map[string]struct {
		want   []int
		refuse bool
	}{
		"nginx version: nginx/1.22.1\nbuilt with":     {[]int{1, 22, 1}, false},
		"nginx version: nginx/1.14.2 (Ubuntu)\nbuilt": {[]int{1, 14, 2}, true},
		"nginx version: nginx/1.15.3":                 {[]int{1, 15, 3}, false},
		"nginx version: openresty/1.21.4.1\n":         {[]int{1, 21, 4, 1}, false},
		"nginx version: nginx\n":                      {nil, false},
		"":                                            {nil, false},
	} {
		s := survey{build: build, good: true, place: "/etc/nginx/conf.d/teal-shop.conf"}
		if got, _ := s.version(); cmp.Diff(c.want, got) != "" {
			t.Errorf("%q: %v", build, got)
		}
		if err := s.refuse(host(), layout()); (plugins.KindOf(err) == plugins.Unsupported) != c.refuse {
			t.Errorf("%q: %v", build, err)
		}
	}
}

func TestEphemeralPorts(t *testing.T) {
	t.Parallel()
	l := layout()
	l.Members = append(l.Members, proxy.Member{
		Blue:  []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:33000"), netip.MustParseAddrPort("10.0.0.2:33001")},
		Green: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:33002"), netip.MustParseAddrPort("127.0.0.1:33000")},
	})
	s := survey{taken: ports.Taken{Ephemeral: "32768\t60999", Reserved: "8080,33002-33010\n"}}
	if diff := cmp.Diff([]uint16{33000}, s.ephemeralPorts(l)); diff != "" {
		t.Error(diff)
	}
	if got := (survey{}).ephemeralPorts(l); got != nil {
		t.Errorf("without a range: %v", got)
	}
}

func TestClosedFolders(t *testing.T) {
	t.Parallel()
	worker := "Name:\tnginx\nUid:\t33\t33\t33\t33\nGid:\t33\t33\t33\t33\nGroups:\t4 33 \n"
	for name, c := range map[string]struct {
		worker, folders string
		want            string
	}{
		"open":                   {worker, "drwxr-xr-x 2 1000 1000 4096 Jan  1 00:00 /srv/a b\ndrwxr-xr-x 19 0 0 4096 Jan  1 00:00 /\n", ""},
		"closed":                 {worker, "drwxr-xr-x 2 1000 1000 4096 Jan  1 00:00 /home/deploy/x\ndrwxr-x--- 9 1000 1000 4096 Jan  1 00:00 /home/deploy\n", "/home/deploy"},
		"open to the group":      {worker, "drwxr-x--- 2 1000 4 4096 Jan  1 00:00 /srv\n", ""},
		"closed to the group":    {worker, "drwxr----x 2 1000 4 4096 Jan  1 00:00 /srv\n", "/srv"},
		"open to the owner":      {worker, "drwx------ 2 33 4 4096 Jan  1 00:00 /srv\n", ""},
		"sticky":                 {worker, "drwxrwxrwt 2 0 0 4096 Jan  1 00:00 /tmp\n", ""},
		"sticky and closed":      {worker, "drwxrwxrwT 2 0 0 4096 Jan  1 00:00 /tmp\n", "/tmp"},
		"with an access list":    {worker, "drwxr-x---+ 2 0 0 4096 Jan  1 00:00 /srv\n", ""},
		"with a SELinux context": {worker, "drwxr-x---. 2 0 0 4096 Jan  1 00:00 /srv\n", "/srv"},
		"root's workers":         {"Uid:\t0\t0\t0\t0\n", "drwx------ 2 1000 1000 4096 Jan  1 00:00 /srv\n", ""},
		"nobody knows":           {"", "drwx------ 2 1000 1000 4096 Jan  1 00:00 /srv\n", ""},
		"not lines":              {worker, "total 0\ndrwx------ x y z a b c d /srv\n", ""},
	} {
		s := survey{worker: parseIdentity(c.worker), folders: parseFolders(c.folders)}
		if f, ok := s.closed(); f.path != c.want || ok != (c.want != "") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
