package nginx

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// unfit makes an error of one of valid: of kind Unsupported for what nginx
// cannot do, Invalid for what cannot be written.
func unfit(h plugins.Host, op string, err error) error {
	return failed(h, op, cmp.Or(plugins.KindOf(err), plugins.Invalid), err)
}

// valid reports what in l cannot be written into a configuration file. Nothing
// in nginx's syntax is quoted: what would need it is refused.
func valid(l proxy.Layout) error {
	var (
		word   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
		dir    = regexp.MustCompile(`^/[A-Za-z0-9_.,@+/-]*$`)
		cookie = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)
	)
	switch l.Protocol {
	case "", proxy.HTTP, proxy.GRPC:
	case proxy.TCP:
		return &plugins.Error{Kind: plugins.Unsupported, Err: errors.New("protocol tcp: nginx cannot choose a slot for a connection " +
			"without a reload, which loses requests: use haproxy, or protocol http or grpc")}
	default:
		return fmt.Errorf("protocol %q", l.Protocol)
	}
	var r refusals
	r.unless(word.MatchString(l.App), "app %q: only letters, digits, '_', '.' and '-' are possible", l.App)
	r.unless(word.MatchString(l.Upstream), "upstream %q: only letters, digits, '_', '.' and '-' are possible", l.Upstream)
	r.unless(dir.MatchString(l.Dir) && path.Clean(l.Dir) == l.Dir, "folder %q: it must be absolute and have no character special to nginx", l.Dir)
	r.unless(cookie.MatchString(l.Sticky.Cookie), "sticky cookie %q: only letters, digits, '_', '.' and '-' are possible", l.Sticky.Cookie)
	r.unless(l.Sticky.Cookie == "" || !l.Sticky.Address, "sticky: a cookie and the address")
	r.members(l)
	if l.Site != nil {
		r.site(l)
	}
	return errors.Join(r...)
}

// refusals are reasons, for people.
type refusals []error

func (r *refusals) unless(ok bool, format string, args ...any) {
	if !ok {
		*r = append(*r, fmt.Errorf(format, args...))
	}
}

// members refuses what cannot be told apart: a name or an address that two
// members or slots share leads requests astray.
func (r *refusals) members(l proxy.Layout) {
	const longest = 60 // three bytes each, and a file's name
	r.unless(len(l.Members) > 0, "no member")
	names, holders := map[string]bool{}, map[netip.AddrPort]string{}
	for _, m := range l.Members {
		r.unless(m.Name != "" && len(m.Name) <= longest, "member %q: its name must have 1 to %d bytes", m.Name, longest)
		r.unless(!names[m.Name], "two members %s", m.Name)
		names[m.Name] = true
		r.unless(m.Stable.Addr().IsLoopback() && m.Stable.Port() != 0 && m.Stable.Addr().Zone() == "",
			"member %s: stable address %s: it must be a port on loopback", m.Name, m.Stable)
		r.unless(len(m.Blue) > 0 && len(m.Green) > 0, "member %s: it needs an address for blue and one for green", m.Name)
		for _, a := range slices.Concat([]netip.AddrPort{m.Stable}, m.Blue, m.Green) {
			r.unless(a.IsValid() && a.Port() != 0 && a.Addr().Zone() == "", "member %s: address %s", m.Name, a)
			r.unless(holders[a] == "", "members %s and %s: both have the address %s", holders[a], m.Name, a)
			holders[a] = m.Name
		}
	}
}

func (r *refusals) site(l proxy.Layout) {
	name := regexp.MustCompile(`^[A-Za-z0-9_.*-]+$`)
	r.unless(len(l.Site.Listen) > 0, "site: it listens nowhere")
	for _, a := range l.Site.Listen {
		taken := slices.ContainsFunc(l.Members, func(m proxy.Member) bool { return a == m.Stable })
		r.unless(a.IsValid() && a.Port() != 0 && a.Addr().Zone() == "" && !taken, "site: listen address %s", a)
	}
	for _, n := range l.Site.Names {
		r.unless(name.MatchString(n), "site: name %q", n)
	}
}
