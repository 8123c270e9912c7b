package nginx

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// keepsAlive reports whether the build keeps connections to upstreams without
// being told to.
func (s survey) keepsAlive() bool {
	v, ok := s.version()
	return ok && slices.Compare(v, []int{1, 29, 7}) >= 0
}

// A pass is a directive that leads requests to an address or an upstream, with
// the directives that hold where it stands, innermost block first.
type pass struct {
	directive
	scopes [][]directive
}

// passes returns the directives of the user's own files that lead requests on.
func passes(ds []directive, place string, outer [][]directive) []pass {
	ds = flat(ds)
	scopes := append([][]directive{ds}, outer...)
	var found []pass
	for _, d := range ds {
		switch {
		case d.file == place:
		case (d.name == "proxy_pass" || d.name == "grpc_pass") && len(d.args) > 0:
			found = append(found, pass{d, scopes})
		case d.block != nil && d.name != "upstream":
			found = append(found, passes(d.block, place, scopes)...)
		}
	}
	return found
}

// flat puts what files include in the place of the include.
func flat(ds []directive) []directive {
	var all []directive
	for _, d := range ds {
		if d.name == "include" {
			all = append(all, flat(d.block)...)
		} else {
			all = append(all, d)
		}
	}
	return all
}

// holding returns the directives of a name that hold for p. As nginx has it,
// those of a block hide all of the blocks around it.
func (p pass) holding(name string) []directive {
	for _, ds := range p.scopes {
		own := slices.DeleteFunc(slices.Clone(ds), func(d directive) bool { return d.name != name })
		if len(own) > 0 {
			return own
		}
	}
	return nil
}

// to returns the scheme and the host of where p leads.
func (p pass) to() (scheme, host string) {
	scheme, rest, ok := strings.Cut(p.args[0], "://")
	if !ok {
		scheme, rest = "", p.args[0]
	}
	host, _, _ = strings.Cut(rest, "/")
	return scheme, host
}

func (d directive) warning(format string, args ...any) string {
	return fmt.Sprintf("%s:%d: ", d.file, d.line) + fmt.Sprintf(format, args...)
}

// sites says what in the user's own sites could fail requests of the app.
func (t tree) sites(l proxy.Layout, place string, keepsAlive bool) []string {
	var ws []string
	for _, p := range passes(t.http(), place, nil) {
		_, host := p.to()
		switch {
		case host == l.Upstream:
			ws = append(ws, p.complaints(l, keepsAlive)...)
		case isSlot(l, host):
			ws = append(ws, p.warning("%s leads to a slot, past every switch: write %s %s", p.args[0], p.name, usedAs(l)))
		}
	}
	for _, u := range find(t.http(), "upstream") {
		for _, d := range find(u.block, "server") {
			if d.file != place && len(d.args) > 0 && isSlot(l, d.args[0]) {
				ws = append(ws, d.warning("%s is a slot, to which no switch applies: lead the sites to %s instead", d.args[0], l.Upstream))
			}
		}
	}
	return ws
}

// usedAs returns what a pass to the app says.
func usedAs(l proxy.Layout) string {
	if l.Protocol == proxy.GRPC {
		return "grpc://" + l.Upstream
	}
	return "http://" + l.Upstream
}

// isSlot reports whether host is the address of a slot.
func isSlot(l proxy.Layout, host string) bool {
	host = strings.Replace(host, "localhost:", "127.0.0.1:", 1)
	addr, err := netip.ParseAddrPort(host)
	return err == nil && slices.ContainsFunc(l.Members, func(m proxy.Member) bool {
		return slices.Contains(m.Blue, addr) || slices.Contains(m.Green, addr)
	})
}

// complaints says what is wrong with a pass to the app.
func (p pass) complaints(l proxy.Layout, keepsAlive bool) []string {
	verb, prefix := "proxy_pass", "proxy_"
	if l.Protocol == proxy.GRPC {
		verb, prefix = "grpc_pass", "grpc_"
	}
	if scheme, _ := p.to(); p.name != verb || scheme != "" && scheme+"://"+l.Upstream != usedAs(l) {
		return []string{p.warning("%s %s does not speak the app's protocol: write %s %s", p.name, p.args[0], verb, usedAs(l))}
	}
	var ws []string
	for _, d := range p.holding(prefix + "next_upstream") {
		if slices.Contains(d.args, "non_idempotent") {
			ws = append(ws, d.warning("non_idempotent repeats requests that were carried out already, for %s: leave it out", l.Upstream))
		}
	}
	if l.Protocol == proxy.GRPC || keepsAlive || p.reuses() {
		return ws
	}
	return append(ws, p.warning("a new connection for each request to %s, of which a host has no end: "+
		`add proxy_http_version 1.1; and proxy_set_header Connection ""; (or what upgrades need: proxy_set_header Connection $teal_%s_connection; proxy_set_header Upgrade $http_upgrade;)`,
		l.Upstream, id(l.App)))
}

// reuses reports whether connections to the upstream are used again.
func (p pass) reuses() bool {
	modern := slices.ContainsFunc(p.holding("proxy_http_version"), func(d directive) bool {
		return slices.Contains(d.args, "1.1")
	})
	return modern && slices.ContainsFunc(p.holding("proxy_set_header"), func(d directive) bool {
		return len(d.args) == 2 && strings.EqualFold(d.args[0], "connection") && !strings.EqualFold(d.args[1], "close")
	})
}
