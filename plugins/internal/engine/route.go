package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// A Route says how an engine's socket is reached from teal.
type Route struct {
	// Socket is an absolute path on the host; empty where Serve is to say it.
	Socket string

	// Serve is a command that starts a service for one session: it prints
	// the path of the socket and a line end once something listens there, and
	// ends the service when its own standard input ends. Nil: one runs.
	Serve []string

	// Bridge makes a command carry the connection: Program, the words that
	// the engine's client begins with. Otherwise the socket is forwarded.
	Bridge  bool
	Program []string
	Become  bool // the command of a bridge is run as become leads to
}

// process reports whether a session takes a process on the host.
func (r Route) process() bool { return r.Bridge || r.Serve != nil }

// command is that of a bridge.
func (r Route) command() []string {
	return slices.Concat(r.Program, []string{"-H", "unix://" + r.Socket, "system", "dial-stdio"})
}

func (r Route) String() string {
	said := r.Socket
	if r.Serve != nil {
		said = "a service started for each operation"
	}
	switch {
	case r.Become:
		said += " by a command with become"
	case r.Bridge:
		said += " by a command"
	}
	return said
}

// Route returns how the engine on h is reached, once it has answered.
func (e *Engine) Route(ctx context.Context, h plugins.Host) (Route, error) {
	s, err := e.open(ctx, h)
	if err != nil {
		return Route{}, err
	}
	defer s.close()
	return s.route, nil
}

// discover tries the routes in their order.
func (e *Engine) discover(ctx context.Context, h plugins.Host) (*session, error) {
	var refused error
	try := func(r Route) *session {
		w := &way{route: r, turns: make(chan struct{}, maxBridged)}
		s, err := e.connect(ctx, h, w)
		if err != nil {
			refused = err
			return nil
		}
		e.remember(h, w)
		return s
	}
	final := func() bool {
		return ctx.Err() != nil || errors.Is(refused, plugins.Lost) || errors.Is(refused, plugins.Unsupported)
	}
	if e.Locate != nil {
		rs, err := e.Locate(ctx, h)
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			if s := try(r); s != nil {
				return s, nil
			}
			if final() {
				return nil, refused
			}
		}
		return nil, &plugins.Error{Op: "reach " + e.Name, Host: h.String(), Kind: plugins.Unavailable, Err: refused}
	}
	if s := try(Route{Socket: e.Sockets[0]}); s != nil {
		return s, nil
	}
	if final() {
		return nil, refused
	}
	f, err := e.inquire(ctx, h)
	if err != nil {
		return nil, err
	}
	for _, r := range e.routes(f) {
		if s := try(r); s != nil {
			return s, nil
		}
		if final() {
			return nil, refused
		}
	}
	return nil, e.diagnose(h, f, refused)
}

// routes are those that are left when the first socket could not be forwarded.
func (e *Engine) routes(f facts) []Route {
	var rs []Route
	for _, s := range f.sockets {
		if s.writable && s.path != e.Sockets[0] {
			rs = append(rs, Route{Socket: s.path})
		}
	}
	if f.program == "" {
		return rs
	}
	bridge := func(socket string, become bool) Route {
		return Route{Socket: socket, Bridge: true, Become: become, Program: []string{f.program}}
	}
	for _, s := range f.sockets {
		if s.writable {
			rs = append(rs, bridge(s.path, false)) // forwarding is switched off
		}
	}
	for _, s := range f.sockets {
		if !s.writable {
			rs = append(rs, bridge(s.path, true))
		}
	}
	return rs
}

// facts are what the login user sees on a host.
type facts struct {
	user, groups string
	program      string // path of the client, "" when there is none
	sockets      []socket
}

// A socket is one that exists.
type socket struct {
	path     string
	writable bool
}

// inquiry prints facts, one a line: the arguments are the program, the path
// below XDG_RUNTIME_DIR, and the sockets.
const inquiry = `
echo "user $(id -un)"
echo "groups $(id -Gn)"
p=$(command -v "$1") && echo "program $p"
r=$2; shift 2
if [ -n "$r" ]; then set -- "$@" "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/$r"; fi
for s; do
	[ -S "$s" ] || continue
	if [ -w "$s" ]; then echo "open $s"; else echo "closed $s"; fi
done`

func (e *Engine) inquire(ctx context.Context, h plugins.Host) (facts, error) {
	args := append([]string{"sh", "-c", inquiry, "teal", e.Program, e.Rootless}, e.Sockets...)
	out, err := plugins.Output(ctx, h, args...)
	if err != nil {
		return facts{}, err
	}
	return parseFacts(out), nil
}

func parseFacts(out []byte) facts {
	var f facts
	for line := range bytes.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		switch key {
		case "user":
			f.user = value
		case "groups":
			f.groups = value
		case "program":
			f.program = value
		case "open", "closed":
			f.sockets = append(f.sockets, socket{path: value, writable: key == "open"})
		}
	}
	return f
}

// diagnose says what keeps teal from the engine, and what cures it.
func (e *Engine) diagnose(h plugins.Host, f facts, refused error) error {
	fault := &plugins.Error{Op: "reach " + e.Name, Host: h.String(), Kind: plugins.Denied}
	var exit *plugins.ExitError
	errors.As(refused, &exit)
	switch {
	case len(f.sockets) == 0:
		fault.Kind = plugins.Unavailable
		fault.Err = fmt.Errorf("no engine listens at %s: install it, or start it (%s)", strings.Join(e.Sockets, " or "), e.Start)
		if f.program == "" {
			fault.Err = fmt.Errorf("%w; the program %s is not there either", fault.Err, e.Program)
		}
	case f.sockets[0].writable && exit != nil:
		fault.Kind = plugins.Unavailable
		fault.Err = fmt.Errorf("the engine behind %s does not answer: start it (%s): %w", f.sockets[0].path, e.Start, refused)
	case f.sockets[0].writable:
		fault.Kind = plugins.Unavailable
		fault.Err = fmt.Errorf("cannot reach %s: the engine does not run (%s), or the SSH server refuses to forward a socket "+
			"(AllowStreamLocalForwarding, AllowTcpForwarding, PermitOpen) and the program %s, which could take its place, is not there: %w",
			f.sockets[0].path, e.Start, e.Program, refused)
	default:
		cure := "set become for the host"
		if e.Group != "" {
			cure += fmt.Sprintf(", or add the user to the group (usermod -aG %s %s)", e.Group, f.user)
		}
		fault.Err = fmt.Errorf("user %s (groups %s) may not open %s: %s: %w", f.user, f.groups, f.sockets[0].path, cure, refused)
	}
	return fault
}
