package spec

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

var (
	headerExpr     = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	serverNameExpr = regexp.MustCompile(`^(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$`)
	hostHeaderExpr = regexp.MustCompile(`^(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$`)
)

// test checks step 5.
func (c *checker) test() {
	t := c.app.Test
	c.positive("test.within", t.Within)
	c.positive("test.interval", t.Interval)
	c.positive("test.timeout", t.Timeout)
	c.notNegative("test.stable", t.Stable)
	if c.known("test.successes") && t.Successes < 1 {
		c.fail("test.successes", "", "must be 1 or more, and is %d", t.Successes)
	}
	c.testTimes()
	for i, check := range t.Checks {
		if key := tomlfile.Index("test.checks", i); c.known(key) && c.doc.Has(key) {
			c.one(key, check)
		}
	}
}

// testTimes checks that the tests can pass within their time.
func (c *checker) testTimes() {
	t := c.app.Test
	if c.known("test.within", "test.timeout") && t.Within > 0 && t.Timeout > t.Within {
		c.fail(c.said("test.timeout", "test.within"), "raise test.within or lower test.timeout",
			"one check may take %s, which is longer than test.within, %s", short(t.Timeout), short(t.Within))
	}
	const most = 100_000 // successes; keeps the product in range
	if !c.known("test.within", "test.interval", "test.successes", "test.stable") || t.Within <= 0 || t.Successes > most ||
		t.Interval > 1000*time.Hour {
		if t.Successes > most || t.Interval > 1000*time.Hour {
			c.fail(c.said("test.successes", "test.interval"), "", "is far too large")
		}
		return
	}
	if least := time.Duration(t.Successes)*t.Interval + t.Stable; least >= t.Within {
		c.fail(c.said("test.within", "test.stable", "test.successes", "test.interval"), "raise test.within",
			"the tests can never pass: %d successes every %s and %s of being stable take %s, and test.within is %s",
			t.Successes, short(t.Interval), short(t.Stable), short(least), short(t.Within))
	}
}

// said returns the first of the keys that stands in the file.
func (c *checker) said(keys ...string) string {
	for _, key := range keys {
		if c.doc.Has(key) {
			return key
		}
	}
	return keys[0]
}

// one checks one of test.checks.
func (c *checker) one(key string, check Check) {
	kinds := 0
	for _, kind := range []string{"http", "tcp", "exec", "engine"} {
		if c.doc.Has(key + "." + kind) {
			kinds++
		}
	}
	if kinds != 1 && c.sound(key) {
		c.fail(key, `write { http = "/up" }, { tcp = 8080 }, { exec = ["…"] } or { engine = true }`,
			"must say exactly one of http, tcp, exec and engine, and says %d", kinds)
	}
	port := c.app.Container.Port
	network := c.doc.Has(key+".http") || c.doc.Has(key+".tcp")
	if network && !c.doc.Has("container.port") {
		c.fail(key, "set container.port, or use exec or engine", "there is no port to ask")
	} else if tcp := key + ".tcp"; c.doc.Has(tcp) && c.known(tcp, "container.port") && check.TCP != port {
		c.fail(tcp, fmt.Sprintf("write tcp = %d", port), "%d is not container.port, the only one that is reachable", check.TCP)
	}
	if engine := key + ".engine"; c.doc.Has(engine) && c.known(engine) && !check.Engine {
		c.fail(engine, "leave the check out", "a check that is off")
	}
	if speaks := c.app.Container.Protocol; c.doc.Has(key+".http") && c.known("container.protocol") && (speaks == protocolGRPC || speaks == protocolTCP) {
		c.fail(key+".http", fmt.Sprintf(`write { tcp = %d } or { exec = ["…"] }`, port), "asks over HTTP/1.1, and the app speaks %s", speaks)
	}
	c.argv(key+".exec", check.Exec)
	c.httpCheck(key, check)
}

func (c *checker) httpCheck(key string, check Check) {
	if !c.doc.Has(key + ".http") {
		for _, name := range []string{"status", "body", "host", "headers"} {
			if c.doc.Has(key + "." + name) {
				c.failName(key+"."+name, "", "says something only together with http")
			}
		}
		return
	}
	c.text(key+".http", check.HTTP, requestPath)
	c.status(key+".status", check.Status)
	c.text(key+".body", check.Body, noNUL)
	c.text(key+".host", check.Host, matching(hostHeaderExpr, "a host", `write "shop.example.com" or "shop.example.com:8080"`))
	for _, name := range c.doc.Keys(key + ".headers") {
		at := tomlfile.Join(key+".headers", name)
		switch {
		case strings.EqualFold(name, "host"):
			c.failName(at, `say it as host = "…"`, "is not set as a header")
		case !headerExpr.MatchString(name):
			c.failName(at, "", "%q is not a name for a header", name)
		}
		c.text(at, check.Headers[name], func(s string) error {
			if strings.ContainsFunc(s, func(r rune) bool { return isControl(r) && r != '\t' }) {
				return fmt.Errorf("%q holds a line end or another control character", s)
			}
			return nil
		})
	}
}

// requestPath is the rule for what a request asks for.
func requestPath(s string) error {
	u, err := url.ParseRequestURI(s)
	if s == "" || s[0] != '/' || strings.HasPrefix(s, "//") || err != nil || u.Fragment != "" || strings.ContainsAny(s, " #") ||
		strings.ContainsFunc(s, func(r rune) bool { return isControl(r) || r > 0x7e }) {
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not the path of a request", s), Hint: `begin it with '/', as "/up"`}
	}
	return nil
}

func (c *checker) status(key string, list []int) {
	for i, code := range list {
		if at := tomlfile.Index(key, i); c.known(at) && c.doc.Has(at) && (code < 100 || code > 599) {
			c.fail(at, "between 100 and 599", "%d is not an HTTP status", code)
		}
	}
}

// What an app may speak on its port.
const (
	protocolHTTP = "http"
	protocolGRPC = "grpc"
	protocolTCP  = "tcp"
)

// protocol checks what the app speaks, and that all that is said fits it.
func (c *checker) protocol() {
	const key = "container.protocol"
	speaks, p := c.app.Container.Protocol, c.app.Proxy
	c.text(key, speaks, oneOf([]string{protocolHTTP, protocolGRPC, protocolTCP}))
	if c.doc.Has(key) && !c.doc.Has("container.port") {
		c.failName(key, fmt.Sprintf("set %s, or leave it out", c.doc.Name("container.port")), "says what a port speaks, and a worker has none")
	}
	if speaks != protocolTCP || p == nil || !c.known(key, "proxy") {
		return
	}
	if p.Type == "nginx" && c.known("proxy.type") {
		c.fail(key, fmt.Sprintf(`set %s to "haproxy"`, c.doc.Name("proxy.type")),
			"nginx does not switch tcp: its stream module reads no file for a connection, so a switch would be a reload, which loses connections")
	}
	if p.Verify != nil {
		c.failName("proxy.verify", "leave it out: test.checks ask the app itself", "asks over HTTP, and the app speaks tcp")
	}
	if p.Site != nil && len(p.Site.Names) > 0 {
		c.failName("proxy.site.names", "leave it out", "a tcp connection does not say which name it is for")
	}
}

// proxy checks step 6.
func (c *checker) proxy() {
	p := c.app.Proxy
	port, table := c.doc.Has("container.port"), c.doc.Has("proxy")
	switch {
	case port && !table:
		c.fail("container.port", fmt.Sprintf(`set %s to "nginx" or "haproxy", or leave the port out: the app is a worker then`, c.doc.Name("proxy.type")),
			"a port needs a proxy in front of it")
	case table && !port:
		c.failName("proxy", fmt.Sprintf("set %s, or leave the proxy out: the app is a worker then", c.doc.Name("container.port")),
			"a proxy needs a port of the container")
	}
	if p == nil || !c.known("proxy") {
		return
	}
	c.required("proxy.type", fmt.Sprintf(`set %s to "nginx" or "haproxy"`, c.doc.Name("proxy.type")))
	c.text("proxy.type", p.Type, oneOf([]string{"nginx", "haproxy"}))
	c.text("proxy.hosts", p.Hosts, printable)
	if c.doc.Has("proxy.hosts") && !c.doc.Has("hosts") {
		c.fail("proxy.hosts", `set hosts, as "web"`, "the app would run on the load balancers as well: hosts is not set, which means all")
	}
	c.text("proxy.address", p.Address, address)
	if c.doc.Has("proxy.address") && !c.doc.Has("proxy.hosts") {
		c.failName("proxy.address", "set proxy.hosts, or leave it out: each host has its own proxy",
			"is for load balancers, and there is no proxy.hosts")
	}
	c.text("proxy.upstream", p.Upstream, func(s string) error {
		if c.doc.Has("proxy.upstream") {
			return matching(upstreamExpr, "a name for an upstream", "letters, digits, '_', '.' and '-'")(s)
		}
		return nil // the app's name, which is checked as such
	})
	c.site(p.Site)
	c.verify(p.Verify)
}

// address is the rule for where load balancers reach a host.
func address(s string) error {
	at, err := netip.ParseAddr(s)
	if err == nil && at.Zone() == "" && !at.IsUnspecified() && !at.IsMulticast() {
		return nil
	}
	return &tomlfile.Fault{
		Message: fmt.Sprintf("%q is not an address of a host", s),
		Hint:    `write an IP address, as "10.0.0.5", or a variable that has one for each host, as "${private_address}"`,
	}
}

func (c *checker) site(s *Site) {
	if s == nil || !c.known("proxy.site") {
		return
	}
	const key = "proxy.site.listen"
	c.required(key, "write listen = [80]")
	if c.doc.Has(key) && c.known(key) && len(s.Listen) == 0 {
		c.fail(key, "write listen = [80]", "must not be empty")
	}
	seen := map[netip.AddrPort]bool{}
	for i, at := range s.Listen {
		if seen[at] && at.IsValid() {
			c.fail(tomlfile.Index(key, i), "", "stands in the list already")
		}
		seen[at] = true
	}
	c.texts("proxy.site.names", s.Names, matching(serverNameExpr, "a server name", `write "shop.example.com" or "*.example.com"`))
}

func (c *checker) verify(v *Verify) {
	if v == nil || !c.known("proxy.verify") {
		return
	}
	const key = "proxy.verify"
	c.required(key+".http", `say what to ask for, as http = "http://shop.example.com/up"`)
	c.text(key+".http", v.HTTP, wholeURL)
	c.status(key+".status", v.Status)
	if c.doc.Has(key+".status") && c.known(key+".status") && len(v.Status) == 0 {
		c.fail(key+".status", "leave it out for 200", "must not be empty")
	}
	c.text(key+".body", v.Body, noNUL)
}

// wholeURL is the rule for a URL with everything that a request needs.
func wholeURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		// The text is not shown: it may hold a password.
		return &tomlfile.Fault{Message: "is not a URL to ask", Hint: `write "http://shop.example.com/up"`}
	case u.User != nil:
		return &tomlfile.Fault{Message: "a login does not stand in the file", Hint: "use an address that answers without one"}
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Fragment != "",
		!hostHeaderExpr.MatchString(u.Host), strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > 0x7e }):
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not a URL to ask", s), Hint: `write "http://shop.example.com/up"`}
	}
	return nil
}
