package haproxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/ports"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
)

func TestWords(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"":                              nil,
		"  # only a comment":            nil,
		"bind :80 # all\r\n":            {"bind", ":80"},
		"stats auth \"a:p#s s\" 'x\\y'": {"stats", "auth", "a:p#s s", `x\y`},
		`acl a path /a\ b ""`:           {"acl", "a", "path", "/a b", ""},
		"\tmode\thttp":                  {"mode", "http"},
	} {
		if diff := cmp.Diff(want, words(line)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
}

func TestReplaceChangesTheBlockAlone(t *testing.T) {
	t.Parallel()
	block := "# teal:shop begin\nnew\n# teal:shop end\n"
	for name, c := range map[string]struct {
		before string
		last   bool
		after  string
	}{
		"empty":            {"", false, block},
		"at the end":       {"global\n", false, "global\n" + block},
		"no newline":       {"global", false, "global\n" + block},
		"CRLF":             {"global\r\n", false, "global\r\n" + block},
		"in place":         {"a\n# teal:shop begin: x\nold\n# teal:shop end\nb", false, "a\n" + block + "b"},
		"moved":            {"a\n# teal:shop begin: x\nold\n# teal:shop end\nb", true, "a\nb\n" + block},
		"another app's":    {"# teal:shop.2 begin\n# teal:shop.2 end\n", false, "# teal:shop.2 begin\n# teal:shop.2 end\n" + block},
		"half of one":      {"# teal:shop begin\nrest\n", false, "# teal:shop begin\nrest\n" + block},
		"not at the start": {" # teal:shop begin\n # teal:shop end\n", false, " # teal:shop begin\n # teal:shop end\n" + block},
	} {
		if diff := cmp.Diff(c.after, string(replace([]byte(c.before), "shop", []byte(block), c.last))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// site returns a survey of the files, each a name and a text.
func site(args []string, files ...string) survey {
	s := survey{process: process{args: args}, good: true, version: "2.6.12", ports: ports.Taken{Ephemeral: "32768\t60999"}}
	s.workers = true
	for i := 0; i < len(files); i += 2 {
		s.files = append(s.files, confFile{path: files[i], text: []byte(files[i+1])})
	}
	s.parts = parse(s.files)
	return s
}

func TestTheBlockStandsWhereNothingTakesOverItsDefaults(t *testing.T) {
	t.Parallel()
	l := sample()
	block, _, err := text(l)
	if err != nil {
		t.Fatal(err)
	}
	later := "backend later\n"
	inside := string(block)
	for name, c := range map[string]struct {
		folder bool
		files  []string
		place  string
		text   string
		says   string
	}{
		"the last file":            {false, []string{"/a", "global\n", "/b", "defaults\n"}, "/b", "defaults\n" + inside, ""},
		"where it is":              {false, []string{"/a", inside + "defaults\n" + later, "/b", "defaults\n"}, "/a", inside + "defaults\n" + later, ""},
		"behind what was added":    {false, []string{"/a", inside + later}, "/a", later + inside, ""},
		"a folder":                 {true, []string{"/c/a.cfg", "global\n"}, "/c/teal-shop.cfg", inside, ""},
		"a folder, later defaults": {true, []string{"/c/z.cfg", "defaults\n" + later}, "/c/teal-shop.cfg", inside, ""},
		"a folder, later heir":     {true, []string{"/c/z.cfg", later}, "", "", "/c/z.cfg:1: the section later would take over"},
		"a folder, again an heir":  {true, []string{"/c/teal-shop.cfg", inside, "/c/z.cfg", later}, "", "", "/c/z.cfg:1"},
	} {
		s := site([]string{"-f", "/c"}, c.files...)
		s.folder = c.folder
		w, err := s.writing(l, block)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || w.file.path != c.place || string(w.text) != c.text {
			t.Errorf("%s: %v, %s, %s", name, err, w.file.path, cmp.Diff(c.text, string(w.text)))
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	l := sample()
	const quiet = "frontend f\nmode http\noption idle-close-on-response\ndefault_backend shop\n"
	for name, c := range map[string]struct {
		version, text string
		ready         bool
		want          []string // parts of each warning
	}{
		"nothing":            {"2.6", quiet, false, nil},
		"no idle-close":      {"2.6", "frontend f\nmode http\ndefault_backend shop\n", false, []string{"/a:1: frontend f has no `option idle-close-on-response`"}},
		"no reload":          {"2.6", "frontend f\nmode http\ndefault_backend shop\n", true, nil},
		"by defaults":        {"2.6", "defaults\nmode http\noption idle-close-on-response\nfrontend f\nuse_backend shop if TRUE\n", false, nil},
		"taken back":         {"2.6", "defaults\nmode http\noption idle-close-on-response\nfrontend f\nno option idle-close-on-response\nuse_backend shop\n", false, []string{"/a:4"}},
		"cuts":               {"2.6", quiet + "listen x\ndefault-server on-marked-down shutdown-sessions\nserver a 127.0.0.1:7001\n", false, []string{"/a:6: on-marked-down"}},
		"cuts others":        {"2.6", quiet + "listen x\nserver a 127.0.0.1:9 on-marked-down shutdown-sessions\n", false, nil},
		"hard stop":          {"2.6", "global\nhard-stop-after 30s\n" + quiet, false, []string{"/a:2: hard-stop-after"}},
		"nobody":             {"2.6", "global\n", false, []string{"no frontend refers to the backend shop"}},
		"perhaps somebody":   {"2.6", "frontend f\nuse_backend %[req.hdr(host)]\n", false, nil},
		"listeners":          {"2.4", "global\nstats socket /x level admin\n" + quiet, false, []string{"/a:1: no admin socket has `expose-fd"}},
		"listeners exposed":  {"2.4", "global\nstats socket /x expose-fd listeners level admin\n" + quiet, false, nil},
		"maxconn":            {"2.6", "global\nmaxconn 1000\n" + quiet, false, []string{"/a:2: each connection of frontend f"}},
		"maxconn shared out": {"2.6", "global\nmaxconn 1000\n" + quiet + "maxconn 500\n", false, nil},
	} {
		s := site(nil, "/a", c.text)
		s.version = c.version
		got := s.warn(l, c.ready)
		ok := len(got) == len(c.want)
		for i := range c.want {
			ok = ok && strings.Contains(got[i], c.want[i])
		}
		if !ok {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	s := site(nil, "/a", quiet)
	l.Members[0].Stable = proxytest.Loopback(40000)
	if got := s.warn(l, true); len(got) != 1 || !strings.Contains(got[0], "port 40000 lies in the range") {
		t.Errorf("%q", got)
	}
	s.ports.Reserved = "1-3,39999-40001"
	if got := s.warn(l, true); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	l := sample()
	for name, c := range map[string]struct {
		change func(s *survey)
		says   string
	}{
		"nothing":     {func(*survey) {}, ""},
		"old":         {func(s *survey) { s.version = "2.0.33-0ubuntu0.1" }, "2.2 is needed"},
		"odd version": {func(s *survey) { s.version = "dev" }, ""},
		"broken":      {func(s *survey) { s.good, s.said = false, "[ALERT] (7) : config : parsing [/a:1] : bad" }, "parsing [/a:1] : bad"},
		"before the block": {func(s *survey) {
			s.good = false
			s.said = "[ALERT] (7) : config : Proxy 'f': unable to find required default_backend: 'shop'.\n[ALERT] (7) : config : Fatal errors found in configuration.\n"
		}, ""},
		"another backend": {func(s *survey) {
			s.good, s.said = false, "[ALERT] (7) : config : Proxy 'f': unable to find required use_backend: 'shop2'."
		}, "shop2"},
		"processes": {func(s *survey) { s.parts = parse([]confFile{{path: "/a", text: []byte("global\nnbproc 4\n")}}) }, "/a:2: several processes"},
		"ephemeral": {func(s *survey) {
			s.ports.Sockets = ports.Parse("0: 0100007F:1B59 0100007F:0050 01 0:0 0:0 0 0 0 7 1")
		}, "an outgoing connection holds 127.0.0.1:7001"},
		"its own socket": {func(s *survey) {
			s.ports.Sockets, s.ports.Own = ports.Parse("0: 0100007F:1B59 00000000:0000 0A 0:0 0:0 0 0 0 7 1"), []string{"7"}
		}, ""},
		"all addresses": {func(s *survey) {
			s.ports.Sockets = ports.Parse("0: 00000000000000000000000000000000:1B59 0:0 0A 0:0 0:0 0 0 0 7 1")
		}, "another program listens on [::]:7001"},
	} {
		s := site(nil, "/a", "global\n")
		c.change(&s)
		err := s.refuse(host(), l)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestArgumentsOfAProcess(t *testing.T) {
	t.Parallel()
	p := parseProcess("12\n1\n0\n/usr/sbin/haproxy (deleted)\n/run\nhost\n/usr/sbin/haproxy\n-sf\n3\n4\n-x\nsockpair@3\n-Ws\n-f\n/etc/a.cfg\n-L\nlb\n-p\n/run/pid\n-f\nb\n--\nc\n/d/\n")
	if diff := cmp.Diff([]string{"/etc/a.cfg", "/run/b", "/run/c", "/d"}, p.files()); diff != "" || p.exe != "/usr/sbin/haproxy" || p.pid != 12 || p.foreign {
		t.Errorf("%+v %s", p, diff)
	}
	if diff := cmp.Diff([]string{"-f", "/etc/a.cfg", "-f", "/run/b", "-f", "/run/c", "-f", "/d", "-L", "lb"}, p.configArgs()); diff != "" {
		t.Error(diff)
	}
}

func sample() proxy.Layout {
	a := netip.MustParseAddrPort
	return proxy.Layout{
		App: "shop", Upstream: "shop", Dir: "/var/lib/teal/shop", Protocol: proxy.HTTP,
		Members: []proxy.Member{{
			Name: "web1", Stable: a("127.0.0.1:7001"),
			Blue:  []netip.AddrPort{a("127.0.0.1:8001"), a("127.0.0.1:8002")},
			Green: []netip.AddrPort{a("127.0.0.1:9001"), a("127.0.0.1:9002")},
		}},
	}
}
