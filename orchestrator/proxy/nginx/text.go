package nginx

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

//go:embed teal.conf.tmpl
var confTemplate string

// text returns the configuration file for l and its generation, a digest of
// the text that the running nginx reports, so that the file and what runs can
// be compared. The same layout gives the same text, for every version of nginx:
// `listen … http2` is what all of them read, the latest ones with a warning.
func text(l proxy.Layout) (conf []byte, generation string, err error) {
	if err := valid(l); err != nil {
		return nil, "", err
	}
	t, err := template.New("conf").Funcs(template.FuncMap{"inc": func(i int) int { return i + 1 }}).Parse(confTemplate)
	if err != nil {
		return nil, "", err
	}
	values := newPage(l)
	var b bytes.Buffer
	if err := t.Execute(&b, values); err != nil { // without a generation, as it is of this
		return nil, "", err
	}
	values.Generation = digest(b.Bytes())
	b.Reset()
	err = t.Execute(&b, values)
	return b.Bytes(), values.Generation, err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// page is what the template is filled with.
type page struct {
	proxy.Layout
	ID         string // the app's name as part of a variable's name
	Route      string // the folder of the datum
	Groups     []group
	Several    bool     // members
	GRPC       bool     // not HTTP
	Buckets    []int    // all but the last
	Rounds     [2]int   // of looking for a member that stands in
	Word       string   // that marks a hop, the same before and after a reload
	Hops       []int    // that a request has made when it comes to a member again
	Last       int      // of them
	Tries      int      // so many that a backup is reached when all of a slot refuse
	Connect    string   // how long a server may take to accept a connection
	KeyOf, Key string   // variable and pattern of what keeps a client on a slot; empty: nothing does
	Listen     []string // of the site
	Forwarded  []string // headers that the site sets
	Verb, Set  string   // the directives of the protocol
	Scheme     string
	Generation string
	Pass       string // what Verb leads to
	Inner      bool   // in the server of the members
}

// A group is a member of the file.
type group struct {
	Name      string
	At        netip.AddrPort
	Seen      string // At, as nginx writes it in variables
	Upstreams []upstream
}

// An upstream is a slot of a member, with those that are asked when it refuses.
type upstream struct {
	Name             string
	Servers, Backups []netip.AddrPort
	Fails            string // what is remembered of a server that refuses
}

// mostHops bounds how often a request is handed on from member to member: so
// many in a row may be dead.
const mostHops = 8

func newPage(l proxy.Layout) page {
	v := page{
		Layout:  l,
		ID:      id(l.App),
		Route:   routeDir(l),
		Several: len(l.Members) > 1,
		GRPC:    l.Protocol == proxy.GRPC,
		Word:    digest([]byte("hop " + l.App + " " + l.Dir)),
		Last:    min(len(l.Members), mostHops),
		Connect: "5s",
		Verb:    "proxy_pass", Set: "proxy_set_header", Scheme: "http://",
		Forwarded: []string{
			"X-Forwarded-For $proxy_add_x_forwarded_for", "X-Forwarded-Host $http_host",
			"X-Forwarded-Proto $scheme", "X-Real-IP $remote_addr",
		},
	}
	if v.GRPC {
		v.Verb, v.Set, v.Scheme = "grpc_pass", "grpc_set_header", "grpc://"
	}
	if v.Several {
		v.Connect = "2s" // there are others: a host that is down is not waited for long
	}
	for i, m := range l.Members {
		v.Groups = append(v.Groups, newGroup(l.Members, i))
		v.Tries = max(v.Tries, len(m.Blue)+1, len(m.Green)+1)
	}
	for i := range buckets - 1 {
		v.Buckets = append(v.Buckets, i)
	}
	for i := range v.Last {
		v.Hops = append(v.Hops, i+1)
	}
	switch {
	case l.Sticky.Cookie != "":
		v.KeyOf, v.Key = "$http_cookie", "~(?:^|;) *"+regexp.QuoteMeta(l.Sticky.Cookie)+"=([^; ]+)"
	case l.Sticky.Address:
		v.KeyOf, v.Key = "$http_x_forwarded_for", "~^[ ,]*([^ ,]+)"
	}
	if l.Site != nil {
		v.Listen = listens(*l.Site)
	}
	return v
}

// newGroup returns the upstreams of one of the members. Alone it has its other
// slot to fall back to. Of several each falls back to any of the others at
// first, then to the next, so that all come round, and at last to its other
// slot; and one that keeps refusing is not asked for a while.
func newGroup(members []proxy.Member, i int) group {
	m := members[i]
	g := group{Name: token(m.Name), At: m.Stable, Seen: fmt.Sprintf("%s:%d", m.Stable.Addr(), m.Stable.Port())}
	var others []netip.AddrPort
	for j := 1; j < len(members); j++ {
		others = append(others, members[(i+j)%len(members)].Stable)
	}
	const patient, wary = "max_fails=0", "max_fails=3 fail_timeout=10s"
	for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
		name := g.Name + "." + string(slot)
		own, other := addresses(m, slot), addresses(m, slot.Other())
		if len(others) == 0 {
			g.Upstreams = append(g.Upstreams, upstream{name, own, other, patient})
			continue
		}
		g.Upstreams = append(g.Upstreams,
			upstream{name, own, others, wary},
			upstream{name + ".next", own, others[:1], wary},
			upstream{name + ".last", own, other, patient})
	}
	return g
}

func addresses(m proxy.Member, s proxy.Slot) []netip.AddrPort {
	if s == proxy.Green {
		return m.Green
	}
	return m.Blue
}

// In returns v for the server of the members, which leads to slots.
func (v page) In() page {
	v.Inner = true
	v.Pass = fmt.Sprintf("%[1]steal.%[2]s.$teal_%[2]s_from.$teal_%[2]s_slot", v.Scheme, v.ID)
	if v.Several {
		v.Pass += fmt.Sprintf("$teal_%s_tier", v.ID)
	}
	return v
}

// Out returns v for the site, which leads to members.
func (v page) Out() page {
	v.Pass = v.Scheme + v.Upstream
	return v
}

// listens returns the arguments of the listen directives of s. A site without
// a name takes every request that no other one takes.
func listens(s proxy.Site) []string {
	var args []string
	for _, a := range s.Listen {
		arg := a.String()
		if a.Addr() == netip.IPv4Unspecified() {
			arg = fmt.Sprint(a.Port())
		}
		if len(s.Names) == 0 {
			arg += " default_server"
		}
		args = append(args, arg)
	}
	return args
}

// id makes an app's name a part of the names of variables, no two apps the
// same one though nginx takes no notice of case, and short enough for its
// table of them.
func id(app string) string {
	const most = 24
	name := escape(app, "")
	if len(name) <= most {
		return name
	}
	sum := sha256.Sum256([]byte(app))
	return name[:most-8] + "__" + hex.EncodeToString(sum[:4])
}

// token makes a member's name one of a file and a part of an upstream's name,
// no two members the same one.
func token(member string) string { return escape(member, "-") }

// escape keeps small letters, digits and those of also, and writes every other
// byte as '_' and two digits.
func escape(name, also string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte(also, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// memberOf undoes token.
func memberOf(token string) (member string, ok bool) {
	var b []byte
	for rest := token; rest != ""; {
		c := rest[:1]
		rest = rest[1:]
		if c != "_" {
			b = append(b, c...)
			continue
		}
		raw, err := hex.DecodeString(rest[:min(2, len(rest))])
		if err != nil || len(raw) != 1 {
			return "", false
		}
		b, rest = append(b, raw...), rest[2:]
	}
	return string(b), len(b) > 0
}

// Usage returns a location for the user's server. It is empty with a Site, and
// for a layout that Check refuses.
func (p *Proxy) Usage(l proxy.Layout) string {
	if l.Site != nil || valid(l) != nil {
		return ""
	}
	lines := []string{
		"proxy_pass http://" + l.Upstream + ";",
		"proxy_http_version 1.1;",
		fmt.Sprintf("proxy_set_header Connection $teal_%s_connection;", id(l.App)),
		"proxy_set_header Host $http_host;",
		"proxy_set_header Upgrade $http_upgrade;",
		"proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
		"proxy_set_header X-Forwarded-Proto $scheme;",
	}
	if l.Protocol == proxy.GRPC {
		lines = []string{ // the limits are for streams: the defaults end one after 60 s or 1 MB
			"grpc_pass grpc://" + l.Upstream + ";",
			"grpc_read_timeout 1d;",
			"grpc_send_timeout 1d;",
			"grpc_set_header Host $http_host;",
			"grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
			"client_body_timeout 1d;",
			"client_max_body_size 0;",
		}
	}
	lines = slices.Insert(lines, 0, "location / {")
	return strings.Join(lines, "\n    ") + "\n}\n"
}
