package engine

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"net"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/duplex"
)

// bridgeGrace is how long a bridge may take to end once its connection is
// closed.
const bridgeGrace = 2 * time.Second

// serve starts the route's service, where it has one, and waits for it to
// listen. It ends with the session.
func (d *dialer) serve(ctx context.Context) error {
	if d.route.Serve == nil {
		return nil
	}
	conn := d.carry(ctx, d.route.Serve, false)
	d.mu.Lock()
	d.conns = append(d.conns, conn)
	d.mu.Unlock()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return cmp.Or(d.failure(), err)
	}
	d.route.Socket = strings.TrimSuffix(line, "\n")
	return nil
}

// carry returns a connection that a command on the host carries. That the
// command failed shows when the connection is read, and in d.failure.
func (d *dialer) carry(ctx context.Context, args []string, become bool) net.Conn {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	conn, carrier := duplex.New(duplex.Addr{Net: "bridge"}, duplex.Addr{Net: "bridge", Address: d.route.Socket})
	d.wg.Go(func() {
		defer cancel()
		var stderr bytes.Buffer
		err := d.host.Run(run, &plugins.Command{
			Args:   args,
			Become: become,
			Stdin:  carrier,
			Stdout: carrier,
			Stderr: &stderr,
		})
		select {
		case <-conn.Closed():
		default:
			if err != nil {
				d.fail(err)
			}
		}
		carrier.CloseWithError(err)
	})
	go func() {
		select {
		case <-run.Done():
			return
		case <-conn.Closed():
		}
		limit := time.NewTimer(bridgeGrace)
		defer limit.Stop()
		select {
		case <-run.Done():
		case <-limit.C:
			cancel()
		}
	}()
	return conn
}
