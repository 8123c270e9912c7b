package engine

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/teal-deploy/teal/plugins"
)

// An Engine is a kind of engine, and what is known of the hosts that run it.
// It implements plugins.Runtime, Restarter, RestartPolicySetter and
// LogStreamer. Set the exported fields before the first call.
type Engine struct {
	Name      string   // "docker"
	Component string   // what the engine calls itself among its parts: "Engine"
	Program   string   // its command line client, which has "system dial-stdio"
	Sockets   []string // absolute paths, tried in this order
	Rootless  string   // path of a user's own socket below XDG_RUNTIME_DIR; empty: there is none
	Start     string   // the command that starts the engine, for messages
	Group     string   // may open the socket; empty: no group may

	// Locate, when not nil, says instead of Sockets and Rootless by which
	// routes the engine is reached, the best first.
	Locate func(ctx context.Context, h plugins.Host) ([]Route, error)

	// Qualified makes names of images mean what they say: one without a
	// registry is Invalid, and no registry is left out of a reference.
	Qualified bool

	// StopsFirst says that the engine, told to remove a container by force,
	// asks it to end first and waits as long as for a stop.
	StopsFirst bool

	// PullsPlain says that the engine has a call of its own to pull from a
	// registry without TLS, and needs to be told to. Others try it by
	// themselves for a registry at a loopback address of the host.
	PullsPlain bool

	// Renames says that the engine calls a container's image by any name that
	// it has for it, not by the one that the container was made with.
	Renames bool

	mu    sync.Mutex
	known map[string]*way // by the host's name
}

var (
	_ plugins.Runtime             = (*Engine)(nil)
	_ plugins.Restarter           = (*Engine)(nil)
	_ plugins.RestartPolicySetter = (*Engine)(nil)
	_ plugins.LogStreamer         = (*Engine)(nil)
)

// A way is a route that worked.
type way struct {
	route Route
	// turns bounds the operations that need a process on the host at one
	// time, and with it a session of the SSH connection.
	turns chan struct{}
}

// maxBridged is the number of such operations at a time on one host. Over a
// bridge each uses at most two connections: one for requests, one for an exec.
const maxBridged = 2

// nowhere stands for the engine's address in its URLs: the dialer knows better.
const nowhere = "engine.invalid"

// A session is an engine on one host, for one operation.
type session struct {
	api    *client.Client
	http   *http.Client // of api, for calls that it does not know
	engine *Engine
	host   plugins.Host
	route  Route
	dialer *dialer
	done   func()
}

// open reaches the engine on h. The session must be closed.
func (e *Engine) open(ctx context.Context, h plugins.Host) (*session, error) {
	if w := e.recall(h); w != nil {
		s, err := e.connect(ctx, h, w)
		if err == nil || ctx.Err() != nil || errors.Is(err, plugins.Lost) {
			return s, err
		}
		e.forget(h, w) // the host has changed: look again
	}
	return e.discover(ctx, h)
}

func (e *Engine) recall(h plugins.Host) *way {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[h.String()]
}

// remember keeps the first way that is found to work, so that all operations
// share its turns.
func (e *Engine) remember(h plugins.Host, w *way) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == nil {
		e.known = make(map[string]*way)
	}
	if e.known[h.String()] == nil {
		e.known[h.String()] = w
	}
}

func (e *Engine) forget(h plugins.Host, w *way) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known[h.String()] == w {
		delete(e.known, h.String())
	}
}

// connect opens a session by a way and proves that an engine answers.
func (e *Engine) connect(ctx context.Context, h plugins.Host, w *way) (*session, error) {
	release := func() {}
	if w.route.process() {
		select {
		case w.turns <- struct{}{}:
			release = func() { <-w.turns }
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	d := &dialer{host: h, route: w.route}
	transport := &http.Transport{DialContext: d.dial, DisableCompression: true, IdleConnTimeout: 30 * time.Second}
	if w.route.Bridge {
		transport.MaxConnsPerHost = 1
	}
	plain := &http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}
	api, err := client.New(client.WithHost("tcp://"+nowhere), client.WithHTTPClient(plain))
	if err != nil {
		release()
		return nil, err
	}
	s := &session{api: api, http: plain, engine: e, host: h, route: w.route, dialer: d, done: release}
	if err := s.greet(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// greet starts the service where there is none, makes the first connection
// and negotiates the API's version.
func (s *session) greet(ctx context.Context) error {
	if err := s.dialer.serve(ctx); err != nil {
		return err
	}
	if err := s.dialer.first(ctx); err != nil {
		return err
	}
	_, err := s.api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case s.dialer.failure() != nil:
		return s.dialer.failure()
	case errdefs.IsInvalidArgument(err):
		return s.fault("probe", plugins.Unsupported, err)
	}
	return s.fault("probe", plugins.Unavailable, err)
}

// close ends the connections of the session and waits for what carried them.
func (s *session) close() {
	_ = s.api.Close()
	s.dialer.close()
	s.done()
}

// A dialer makes connections to the engine's socket. It remembers why one
// failed, because the client's own words hide it, and it closes what the
// client leaves open.
type dialer struct {
	host  plugins.Host
	route Route

	mu    sync.Mutex
	ready net.Conn // the first one, not yet asked for
	conns []net.Conn
	err   error
	wg    sync.WaitGroup
}

// first makes a connection ahead of the client's wish.
func (d *dialer) first(ctx context.Context) error {
	conn, err := d.dial(ctx, "", "")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = conn
	return err
}

// dial has the form that http.Transport wants; the address is not used.
func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	d.mu.Lock()
	if conn := d.ready; conn != nil {
		d.ready = nil
		d.mu.Unlock()
		return conn, nil
	}
	if d.err != nil {
		defer d.mu.Unlock()
		return nil, d.err
	}
	d.mu.Unlock()
	var conn net.Conn
	var err error
	if d.route.Bridge {
		conn = d.carry(ctx, d.route.command(), d.route.Become)
	} else {
		conn, err = d.host.DialContext(ctx, "unix", d.route.Socket)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			d.err = err
		}
		return nil, err
	}
	d.conns = append(d.conns, conn)
	return conn, nil
}

// failure returns why a connection failed, nil when none did.
func (d *dialer) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *dialer) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
}

func (d *dialer) close() {
	d.mu.Lock()
	conns := d.conns
	d.conns, d.ready, d.err = nil, nil, net.ErrClosed
	d.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	d.wg.Wait()
}
