package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/plugins"
)

// listenFarewell is how long the end of a listener waits for the host's word
// that it does not listen any more.
const listenFarewell = 2 * time.Second

// Listen has the host listen at an address of its own, such as "127.0.0.1:0",
// until the listener is closed: what connects there arrives here, through the
// connection. Addr is the address with the port that the host chose. ctx
// bounds the request alone. A host that forbids it is an error of kind Denied
// that names the settings. Accept fails with kind Lost when the connection has
// ended, and with net.ErrClosed after Close.
//
// An sshd with GatewayPorts yes listens at all addresses whatever it is asked,
// and does not tell: what is served has to know its clients by more than where
// they come from.
func (c *Conn) Listen(ctx context.Context, address string) (net.Listener, error) {
	op := "listen at " + address
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, &plugins.Error{Op: op, Host: c.name, Kind: plugins.Invalid, Err: err}
	}
	inner, err := await(ctx, func() (net.Listener, error) { return c.login.client.Listen("tcp", address) },
		func(l net.Listener) { _ = l.Close() })
	if err != nil {
		err = fmt.Errorf("%w: its sshd must allow remote forwarding, see AllowTcpForwarding (yes or remote), PermitListen, "+
			"DisableForwarding and the options in authorized_keys", err)
		return nil, c.fail(ctx, op, plugins.Denied, err)
	}
	l := &listener{
		conn: c, inner: inner, op: "accept at " + inner.Addr().String(),
		conns: make(chan net.Conn), ended: make(chan struct{}), closed: make(chan struct{}),
	}
	l.close = sync.OnceFunc(l.end)
	go l.serve()
	return l, nil
}

// A listener listens on the host.
type listener struct {
	conn   *Conn
	inner  net.Listener
	op     string
	conns  chan net.Conn
	ended  chan struct{} // closed when no more connections come
	closed chan struct{}
	close  func()
}

// serve takes connections as they come: the library carries nothing else while
// one of them waits for too long.
func (l *listener) serve() {
	defer close(l.ended)
	for {
		accepted, err := l.inner.Accept()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			continue // whoever connected has gone again
		}
		ch := accepted.(ssh.Channel) // which has no deadlines, though it is a net.Conn
		select {
		case l.conns <- newForward(l.conn, ch, "tcp", accepted.RemoteAddr().String()):
		case <-l.closed:
			_ = accepted.Close()
		}
	}
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-l.ended:
	}
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	l.conn.settle() // so that the reason is known
	return nil, l.conn.lost(l.op)
}

// Close has the host stop listening. Connections that were accepted stay.
func (l *listener) Close() error {
	l.close()
	return nil
}

func (l *listener) end() {
	close(l.closed)
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = l.inner.Close() // fails when the connection has ended, and the listening with it
	}()
	patience := time.NewTimer(listenFarewell)
	defer patience.Stop()
	select {
	case <-told:
	case <-patience.C: // a host that is silent is not waited for
	}
}

// Addr is where the host listens.
func (l *listener) Addr() net.Addr { return l.inner.Addr() }
