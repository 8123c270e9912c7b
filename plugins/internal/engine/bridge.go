package engine

import (
	"bytes"
	"context"
	"net"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/duplex"
)

// bridgeGrace is how long a bridge may take to end once its connection is
// closed.
const bridgeGrace = 2 * time.Second

// bridge returns a connection that a command on the host carries. That the
// command failed shows when the connection is read, and in d.failure.
func (d *dialer) bridge(ctx context.Context) net.Conn {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	conn, carrier := duplex.New(duplex.Addr{Net: "bridge"}, duplex.Addr{Net: "bridge", Address: d.route.Socket})
	d.wg.Go(func() {
		defer cancel()
		var stderr bytes.Buffer
		err := d.host.Run(run, &plugins.Command{
			Args:   d.route.Command,
			Become: d.route.Become,
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
