package haproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// longestSocket is the longest path of a socket that haproxy, which adds to
// it while it starts, can listen on.
const longestSocket = 90

// valid reports what in l cannot be written into a configuration. Nothing in
// haproxy's syntax is quoted: what would need it is refused.
func valid(l proxy.Layout) error {
	var c complaints
	word := regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	dir := regexp.MustCompile(`^/[A-Za-z0-9_.@+/-]*$`)
	c.refuse(word.MatchString(l.App), "app %q: only letters, digits, '_', '.' and '-' are possible", l.App)
	c.refuse(word.MatchString(l.Upstream), "upstream %q: only letters, digits, '_', '.' and '-' are possible", l.Upstream)
	c.refuse(dir.MatchString(l.Dir) && path.Clean(l.Dir) == l.Dir, "folder %q: it must be absolute and have no character special to haproxy", l.Dir)
	switch l.Protocol {
	case proxy.HTTP, proxy.GRPC:
	case proxy.TCP:
		c.refuse(l.Sticky == proxy.Sticky{}, "protocol tcp: a connection has neither cookies nor X-Forwarded-For to keep clients on a slot by")
		c.refuse(l.Site == nil || len(l.Site.Names) == 0, "protocol tcp: a connection has no name for the site to go by")
		c.refuse(len(proofSocket(l)) <= longestSocket, "folder %q: it is too long for a socket", l.Dir)
	default:
		c.refuse(false, "protocol %q is not known", l.Protocol)
	}
	c.refuse(len(l.Members) > 0, "no member")
	c.members(l.Members, word)
	c.options(l)
	return errors.Join(c...)
}

// complaints are what speaks against a layout.
type complaints []error

func (c *complaints) refuse(ok bool, format string, args ...any) {
	if !ok {
		*c = append(*c, fmt.Errorf(format, args...))
	}
}

// address refuses what cannot be connected to, and an address that is in use
// by the layout already.
func (c *complaints) address(a netip.AddrPort, whose string, used map[netip.AddrPort]string) {
	c.refuse(a.IsValid() && a.Port() != 0 && a.Addr().Zone() == "", "%s: address %s", whose, a)
	other, taken := used[a]
	c.refuse(!taken, "%s: %s is the address of %s", whose, a, other)
	used[a] = whose
}

func (c *complaints) members(members []proxy.Member, word *regexp.Regexp) {
	names, used := map[string]bool{}, map[netip.AddrPort]string{}
	for _, m := range members {
		c.refuse(word.MatchString(m.Name), "member %q: only letters, digits, '_', '.' and '-' are possible", m.Name)
		c.refuse(!names[m.Name], "member %s: it is there twice", m.Name)
		names[m.Name] = true
		c.refuse(m.Stable.Addr().IsLoopback(), "member %s: the stable address %s is not on loopback", m.Name, m.Stable)
		c.address(m.Stable, "the proxy for member "+m.Name, used)
		c.refuse(len(m.Blue) > 0 && len(m.Green) > 0, "member %s: it needs an address for blue and one for green", m.Name)
		for _, a := range m.Blue {
			c.address(a, "blue of member "+m.Name, used)
		}
		for _, a := range m.Green {
			c.address(a, "green of member "+m.Name, used)
		}
	}
}

func (c *complaints) options(l proxy.Layout) {
	cookie := regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)
	uri := regexp.MustCompile(`^/[A-Za-z0-9_.~!&*+;=:@/?-]*$`)
	domain := regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_.-]+$`)
	host := regexp.MustCompile(`^(([A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?)?$`)
	c.refuse(cookie.MatchString(l.Sticky.Cookie), "cookie %q: only letters, digits, '_', '.' and '-' are possible", l.Sticky.Cookie)
	c.refuse(l.Sticky.Cookie == "" || !l.Sticky.Address, "clients are kept on a slot by a cookie or by their address, not by both")
	if l.Up != nil {
		c.refuse(uri.MatchString(l.Up.Path), "path %q: it has a character that is special to haproxy", l.Up.Path)
		c.refuse(host.MatchString(l.Up.Host), "host %q", l.Up.Host)
	}
	if l.Site != nil {
		c.refuse(len(l.Site.Listen) > 0, "site: it listens nowhere")
		used := map[netip.AddrPort]string{}
		for _, m := range l.Members {
			used[m.Stable] = "the proxy for member " + m.Name
		}
		for _, a := range l.Site.Listen {
			c.address(a, "site", used)
		}
		for _, n := range l.Site.Names {
			c.refuse(domain.MatchString(n), "site: name %q", n)
		}
	}
}
