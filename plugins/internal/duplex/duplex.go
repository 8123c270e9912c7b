// Package duplex makes a net.Conn whose two directions are carried by
// somebody else: the messages of a stream, or the standard input and output of
// a command. Deadlines, closed ends and half-closing behave as on a socket,
// because each direction is a net.Pipe; nothing is buffered.
package duplex

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// New returns a connection and its carrier. What is written to the connection
// is read from the carrier, and the other way round.
func New(local, remote net.Addr) (*Conn, *Carrier) {
	userR, carrierW := net.Pipe()
	carrierR, userW := net.Pipe()
	c := &Conn{r: userR, w: userW, local: local, remote: remote, closed: make(chan struct{})}
	return c, &Carrier{conn: c, r: carrierR, w: carrierW}
}

// A Conn is the end that is used as a connection. It has CloseWrite.
type Conn struct {
	r, w          net.Conn
	local, remote net.Addr

	once   sync.Once
	closed chan struct{}

	mu  sync.Mutex
	err error // instead of io.EOF
}

var _ net.Conn = (*Conn)(nil)

// Read reads what the carrier wrote. At the end it returns io.EOF, or the
// error that the carrier ended with.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if err == io.EOF { //nolint:errorlint // net.Pipe returns it bare
		if cause := c.cause(); cause != nil {
			err = cause
		}
	}
	return n, c.translate(err)
}

// Write returns once the carrier has taken all of b.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if errors.Is(err, io.ErrClosedPipe) {
		if cause := c.cause(); cause != nil {
			err = cause
		}
	}
	return n, c.translate(err)
}

// translate says net.ErrClosed, as other connections do.
func (c *Conn) translate(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return net.ErrClosed
	}
	return err
}

func (c *Conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// CloseWrite closes the writing half: the carrier reads io.EOF.
func (c *Conn) CloseWrite() error { return c.w.Close() }

// Close closes both halves.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	_ = c.r.Close()
	return c.w.Close()
}

// Closed returns a channel that is closed by Close.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// LocalAddr returns what New was given.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns what New was given.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.r.SetReadDeadline(t), c.w.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read; it then returns os.ErrDeadlineExceeded.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.r.SetReadDeadline(t) }

// SetWriteDeadline bounds Write; it then returns os.ErrDeadlineExceeded.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.w.SetWriteDeadline(t) }

// A Carrier is the other end: a Reader of what the user of the connection
// writes and a Writer of what that user shall read.
type Carrier struct {
	conn *Conn
	r, w net.Conn
}

// Read returns io.EOF when the user has closed the writing half.
func (c *Carrier) Read(b []byte) (int, error) { return c.r.Read(b) }

// Write returns io.ErrClosedPipe when the user has closed the connection.
func (c *Carrier) Write(b []byte) (int, error) { return c.w.Write(b) }

// CloseWrite says that nothing more will come: the user reads io.EOF.
func (c *Carrier) CloseWrite() error { return c.w.Close() }

// CloseWithError ends both directions. The user reads err, or io.EOF when it
// is nil.
func (c *Carrier) CloseWithError(err error) {
	c.conn.mu.Lock()
	if c.conn.err == nil {
		c.conn.err = err
	}
	c.conn.mu.Unlock()
	_ = c.w.Close()
	_ = c.r.Close()
}

// An Addr is a network and an address as words.
type Addr struct{ Net, Address string }

// Network returns the name of the network.
func (a Addr) Network() string { return a.Net }

// String returns the address.
func (a Addr) String() string { return a.Address }
