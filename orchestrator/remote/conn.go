package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/orchestrator/remote/internal/shell"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/sshconfig"
	"github.com/teal-deploy/teal/plugins"
)

// sessionsPerConnection stays below sshd's MaxSessions, which is 10 by default.
const sessionsPerConnection = 8

// settleTime bounds how long the library takes from closing channels to
// reporting the end of their connection.
const settleTime = 100 * time.Millisecond

// A Conn is one SSH connection to a host, and all that teal does there goes
// over it. Its methods may be called by several goroutines at the same time.
type Conn struct {
	name     string
	dialer   *Dialer
	settings *sshconfig.Settings
	login    *login

	sessions *places
	becoming place // held while it is found out how to become root
	become   *shell.Become
	password string // for sudo, when become says that it wants one

	agents    place // held by the command that has the forwarded agent
	forwarded forwardedAgent

	uploads place // held while files is opened
	files   *sftp.Client
	noFiles bool // the host has no sftp, or one that is not enough

	done   chan struct{}
	err    error // set before done is closed
	reason atomic.Pointer[error]
}

var _ plugins.Host = (*Conn)(nil)

// A place is held by one at a time.
type place chan struct{}

func newPlace() place { return make(place, 1) }

// take waits for the place and returns the function that frees it.
func (p place) take(ctx context.Context) (free func(), err error) {
	select {
	case p <- struct{}{}:
		return func() { <-p }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (d *Dialer) newConn(name string, s *sshconfig.Settings, l *login) *Conn {
	c := &Conn{
		name: name, dialer: d, settings: s, login: l,
		sessions: newPlaces(sessionsPerConnection),
		becoming: newPlace(), agents: newPlace(), uploads: newPlace(),
		done: make(chan struct{}),
	}
	interval, limit := cmp.Or(d.Keepalive, defaultKeepalive), cmp.Or(d.KeepaliveLimit, defaultKeepaliveLimit)
	go c.keepAlive(interval, limit)
	go c.serveAgent()
	go c.watch()
	return c
}

// String returns the host's name in the inventory.
func (c *Conn) String() string { return c.name }

// Done is closed when the connection has ended, for whatever reason.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection has ended; nil while it lives. After Close it is
// net.ErrClosed.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close ends the connection. Commands that still run on the host are ended by
// their leash; Run returns an error of kind Lost for them.
func (c *Conn) Close() error {
	c.end(net.ErrClosed)
	<-c.done
	return nil
}

// end closes the connection. The first reason is the one that counts.
func (c *Conn) end(reason error) {
	c.reason.CompareAndSwap(nil, &reason)
	c.login.transport.broken.Store(true)
	_ = c.login.transport.Close()
}

// watch waits for the end of the connection and makes it known.
func (c *Conn) watch() {
	err := c.login.client.Wait()
	if reason := c.reason.Load(); reason != nil {
		err = *reason
	}
	c.end(err) // a proxy command is to be ended as well
	c.err = err
	close(c.done)
}

// keepAlive asks for a sign of life every interval and ends the connection
// after limit without one.
func (c *Conn) keepAlive(interval, limit time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	answered := make(chan struct{}, 1)
	answered <- struct{}{}
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
		}
		if silence := c.login.transport.silence(); silence >= limit {
			c.end(fmt.Errorf("the host has been silent for %s", silence.Round(time.Millisecond)))
			return
		}
		select {
		case <-answered:
			go func() {
				// A dead connection answers too, with an error: watch sees it.
				_, _, _ = c.login.client.SendRequest("keepalive@openssh.com", true, nil)
				answered <- struct{}{}
			}()
		default: // the last one is still without an answer
		}
	}
}

// lost returns the error for an operation that the end of the connection cut
// off.
func (c *Conn) lost(op string) error {
	err := c.Err()
	if err == nil {
		err = errors.New("the host closed the channel before it said how the command ended")
	}
	return &plugins.Error{Op: op, Host: c.name, Kind: plugins.Lost, Err: fmt.Errorf("connection lost: %w", err)}
}

// dying waits a moment for the end of a connection whose channels have been
// closed already, and reports whether it came.
func (c *Conn) dying() bool {
	if !c.login.transport.broken.Load() {
		return false
	}
	<-c.done
	return true
}

// settle waits a moment for the connection to end: its channels are closed a
// little earlier.
func (c *Conn) settle() {
	moment := time.NewTimer(settleTime)
	defer moment.Stop()
	select {
	case <-c.done:
	case <-moment.C:
	}
}

// fail completes an error with host and operation.
func (c *Conn) fail(ctx context.Context, op string, kind plugins.Kind, err error) error {
	var e *plugins.Error
	switch cause := context.Cause(ctx); {
	case c.dying():
		return c.lost(op)
	case cause != nil:
		return fmt.Errorf("%s: %s: %w", c.name, op, cause)
	case errors.As(err, &e):
		if e.Host != "" {
			return err
		}
		return &plugins.Error{Op: op, Host: c.name, Kind: e.Kind, Err: e.Err}
	default:
		return &plugins.Error{Op: op, Host: c.name, Kind: kind, Err: err}
	}
}

// await runs f and waits for its end or for ctx's. f goes on alone in the
// second case; it ends at the latest with the connection.
func await[T any](ctx context.Context, f func() (T, error), abandon func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	results := make(chan result, 1)
	go func() {
		v, err := f()
		results <- result{v, err}
	}()
	select {
	case r := <-results:
		return r.v, r.err
	case <-ctx.Done():
		go func() {
			if r := <-results; r.err == nil {
				abandon(r.v)
			}
		}()
		var zero T
		return zero, context.Cause(ctx)
	}
}

// openChannel opens a channel of SSH.
func (c *Conn) openChannel(ctx context.Context, kind string, payload []byte) (*channel, error) {
	return await(ctx, func() (*channel, error) {
		ch, reqs, err := c.login.client.OpenChannel(kind, payload)
		if err != nil {
			return nil, err
		}
		return &channel{Channel: ch, requests: reqs}, nil
	}, func(ch *channel) {
		go ssh.DiscardRequests(ch.requests)
		_ = ch.Close()
	})
}

// A channel is an SSH channel with the requests that the host sends in it.
type channel struct {
	ssh.Channel
	requests <-chan *ssh.Request
}
