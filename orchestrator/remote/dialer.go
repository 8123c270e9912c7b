package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/gate"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/hostkeys"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/keys"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/sshconfig"
	"github.com/teal-deploy/teal/plugins"
)

const (
	defaultKeepalive      = 5 * time.Second
	defaultKeepaliveLimit = 15 * time.Second

	handshakesPerAddress = 8  // sshd drops at random above 10 that are not logged in
	maxJumps             = 10 // a longer chain is a loop
)

// A Dialer opens connections to hosts. The zero value works: it uses the
// operator's ssh_config, known_hosts, keys and agent, and asks nobody. It may
// be used by several goroutines at the same time, and must not be copied or
// changed after its first use.
type Dialer struct {
	// Config is read in place of the user's and the system's ssh_config, as
	// by ssh -F; "none" reads neither.
	Config string

	// KnownHosts are the files with host keys. Empty: what ssh_config says,
	// which is ~/.ssh/known_hosts, ~/.ssh/known_hosts2 and
	// /etc/ssh/ssh_known_hosts by default. An inventory's own list goes first.
	KnownHosts []string

	// Passphrase asks for the passphrase of a key file, at most three times
	// a run. Nil: encrypted keys that no agent holds are not offered.
	Passphrase func(ctx context.Context, keyFile string) (string, error)

	// Password asks for the password of a login such as "deploy@web1". Nil:
	// only keys are tried.
	Password func(ctx context.Context, host string) (string, error)

	// BecomePassword asks for the password that sudo wants on a host, once a
	// connection. Nil: sudo must work without one.
	BecomePassword func(ctx context.Context, host string) (string, error)

	// Log gets warnings, such as a configuration file that cannot be used,
	// and details at level debug. Nil: nobody does.
	Log *slog.Logger

	// Timeout limits connecting, handshake and login together, not counting
	// the time in which the operator is asked something. ssh_config's
	// ConnectTimeout goes first. 0: 15 seconds.
	Timeout time.Duration

	// Keepalive is how often a silent connection is asked for a sign of
	// life, KeepaliveLimit the silence after which it is given up.
	// 0: 5 and 15 seconds.
	Keepalive, KeepaliveLimit time.Duration

	keys  keys.Cache
	known hostkeys.Known
	gates gate.Set

	mu     sync.Mutex
	jumps  map[string]*jump
	closed bool
}

// Dial connects to h and logs in. It gives up when ctx ends or the time limit
// passes. The error is a plugins.Error: Unavailable when nobody answers (try
// again), Denied when a host key or a login is refused (the text says what was
// offered and what helps), Invalid or Unsupported for settings that cannot
// work.
func (d *Dialer) Dial(ctx context.Context, h inventory.Host) (*Conn, error) {
	c, err := d.dial(ctx, h, maxJumps)
	if err == nil {
		return c, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, fmt.Errorf("%s: connect: %w", h.Name, cause)
	}
	return nil, &plugins.Error{Op: "connect", Host: h.Name, Kind: cmp.Or(plugins.KindOf(err), plugins.Unavailable), Err: plain(err)}
}

// plain unwraps a plugins.Error whose place and kind are about to be said
// again.
func plain(err error) error {
	if e, ok := errors.AsType[*plugins.Error](err); ok && e.Host == "" {
		return e.Err
	}
	return err
}

func (d *Dialer) dial(ctx context.Context, h inventory.Host, hops int) (*Conn, error) {
	reader := sshconfig.Reader{File: d.Config, KnownHosts: d.KnownHosts, Timeout: d.Timeout, Log: d.log(), Gates: &d.gates}
	s, err := reader.Resolve(ctx, h)
	if err != nil {
		return nil, err
	}
	t, err := d.dialTransport(ctx, s, hops)
	if err != nil {
		return nil, err
	}
	return d.newConn(h.Name, s, t), nil
}

// Close closes the connections to jump hosts, and with them all connections
// that lead through them. Connections that lead to a host directly are not
// affected.
func (d *Dialer) Close() error {
	d.mu.Lock()
	jumps := d.jumps
	d.jumps, d.closed = nil, true
	d.mu.Unlock()
	for _, j := range jumps {
		j.close()
	}
	return nil
}

func (d *Dialer) log() *slog.Logger {
	if d.Log != nil {
		return d.Log
	}
	return slog.New(slog.DiscardHandler)
}

// kindError is an error with a kind and no place yet; Dial and Conn add that.
func kindError(kind plugins.Kind, err error) error {
	return &plugins.Error{Kind: kind, Err: err}
}
