package nginx

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// refuse says what makes Prepare impossible.
func (s survey) refuse(h plugins.Host, l proxy.Layout) error {
	fail := func(kind plugins.Kind, format string, args ...any) error {
		return failed(h, "use nginx for "+l.App, kind, fmt.Errorf(format, args...))
	}
	oldest := []int{1, 15, 3} // knows keepalive_timeout in an upstream
	if v, ok := s.version(); ok && slices.Compare(v, oldest) < 0 {
		return fail(plugins.Unsupported, "version %s is too old, %s is needed", dotted(v), dotted(oldest))
	}
	if l.Protocol == proxy.GRPC {
		if err := s.speaksGRPC(); err != nil {
			return fail(plugins.Unsupported, "%w", err)
		}
	}
	// A site that refers to the upstream before it exists is how people begin.
	first := strings.Contains(s.said, fmt.Sprintf("host not found in upstream %q", l.Upstream)) ||
		strings.Contains(s.said, fmt.Sprintf("no port in upstream %q", l.Upstream))
	if !s.good && !first {
		return fail(plugins.Invalid, "the configuration on the host is broken, correct that first: %s", complaint(s.said))
	}
	if s.place == "" {
		return fail(plugins.Unsupported, "%s reads no folder of files in its http block: add the line `include %s/conf.d/*.conf;` there", s.conf.main, path.Dir(s.conf.main))
	}
	if err := s.conf.taken(l, s.place); err != nil {
		return fail(plugins.Conflict, "%w", err)
	}
	if err := s.taken.Occupied("nginx", l); err != nil {
		return fail(plugins.Conflict, "%w", err)
	}
	if f, ok := s.closed(); ok {
		return fail(plugins.Denied, "the workers of nginx (user %d) may not enter %s: chmod o+x %s", s.worker.uid, f.path, f.path)
	}
	return nil
}

// warn says what breaks the promise of no failed request though all works.
func (s survey) warn(l proxy.Layout, ready bool) []string {
	var ws []string
	if !ready && !s.gentle() {
		ws = append(ws, "writing the configuration takes one reload of nginx, which may reset keep-alive connections in use: "+
			"prepare in a quiet moment, or announce it in the sites as the manual shows, or set keepalive_min_timeout (nginx 1.27.4)")
	}
	for _, name := range []string{"limit_req", "limit_conn"} {
		for _, d := range find(s.conf.http(), name) {
			ws = append(ws, fmt.Sprintf("%s:%d: %s in the http block also limits teal's own server, where all clients are 127.0.0.1: move it into the sites", d.file, d.line, name))
		}
	}
	ws = append(ws, s.conf.sites(l, s.place, s.keepsAlive())...)
	for _, port := range s.ephemeralPorts(l) {
		ws = append(ws, fmt.Sprintf("port %d lies in the range of outgoing connections (%s), one of which may hold it: choose another, or reserve it in net.ipv4.ip_local_reserved_ports",
			port, strings.Join(strings.Fields(s.taken.Ephemeral), " to ")))
	}
	return ws
}

// speaksGRPC says what a build lacks for apps that speak gRPC.
func (s survey) speaksGRPC() error {
	oldest := []int{1, 17, 8} // knows variables in grpc_pass
	if v, ok := s.version(); ok && slices.Compare(v, oldest) < 0 {
		return fmt.Errorf("protocol grpc: version %s is too old, %s is needed", dotted(v), dotted(oldest))
	}
	_, args, ok := strings.Cut(s.build, "configure arguments:")
	switch {
	case ok && !strings.Contains(args, "--with-http_v2_module"):
		return errors.New("protocol grpc: this nginx was built without HTTP/2 (--with-http_v2_module): install one that has it")
	case ok && strings.Contains(args, "--without-http_grpc_module"):
		return errors.New("protocol grpc: this nginx was built without gRPC (--without-http_grpc_module): install one that has it")
	}
	return nil
}

// gentle reports whether a reload resets no connection: nginx keeps them for
// a while, or every server announces it.
func (s survey) gentle() bool {
	http := s.conf.http()
	if len(find(http, "keepalive_min_timeout")) > 0 {
		return true
	}
	for _, server := range find(http, "server") {
		if !announces(server.block) {
			return false
		}
	}
	return true
}

func announces(ds []directive) bool {
	return slices.ContainsFunc(ds, func(d directive) bool {
		return d.name == "if" && strings.HasSuffix(strings.TrimRight(strings.Join(d.args, " "), " )"), "/route/announce") || announces(d.block)
	})
}

// version returns the version of the build, ok false when it names none.
func (s survey) version() (v []int, ok bool) {
	_, rest, ok := strings.Cut(s.build, "version: ")
	if !ok {
		return nil, false
	}
	_, rest, ok = strings.Cut(rest, "/")
	if !ok {
		return nil, false
	}
	number, _, _ := strings.Cut(rest, "\n")
	number, _, _ = strings.Cut(number, " ")
	for part := range strings.SplitSeq(number, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, false
		}
		v = append(v, n)
	}
	return v, true
}

func dotted(v []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(v), " ", "."), "[]") }

// complaint picks out of what nginx -t says the lines that matter.
func complaint(said string) string {
	var lines []string
	for l := range strings.Lines(said) {
		if strings.Contains(l, "[emerg]") || strings.Contains(l, "[alert]") || strings.Contains(l, "[crit]") {
			lines = append(lines, l)
		}
	}
	return logged([]byte(strings.Join(lines, "")))
}

// taken reports names that the user's own files define already.
func (t tree) taken(l proxy.Layout, place string) error {
	for _, d := range find(t.http(), "upstream") {
		if d.file != place && len(d.args) == 1 && d.args[0] == l.Upstream {
			return fmt.Errorf("%s:%d defines the upstream %s: remove it there, or choose another name in the app file", d.file, d.line, l.Upstream)
		}
	}
	for _, server := range find(t.http(), "server") {
		if server.file == place {
			continue
		}
		for _, listen := range find(server.block, "listen") {
			if err := clash(l, server, listen); err != nil {
				return err
			}
		}
	}
	return nil
}

// clash reports whether a server of the user's is in the way of teal's.
func clash(l proxy.Layout, server, listen directive) error {
	if len(listen.args) == 0 {
		return nil
	}
	port := listenPort(listen.args[0])
	if slices.ContainsFunc(l.Members, func(m proxy.Member) bool { return m.Stable.Port() == port }) {
		return fmt.Errorf("%s:%d listens on port %d, which is to be a stable port of the app", listen.file, listen.line, port)
	}
	if l.Site == nil || !slices.ContainsFunc(l.Site.Listen, func(a netip.AddrPort) bool { return a.Port() == port }) {
		return nil
	}
	if len(l.Site.Names) == 0 {
		if slices.Contains(listen.args[1:], "default_server") {
			return fmt.Errorf("%s:%d is the default server of port %d: remove that, or give the site of the app its names", listen.file, listen.line, port)
		}
		return nil
	}
	for _, d := range find(server.block, "server_name") {
		for _, name := range d.args {
			if slices.Contains(l.Site.Names, name) {
				return fmt.Errorf("%s:%d serves %s on port %d already: remove that, or the site of the app", d.file, d.line, name, port)
			}
		}
	}
	return nil
}

// listenPort returns the port of a listen directive, 0 for a unix socket.
func listenPort(arg string) uint16 {
	if strings.HasPrefix(arg, "unix:") {
		return 0
	}
	if port, err := strconv.ParseUint(arg, 10, 16); err == nil {
		return uint16(port)
	}
	if i := strings.LastIndexByte(arg, ':'); i > strings.LastIndexByte(arg, ']') {
		port, _ := strconv.ParseUint(arg[i+1:], 10, 16) // nginx has accepted it
		return uint16(port)
	}
	return 80
}
