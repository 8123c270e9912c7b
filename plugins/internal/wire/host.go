package wire

import (
	"cmp"
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/teal-deploy/teal/plugins"
)

// A host is the plugin's side of a host that it was lent.
type host struct {
	client HostsServiceClient
	handle string
	name   string
}

var _ plugins.Host = (*host)(nil)

func (h *host) String() string { return h.name }

func (h *host) Run(ctx context.Context, cmd *plugins.Command) error {
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	start := commandStart(h.call(ctx), "", cmd)
	err := runCommand(ctx, abort, func(ctx context.Context) (commandClient, error) { return h.client.Run(ctx) }, start, cmd)
	return h.failure(ctx, "run", err)
}

func (h *host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := dial(ctx, h.client, &DialOpen{Call: h.call(ctx), Network: network, Address: address})
	return conn, h.failure(ctx, "dial "+address, err)
}

func (h *host) call(ctx context.Context) *Call {
	return &Call{Handle: h.handle, Host: h.name, Timeout: timeLeft(ctx)}
}

// failure makes an error of the hop one that a runtime understands: teal is
// gone, and with it the connection.
func (h *host) failure(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if done := ended(ctx, err); done != nil {
		return done
	}
	if _, ok := hopError(err); !ok {
		return err
	}
	return &plugins.Error{Op: op, Host: h.name, Kind: plugins.Lost, Err: err}
}

// timeLeft returns nil when ctx has no deadline.
func timeLeft(ctx context.Context) *durationpb.Duration {
	t, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	return durationpb.New(time.Until(t))
}

// ended returns why ctx ended when that is what err comes from, else nil.
func ended(ctx context.Context, err error) error {
	hop, isHop := hopError(err)
	switch {
	case isHop && hop.Code() == codes.DeadlineExceeded:
		return cmp.Or(context.Cause(ctx), context.DeadlineExceeded) // the peer's clock may be ahead
	case ctx.Err() == nil:
		return nil
	case isHop && hop.Code() == codes.Canceled, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return context.Cause(ctx)
	}
	return nil
}

// hopError returns the gRPC status that err is, if it is one itself: an error
// of the work may wrap one.
func hopError(err error) (*status.Status, bool) {
	s, ok := err.(interface{ GRPCStatus() *status.Status })
	if !ok {
		return nil, false
	}
	return s.GRPCStatus(), true
}
