package haproxy

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

//go:embed teal.cfg.tmpl
var blockTemplate string

// text returns the block of the configuration for l and its generation, a
// digest of the text that the running haproxy reports, so that what is written
// and what runs can be compared. The same layout gives the same text.
func text(l proxy.Layout) (block []byte, generation string, err error) {
	if err := valid(l); err != nil {
		return nil, "", err
	}
	funcs := template.FuncMap{
		"map":      func() string { return mapFile(l) },
		"releases": func() string { return releasesFile(l) },
	}
	t, err := template.New("block").Funcs(funcs).Parse(blockTemplate)
	if err != nil {
		return nil, "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, page{Layout: l}); err != nil { // without a generation, as it is of this
		return nil, "", err
	}
	sum := sha256.Sum256(b.Bytes())
	generation = hex.EncodeToString(sum[:6])
	b.Reset()
	err = t.Execute(&b, page{Layout: l, Generation: generation})
	return b.Bytes(), generation, err
}

// page is what the template is filled with.
type page struct {
	proxy.Layout
	Generation string
}

// section names a section of an app. The colon is in no name of a user's, so
// that no two sections have the same one.
func section(app string, parts ...any) string {
	name := []string{"teal", app}
	for _, p := range parts {
		name = append(name, fmt.Sprint(p))
	}
	return strings.Join(name, ":")
}

// Section names a section of the page's app.
func (p page) Section(parts ...any) string { return section(p.App, parts...) }

// HTTP reports whether requests are routed, and not connections.
func (p page) HTTP() bool { return p.Protocol != proxy.TCP }

// Several reports whether one member can stand in for another.
func (p page) Several() bool { return len(p.Members) > 1 }

// Mode is haproxy's word for the protocol.
func (p page) Mode() string {
	if p.HTTP() {
		return "http"
	}
	return "tcp"
}

// Rule begins a rule that is evaluated for each request or connection.
func (p page) Rule() string {
	if p.HTTP() {
		return "http-request"
	}
	return "tcp-request content"
}

// Patience is how long a silent request is borne: an hour, but a stream of
// gRPC may be silent for as long as a tunnel.
func (p page) Patience() string {
	if p.Protocol == proxy.GRPC {
		return "24d"
	}
	return "1h"
}

// Proto is the argument of a server that makes haproxy speak the protocol.
func (p page) Proto() string {
	if p.Protocol == proxy.GRPC {
		return " proto h2"
	}
	return ""
}

// Key is what keeps a client on one slot, "" for nothing.
func (p page) Key() string {
	switch {
	case p.Sticky.Cookie != "":
		return "req.cook(" + p.Sticky.Cookie + ")"
	case p.Sticky.Address:
		return "req.hdr(x-forwarded-for,1)"
	}
	return ""
}

// UpHost is the Host header of the request that tests a replica.
func (p page) UpHost() string {
	if p.Up.Host != "" {
		return p.Up.Host
	}
	return p.Members[0].Blue[0].String()
}

// Proof is the socket on which an app that speaks no HTTP is asked about.
func (p page) Proof() string { return proofSocket(p.Layout) }

// slotPage is a slot of a member, with the other one that stands in for it.
type slotPage struct {
	Member      string
	Slot, Other proxy.Slot
	Own, Spare  []netip.AddrPort
}

// Slots returns both slots of a member.
func (p page) Slots(m proxy.Member) []slotPage {
	return []slotPage{
		{m.Name, proxy.Blue, proxy.Green, m.Blue, m.Green},
		{m.Name, proxy.Green, proxy.Blue, m.Green, m.Blue},
	}
}

// indexed is a member and its place among the members.
type indexed struct {
	proxy.Member
	Index int
}

// Reverse returns the members, the last one first.
func (p page) Reverse() []indexed {
	var all []indexed
	for i, m := range slices.Backward(p.Members) {
		all = append(all, indexed{m, i})
	}
	return all
}

// Binds returns the addresses of the site as haproxy writes them.
func (p page) Binds() []string {
	var binds []string
	for _, a := range p.Site.Listen {
		bind := a.String()
		if a.Addr() == netip.IPv6Unspecified() {
			bind += " v6only" // or it would be in the way of 0.0.0.0
		}
		binds = append(binds, bind)
	}
	return binds
}

// Names returns conditions, one of which a request for the site meets.
func (p page) Names() []string {
	var conditions []string
	for _, n := range p.Site.Names {
		how := "str"
		if strings.HasPrefix(n, "*.") {
			how, n = "end", n[1:]
		}
		conditions = append(conditions, fmt.Sprintf("req.hdr(host),field(1,:) -i -m %s %s", how, n))
	}
	return conditions
}
