package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/plugins"
)

// DialContext opens a connection from the host to an address ("tcp") or a
// socket there ("unix"), as plugins.Host says. An error of kind Denied names
// the right that is missing; Unavailable means that nobody listens.
//
// Run something first: sshd sends small answers at once (TCP_NODELAY) only
// after the first session of a connection, and 40 ms late before it.
func (c *Conn) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	op := "dial " + address
	kind, payload, err := forwardRequest(network, address)
	if err != nil {
		return nil, &plugins.Error{Op: op, Host: c.name, Kind: plugins.Invalid, Err: err}
	}
	ch, err := c.openChannel(ctx, kind, payload)
	var refused *ssh.OpenChannelError
	switch {
	case err == nil:
		go ssh.DiscardRequests(ch.requests)
		return newForward(c, ch.Channel, network, address), nil
	case errors.As(err, &refused) && network == "unix":
		return nil, c.fail(ctx, op, plugins.Unavailable, c.explainSocket(ctx, address, refused))
	case errors.As(err, &refused) && refused.Reason == ssh.Prohibited:
		err = fmt.Errorf("%w: sshd forbids it, see AllowTcpForwarding, PermitOpen and the options in authorized_keys", err)
		return nil, c.fail(ctx, op, plugins.Denied, err)
	default:
		return nil, c.fail(ctx, op, plugins.Unavailable, err)
	}
}

func forwardRequest(network, address string) (kind string, payload []byte, err error) {
	switch network {
	case "unix":
		return "direct-streamlocal@openssh.com", ssh.Marshal(struct {
			Path     string
			Reserved string
			Unused   uint32
		}{Path: address}), nil
	case "tcp", "tcp4", "tcp6":
		host, service, err := net.SplitHostPort(address)
		if err != nil {
			return "", nil, err
		}
		port, err := strconv.ParseUint(service, 10, 16)
		if err != nil {
			return "", nil, fmt.Errorf("port %q is no number below 65536", service)
		}
		return "direct-tcpip", ssh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{host, uint32(port), "127.0.0.1", 0}), nil
	default:
		return "", nil, fmt.Errorf("network %q: only tcp and unix are forwarded", network)
	}
}

// socketProbe looks at the socket $1: sshd gives one answer for all reasons.
const socketProbe = `if [ ! -e "$1" ]; then echo missing
elif [ ! -S "$1" ]; then echo other
elif [ ! -w "$1" ]; then echo closed
elif grep -q " 00010000 .* $(readlink -f -- "$1")\$" /proc/net/unix; then echo forbidden
else echo silent
fi
stat -L -c %G -- "$1" || echo`

// explainSocket says why the host does not connect to a socket.
func (c *Conn) explainSocket(ctx context.Context, path string, refused error) error {
	var out bytes.Buffer
	err := c.run(ctx, &plugins.Command{Args: []string{"sh", "-c", socketProbe, "teal", path}, Stdout: &out}, false)
	answer, group, _ := strings.Cut(out.String(), "\n")
	group = strings.TrimSpace(group)
	user := c.settings.User
	switch answer {
	case "missing":
		return kindError(plugins.Unavailable, fmt.Errorf("there is no socket %s that user %s can see: does its service run?", path, user))
	case "other":
		return kindError(plugins.Invalid, fmt.Errorf("%s is no socket", path))
	case "closed":
		remedy := "set become"
		if group != "" && group != "root" {
			remedy = fmt.Sprintf("add it to the group %s, or set become", group)
		}
		return kindError(plugins.Denied, fmt.Errorf("user %s may not open %s: %s", user, path, remedy))
	case "forbidden":
		return kindError(plugins.Denied, fmt.Errorf("sshd does not forward %s: see AllowStreamLocalForwarding, "+
			"AllowTcpForwarding, DisableForwarding, PermitOpen, and the options in authorized_keys", path))
	case "silent":
		return kindError(plugins.Unavailable, fmt.Errorf("nobody listens on %s: does its service run?", path))
	default:
		return errors.Join(refused, err)
	}
}

// forwardLinger is how long a closed connection may take to deliver what was
// written to it.
const forwardLinger = 5 * time.Second

// A forward is a connection through the host. A channel of SSH has no
// deadlines, so there is a pipe for each direction, which has.
type forward struct {
	conn            *Conn
	network, remote string
	in, out         net.Conn      // our ends of the pipes
	written         chan struct{} // closed when all that was written is in the channel
	close           func()
}

var _ net.Conn = (*forward)(nil)

func newForward(c *Conn, ch ssh.Channel, network, remote string) *forward {
	in, inFar := net.Pipe()
	out, outFar := net.Pipe()
	f := &forward{conn: c, network: network, remote: remote, in: in, out: out, written: make(chan struct{})}
	go func() {
		_, _ = io.Copy(inFar, ch) // an error is our own Close
		_ = inFar.Close()
		if c.dying() {
			_ = outFar.Close()
		}
	}()
	go func() {
		defer close(f.written)
		_, _ = io.Copy(ch, outFar) // an error is the end of the channel
		_ = outFar.Close()
		_ = ch.CloseWrite()
	}()
	f.close = sync.OnceFunc(func() {
		_, _ = in.Close(), out.Close()
		go f.linger(ch)
	})
	return f
}

// linger closes the channel once what was written is in it.
func (f *forward) linger(ch ssh.Channel) {
	patience := time.NewTimer(forwardLinger)
	defer patience.Stop()
	select {
	case <-f.written:
	case <-f.conn.done:
	case <-patience.C:
	}
	_ = ch.Close() // fails when the other side was first
}

// Read returns an error of kind Lost, not the end, when the connection to the
// host went away.
func (f *forward) Read(p []byte) (int, error) {
	n, err := f.in.Read(p)
	if errors.Is(err, io.EOF) && f.conn.dying() {
		err = f.conn.lost("read from " + f.remote)
	}
	return n, err
}

func (f *forward) Write(p []byte) (int, error) {
	if f.conn.dying() {
		return 0, f.conn.lost("write to " + f.remote)
	}
	n, err := f.out.Write(p)
	if errors.Is(err, io.ErrClosedPipe) && f.conn.dying() {
		err = f.conn.lost("write to " + f.remote)
	}
	return n, err
}

// CloseWrite tells the other side that no more is written.
func (f *forward) CloseWrite() error { return f.out.Close() }

// Close closes the connection. What was written before is still delivered.
func (f *forward) Close() error {
	f.close()
	return nil
}

func (f *forward) LocalAddr() net.Addr  { return addr{f.network, f.conn.name} }
func (f *forward) RemoteAddr() net.Addr { return addr{f.network, f.remote} }

func (f *forward) SetReadDeadline(t time.Time) error  { return f.in.SetReadDeadline(t) }
func (f *forward) SetWriteDeadline(t time.Time) error { return f.out.SetWriteDeadline(t) }

func (f *forward) SetDeadline(t time.Time) error {
	return errors.Join(f.SetReadDeadline(t), f.SetWriteDeadline(t))
}

// addr is the address of one end of a forward.
type addr struct{ network, text string }

func (a addr) Network() string { return a.network }
func (a addr) String() string  { return a.text }
