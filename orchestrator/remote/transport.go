package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/orchestrator/remote/internal/sshconfig"
	"github.com/teal-deploy/teal/plugins"
)

// A transport is the stream under an SSH connection. It remembers when the
// host was last heard, and that the stream broke, before SSH learns of it.
type transport struct {
	net.Conn
	acknowledge func()       // see quickAck
	heard       atomic.Int64 // time of the last byte, Unix nanoseconds
	broken      atomic.Bool
}

func newTransport(c net.Conn) *transport {
	keepShort(c)
	t := &transport{Conn: c, acknowledge: quickAck(c)}
	t.heard.Store(time.Now().UnixNano())
	return t
}

func (t *transport) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.heard.Store(time.Now().UnixNano())
		t.acknowledge()
	}
	if err != nil {
		t.broken.Store(true)
	}
	return n, err
}

// silence returns for how long the host was not heard.
func (t *transport) silence() time.Duration {
	return time.Since(time.Unix(0, t.heard.Load()))
}

// A login is an SSH connection after a successful handshake.
type login struct {
	client    *ssh.Client
	transport *transport
}

// dialTransport connects and logs in. Handshakes at one address wait for each
// other, eight at a time, and one that the other side drops before it shows
// its host key is tried four times more: sshd drops logins at random when too
// many are under way (MaxStartups).
func (d *Dialer) dialTransport(ctx context.Context, s *sshconfig.Settings, hops int) (*login, error) {
	var via *Conn
	if len(s.Jump) > 0 {
		var err error
		if via, err = d.jumpTo(ctx, s, hops); err != nil {
			return nil, err
		}
	}
	leave, err := d.gates.Enter(ctx, s.Gate(), handshakesPerAddress)
	if err != nil {
		return nil, err
	}
	defer leave()
	pace := backoff.NewExponentialBackOff()
	pace.InitialInterval, pace.MaxInterval = 100*time.Millisecond, 2*time.Second
	return backoff.Retry(ctx, func() (*login, error) {
		l, dropped, err := d.attempt(ctx, s, via)
		if err != nil && !dropped {
			return nil, backoff.Permanent(err)
		}
		return l, err
	}, backoff.WithBackOff(pace), backoff.WithMaxTries(5), backoff.WithMaxElapsedTime(0))
}

// attempt is one try. dropped says that another one makes sense.
func (d *Dialer) attempt(ctx context.Context, s *sshconfig.Settings, via *Conn) (l *login, dropped bool, err error) {
	timed, clock := newClock(ctx, s.Timeout)
	defer clock.stop()
	raw, err := open(timed, s, via)
	if err != nil {
		if cause := context.Cause(timed); cause != nil {
			err = cause
		}
		return nil, false, kindError(plugins.Unavailable, err)
	}
	defer context.AfterFunc(timed, func() { _ = raw.Close() })()

	hs := &handshake{ctx: timed, transport: newTransport(raw), settings: s, clock: clock}
	defer hs.close()
	config, err := d.clientConfig(hs)
	if err != nil {
		_ = raw.Close()
		return nil, false, err
	}
	conn, chans, reqs, err := ssh.NewClientConn(hs.transport, s.Address(), config)
	if err == nil {
		return &login{ssh.NewClient(conn, chans, reqs), hs.transport}, false, nil
	}
	closeErr := raw.Close()
	if cause := context.Cause(timed); cause != nil {
		return nil, false, kindError(plugins.Unavailable, cause)
	}
	if command, ok := errors.AsType[*commandError](closeErr); ok { // says more than EOF
		return nil, false, kindError(plugins.Unavailable, command)
	}
	return nil, hs.dropped(err), hs.explain(err)
}

// open makes the stream: through a jump host, a proxy command, or TCP.
func open(ctx context.Context, s *sshconfig.Settings, via *Conn) (net.Conn, error) {
	switch {
	case via != nil:
		return via.DialContext(ctx, "tcp", s.Address())
	case s.ProxyCommand != "":
		return startProxy(s.ProxyCommand)
	default:
		return new(net.Dialer).DialContext(ctx, "tcp", s.Address())
	}
}

// isDrop reports whether err is the other side hanging up.
func isDrop(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// timeoutError says that the connect timeout has passed.
type timeoutError struct{ after time.Duration }

func (e timeoutError) Error() string   { return fmt.Sprintf("no answer within %s", e.after) }
func (e timeoutError) Timeout() bool   { return true }
func (e timeoutError) Temporary() bool { return true }

// A clock ends a context after a time that can be held while the operator
// thinks.
type clock struct {
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	limit time.Duration
	held  int
}

func newClock(ctx context.Context, limit time.Duration) (context.Context, *clock) {
	timed, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(timeoutError{limit}) })
	return timed, &clock{cancel: cancel, timer: timer, limit: limit}
}

// hold stops the clock and returns the function that starts it anew.
func (c *clock) hold() (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held++
	c.timer.Stop()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.held--; c.held == 0 {
			c.timer.Reset(c.limit)
		}
	}
}

func (c *clock) stop() {
	c.timer.Stop()
	c.cancel(nil)
}
