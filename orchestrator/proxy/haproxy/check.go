package haproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/ports"
	"github.com/teal-deploy/teal/plugins"
)

// refuse says what makes Prepare impossible.
func (s survey) refuse(h plugins.Host, l proxy.Layout) error {
	fail := func(kind plugins.Kind, err error) error {
		return failed(h, "use haproxy for "+l.App, kind, err)
	}
	switch {
	case !s.atLeast(2, 2): // http-request return
		return fail(plugins.Unsupported, fmt.Errorf("version %s is too old, 2.2 is needed", s.version))
	case !s.good && !s.forgivable(l):
		return fail(plugins.Invalid, fmt.Errorf("the configuration on the host is broken, correct that first: %s", alerts(s.said)))
	case !s.workers:
		return fail(plugins.Unsupported, fmt.Errorf("the haproxy process %d has no workers, so that it cannot be reloaded in place: start it with -W, or -Ws under systemd", s.pid))
	}
	for _, p := range s.parts {
		if d := p.find("nbproc"); p.kind() == "global" && len(d) > 0 && d[0].after("nbproc") != "1" {
			return fail(plugins.Unsupported, fmt.Errorf("%s:%d: several processes have a map each: use nbthread", d[0].file, d[0].line))
		}
	}
	if err := errors.Join(s.taken(l), s.bound(l), s.ports.Occupied("haproxy", l)); err != nil {
		return fail(plugins.Conflict, err)
	}
	return nil
}

// forgivable reports whether all that haproxy has against the configuration is
// cured by the app's block: people refer to a backend before it exists, and a
// last line without an end gets one.
func (s survey) forgivable(l proxy.Layout) bool {
	const cured = `unable to find required (default_backend|use_backend): '%s'|Missing LF on last line`
	expr := regexp.MustCompile(fmt.Sprintf(cured, regexp.QuoteMeta(l.Upstream)))
	for line := range strings.Lines(s.said) {
		if !strings.Contains(line, "[ALERT]") || strings.Contains(line, "Fatal errors found") || strings.Contains(line, "Error(s) found") {
			continue
		}
		if !expr.MatchString(line) {
			return false
		}
	}
	return s.said != ""
}

// taken reports a section of the user's that has a name of teal's.
func (s survey) taken(l proxy.Layout) error {
	for _, p := range s.parts {
		if (p.kind() == "backend" || p.kind() == "listen") && p.name() == l.Upstream && !own(p, l) {
			return fmt.Errorf("%s:%d defines the %s %s: remove it there, or choose another name in the app file", p.file, p.line, p.kind(), l.Upstream)
		}
	}
	return nil
}

// bound reports a section of somebody else's that listens where the app shall.
// haproxy would share the connections out between both without a word.
func (s survey) bound(l proxy.Layout) error {
	wanted := ports.Binds(l)
	for _, p := range s.parts {
		if own(p, l) || !p.isProxy() {
			continue
		}
		for _, d := range p.find("bind") {
			if len(d.words) < 2 {
				continue
			}
			for a := range strings.SplitSeq(d.words[1], ",") {
				addr, ok := bindAddr(a)
				if i := slices.IndexFunc(wanted, func(w netip.AddrPort) bool {
					return ok && w.Port() == addr.Port() && (ports.Overlap(addr.Addr(), w.Addr()) || ports.Overlap(w.Addr(), addr.Addr()))
				}); i >= 0 {
					return fmt.Errorf("%s:%d listens on %s already, where the app shall: choose another port, or for a site refer to the backend %s there and leave the site out", d.file, d.line, a, l.Upstream)
				}
			}
		}
	}
	return nil
}

// bindAddr reads the address of a bind line: address:port, *:port or :port.
func bindAddr(s string) (netip.AddrPort, bool) {
	for _, prefix := range []string{"ipv4@", "ipv6@"} {
		s = strings.TrimPrefix(s, prefix)
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, false
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	text := strings.Trim(s[:i], "[]")
	if text == "" || text == "*" {
		text = "0.0.0.0"
	}
	addr, err := netip.ParseAddr(text)
	return netip.AddrPortFrom(addr, uint16(port)), err == nil
}

// warn says what breaks the promise of no failed request though all works.
func (s survey) warn(l proxy.Layout, ready bool) []string {
	var ws []string
	say := func(d directive, format string, args ...any) {
		ws = append(ws, fmt.Sprintf("%s:%d: %s", d.file, d.line, fmt.Sprintf(format, args...)))
	}
	for _, p := range s.parts {
		if own(p, l) || strings.HasPrefix(p.name(), "teal:") {
			continue
		}
		if !ready && p.kind() != "backend" && p.isProxy() && p.requests() && !p.enabled("idle-close-on-response") {
			say(p.directive, "%s %s has no `option idle-close-on-response`: the reload that prepares the app may lose requests on its keep-alive connections", p.kind(), p.name())
		}
		if p.leads(l) {
			for _, d := range slices.Concat(p.find("server"), p.find("default-server")) {
				if d.has("on-marked-down", "shutdown-sessions") {
					say(d, "on-marked-down shutdown-sessions cuts requests that a deployment promises to let end: remove it")
				}
			}
		}
		if p.kind() == "global" {
			s.warnGlobal(p, l, ready, say)
		}
	}
	if l.Site == nil && !s.referred(l) {
		ws = append(ws, fmt.Sprintf("no frontend refers to the backend %s: add the line `default_backend %s` to one", l.Upstream, l.Upstream))
	}
	for _, port := range s.ephemeralPorts(l) {
		ws = append(ws, fmt.Sprintf("port %d lies in the range of outgoing connections (%s), one of which may hold it: choose another, or reserve it in net.ipv4.ip_local_reserved_ports", port, strings.Join(strings.Fields(s.ports.Ephemeral), " to ")))
	}
	return ws
}

func (s survey) warnGlobal(global *part, l proxy.Layout, ready bool, say func(directive, string, ...any)) {
	for _, d := range global.find("hard-stop-after") {
		say(d, "hard-stop-after cuts what is still open that long after a reload")
	}
	exposed := false
	for _, d := range global.find("stats", "socket") {
		exposed = exposed || d.has("expose-fd", "listeners")
	}
	// From 2.6 on the master hands listeners on by itself.
	if !ready && !exposed && !s.atLeast(2, 6) {
		say(global.directive, "no admin socket has `expose-fd listeners`: a reload resets connections that are about to be accepted")
	}
	for _, d := range global.find("maxconn") {
		most, err := strconv.Atoi(d.after("maxconn"))
		if err != nil {
			continue
		}
		for _, p := range s.parts {
			if p.kind() != "backend" && p.leads(l) && p.most() > most/2 {
				say(d, "each connection of %s %s takes a second one to a stable port out of the maxconn of all, and waits when there is none left: give it a maxconn of at most %d", p.kind(), p.name(), most/2)
			}
		}
	}
}

// most returns the connections that a frontend accepts at most.
func (p part) most() int {
	for _, d := range p.find("maxconn") {
		if n, err := strconv.Atoi(d.after("maxconn")); err == nil {
			return n
		}
	}
	return int(^uint(0) >> 1)
}

// requests reports whether the section routes HTTP.
func (p part) requests() bool {
	modes := p.find("mode")
	return len(modes) > 0 && modes[0].after("mode") == "http"
}

// leads reports whether requests for the app pass the section.
func (p part) leads(l proxy.Layout) bool {
	if !p.isProxy() || own(&p, l) {
		return false
	}
	for _, word := range []string{"default_backend", "use_backend"} {
		for _, d := range p.find(word) {
			if d.after(word) == l.Upstream {
				return true
			}
		}
	}
	for _, d := range p.find("server") {
		if len(d.words) < 3 {
			continue
		}
		if addr, ok := bindAddr(d.words[2]); ok && slices.ContainsFunc(l.Members, func(m proxy.Member) bool { return m.Stable == addr }) {
			return true
		}
	}
	return false
}

// referred reports whether a section leads to the app, as far as can be seen:
// a name that is computed may be any.
func (s survey) referred(l proxy.Layout) bool {
	return slices.ContainsFunc(s.parts, func(p *part) bool {
		return p.leads(l) || p.isProxy() && slices.ContainsFunc(p.find("use_backend"), func(d directive) bool { return strings.Contains(d.after("use_backend"), "%[") })
	})
}
