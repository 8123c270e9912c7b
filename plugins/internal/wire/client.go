package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/teal-deploy/teal/plugins"
)

const (
	// cleanupGrace is how long a cancelled call may take to clean up.
	cleanupGrace = 15 * time.Second
	// cancelEvery is the pause before a call that had not begun yet is
	// cancelled once more.
	cancelEvery = 20 * time.Millisecond
)

// ErrCutOff says that a plugin did not end a cancelled call in the time that it
// gets for it. It can do nothing more to the call's host.
var ErrCutOff = errors.New("did not clean up in time")

// A Client is teal's side of a plugin.
type Client struct {
	name   string
	rpc    RuntimeServiceClient
	hosts  *hosts
	broker uint32
	died   func() error
	grace  time.Duration // for a cancelled call to clean up
	caps   *Capabilities
}

func newClient(name string, conn grpc.ClientConnInterface, hosts *hosts, broker uint32, died func() error) *Client {
	return &Client{name: name, rpc: NewRuntimeServiceClient(conn), hosts: hosts, broker: broker, died: died, grace: cleanupGrace}
}

// Configure tells the plugin how to reach its hosts, hands it its settings and
// asks what it can do. It must have returned before Runtime is used. What the
// plugin has against its settings is a *plugins.SettingError.
func (c *Client) Configure(ctx context.Context, settings map[string]any) error {
	text, err := MarshalSettings(settings)
	if err != nil {
		return err
	}
	caps, err := c.rpc.Configure(ctx, &ConfigureRequest{BrokerId: c.broker, Settings: text})
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("plugin %s does not answer: %w", c.name, context.Cause(ctx))
		}
		return c.hopFailure("configure", "", err)
	}
	if err := decodeError(caps.GetError()); err != nil {
		return err
	}
	if len(settings) > 0 && !caps.GetSettings() {
		return &plugins.SettingError{Err: fmt.Errorf("the plugin %s takes none", c.name)}
	}
	c.caps = caps
	return nil
}

// A call is one use of the runtime: a host that is lent, and a context for
// the hop that outlives ctx by the time that the plugin needs to clean up.
type call struct {
	*Call
	client *Client
	op     string
	caller context.Context
	hop    context.Context
	end    func()
}

// begin returns the context of the hop besides the call.
func (c *Client) begin(ctx context.Context, op string, h plugins.Host) (context.Context, *call) {
	handle, revoke := c.hosts.lend(h)
	hop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { c.cancel(hop, cancel, handle) })
	return hop, &call{
		Call:   &Call{Handle: handle, Host: h.String(), Timeout: timeLeft(ctx)},
		client: c,
		op:     op,
		caller: ctx,
		hop:    hop,
		end: func() {
			stop()
			cancel()
			revoke()
		},
	}
}

// cancel asks the plugin to end a call, and cuts it off when it does not.
func (c *Client) cancel(hop context.Context, cutOff context.CancelFunc, handle string) {
	defer cutOff()
	grace := time.NewTimer(c.grace)
	defer grace.Stop()
	for {
		resp, err := c.rpc.Cancel(hop, &CancelRequest{Handle: handle})
		if err != nil {
			return
		}
		again := (<-chan time.Time)(nil)
		if !resp.GetFound() {
			again = time.After(cancelEvery)
		}
		select {
		case <-hop.Done():
			return
		case <-grace.C:
			return
		case <-again:
		}
	}
}

// result returns the error of a call: hop is that of the hop, work that of
// the work.
func (c *call) result(hop error, work *Error) error {
	err := hop
	if hop == nil {
		err = decodeError(work)
	}
	if err == nil {
		return nil
	}
	if done := ended(c.caller, err); done != nil {
		if c.hop.Err() != nil {
			return fmt.Errorf("%w; plugin %s %w", done, c.client.name, ErrCutOff)
		}
		return done
	}
	return c.client.hopFailure(c.op, c.GetHost(), err)
}

// hopFailure explains an error of the hop and returns any other as it is.
func (c *Client) hopFailure(op, host string, err error) error {
	s, ok := hopError(err)
	if !ok {
		return err
	}
	e := &plugins.Error{Op: op, Host: host}
	switch s.Code() {
	case codes.Unimplemented:
		e.Kind, e.Err = plugins.Unsupported, fmt.Errorf("plugin %s cannot do that", c.name)
	case codes.ResourceExhausted, codes.Internal, codes.InvalidArgument:
		e.Kind, e.Err = plugins.Invalid, fmt.Errorf("plugin %s: %s", c.name, s.Message())
	default:
		e.Kind, e.Err = plugins.Unavailable, c.died()
	}
	return e
}
