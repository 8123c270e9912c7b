package nginx

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"
	"text/template"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

//go:embed teal.conf.tmpl
var confTemplate string

// text returns the configuration file for l and its generation, a digest of
// the text that the running nginx reports, so that the file and what runs can
// be compared. The same layout gives the same text.
func text(l proxy.Layout) (conf []byte, generation string, err error) {
	if err := valid(l); err != nil {
		return nil, "", err
	}
	t, err := template.New("conf").Parse(confTemplate)
	if err != nil {
		return nil, "", err
	}
	values := page{Layout: l, ID: id(l.App), Route: routeDir(l)}
	for _, m := range l.Members {
		values.Blue = append(values.Blue, m.Blue...)
		values.Green = append(values.Green, m.Green...)
	}
	values.Tries = max(len(values.Blue), len(values.Green)) + 1
	for i := range buckets - 1 {
		values.Buckets = append(values.Buckets, i)
	}
	if l.Site != nil {
		values.Listen = listens(*l.Site)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, values); err != nil { // without a generation, as it is of this
		return nil, "", err
	}
	sum := sha256.Sum256(b.Bytes())
	values.Generation = hex.EncodeToString(sum[:6])
	b.Reset()
	err = t.Execute(&b, values)
	return b.Bytes(), values.Generation, err
}

// page is what the template is filled with.
type page struct {
	proxy.Layout
	ID          string // the app's name as part of a variable's name
	Route       string // the folder of the datum
	Blue, Green []netip.AddrPort
	Buckets     []int // all but the last
	Tries       int   // so many that the other slot is reached when all of one refuse
	Listen      []string
	Generation  string
	Pass        string // what proxy_pass leads to
}

// To returns p with another destination.
func (p page) To(pass string) page {
	p.Pass = pass
	return p
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
// same one, and short enough for nginx's table of them.
func id(app string) string {
	const most = 24
	var b strings.Builder
	for _, c := range []byte(app) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	if b.Len() <= most {
		return b.String()
	}
	sum := sha256.Sum256([]byte(app))
	return b.String()[:most-8] + "__" + hex.EncodeToString(sum[:4])
}

// valid reports what in l cannot be written into a configuration file. Nothing
// in nginx's syntax is quoted: what would need it is refused.
func valid(l proxy.Layout) error {
	var (
		word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
		name = regexp.MustCompile(`^[A-Za-z0-9_.*-]+$`)
		dir  = regexp.MustCompile(`^/[A-Za-z0-9_.,@+/-]*$`)
	)
	var errs []error
	refuse := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(word.MatchString(l.App), "app %q: only letters, digits, '_', '.' and '-' are possible", l.App)
	refuse(word.MatchString(l.Upstream), "upstream %q: only letters, digits, '_', '.' and '-' are possible", l.Upstream)
	refuse(dir.MatchString(l.Dir) && path.Clean(l.Dir) == l.Dir, "folder %q: it must be absolute and have no character special to nginx", l.Dir)
	refuse(l.Stable.Addr().IsLoopback() && l.Stable.Port() != 0, "stable address %s: it must be a port on loopback", l.Stable)
	refuse(len(l.Members) > 0, "no member")
	for _, m := range l.Members {
		refuse(len(m.Blue) > 0 && len(m.Green) > 0, "member %s: it needs an address for blue and one for green", m.Name)
		for _, a := range append(append([]netip.AddrPort(nil), m.Blue...), m.Green...) {
			refuse(a.IsValid() && a.Port() != 0 && a.Addr().Zone() == "", "member %s: address %s", m.Name, a)
			refuse(a != l.Stable, "member %s: %s is the stable address", m.Name, a)
		}
	}
	if l.Site != nil {
		refuse(len(l.Site.Listen) > 0, "site: it listens nowhere")
		for _, a := range l.Site.Listen {
			refuse(a.IsValid() && a.Port() != 0 && a.Addr().Zone() == "" && a != l.Stable, "site: listen address %s", a)
		}
		for _, n := range l.Site.Names {
			refuse(name.MatchString(n), "site: name %q", n)
		}
	}
	return errors.Join(errs...)
}
