package remote

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/sshconfig"
	"github.com/teal-deploy/teal/plugins"
)

// A jump is the one connection to a jump host, for all hosts behind it.
type jump struct {
	place  place // held while the rest is looked at or changed
	conn   *Conn
	closed bool
}

// jumpTo returns the connection to the last jump host of s's chain.
func (d *Dialer) jumpTo(ctx context.Context, s *sshconfig.Settings, hops int) (*Conn, error) {
	if hops <= len(s.Jump) {
		return nil, kindError(plugins.Invalid, fmt.Errorf("more than %d jump hosts: the chain leads back to itself", maxJumps))
	}
	last := s.Jump[len(s.Jump)-1]
	if before := s.Jump[:len(s.Jump)-1]; len(before) > 0 {
		last.SSH.Jump = joinJump(before)
	}
	j, err := d.jumpFor(last)
	if err != nil {
		return nil, err
	}
	free, err := j.place.take(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	if j.closed {
		return nil, net.ErrClosed
	}
	if j.conn != nil && j.conn.Err() == nil {
		return j.conn, nil
	}
	conn, err := d.dial(ctx, last, hops-1)
	if err != nil {
		return nil, kindError(cmp.Or(plugins.KindOf(err), plugins.Unavailable),
			fmt.Errorf("jump host %s: %w", last.Name, plain(err)))
	}
	// sshd answers small packets late until a connection has had a session.
	if err := conn.Run(ctx, &plugins.Command{Args: []string{"true"}}); err != nil {
		d.log().Debug("a jump host runs no commands", "host", last.Name, "error", err)
	}
	j.conn = conn
	return conn, nil
}

// jumpFor returns the entry for a jump host: an account there, and the way to
// it. With which key the login succeeded makes no difference.
func (d *Dialer) jumpFor(h inventory.Host) (*jump, error) {
	key := h.SSH.Jump + "," + joinJump([]inventory.Host{h})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	j := d.jumps[key]
	if j == nil {
		j = &jump{place: newPlace()}
		if d.jumps == nil {
			d.jumps = make(map[string]*jump)
		}
		d.jumps[key] = j
	}
	return j, nil
}

func (j *jump) close() {
	j.place <- struct{}{} // a dial that is under way ends first
	defer func() { <-j.place }()
	j.closed = true
	if j.conn != nil {
		_ = j.conn.Close()
	}
}

// joinJump writes a chain as ProxyJump has it.
func joinJump(hosts []inventory.Host) string {
	hops := make([]string, len(hosts))
	for i, h := range hosts {
		hops[i] = h.Address
		if h.SSH.Port != 0 {
			hops[i] = net.JoinHostPort(h.Address, fmt.Sprint(h.SSH.Port))
		}
		if h.SSH.User != "" {
			hops[i] = h.SSH.User + "@" + hops[i]
		}
	}
	return strings.Join(hops, ",")
}
