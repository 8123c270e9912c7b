package wire

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"

	"github.com/teal-deploy/teal/plugins"
)

// hosts is teal's side of HostsService: the hosts that are lent just now.
type hosts struct {
	UnimplementedHostsServiceServer

	plugin string // its name, for messages

	mu   sync.Mutex
	lent map[string]*loan
}

// A loan is a host for the time of one call.
type loan struct {
	host plugins.Host
	ctx  context.Context // ends with the call
}

func newHosts(plugin string) *hosts { return &hosts{plugin: plugin, lent: make(map[string]*loan)} }

// lend returns a handle for h, and the function that makes it worthless and
// ends what still runs by it.
func (s *hosts) lend(h plugins.Host) (handle string, revoke func()) {
	handle = rand.Text()
	ctx, cancel := context.WithCancel(context.Background())
	s.mu.Lock()
	s.lent[handle] = &loan{host: h, ctx: ctx}
	s.mu.Unlock()
	return handle, func() {
		s.mu.Lock()
		delete(s.lent, handle)
		s.mu.Unlock()
		cancel()
	}
}

func (s *hosts) find(call *Call) (*loan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lent[call.GetHandle()]
	if !ok {
		return nil, &plugins.Error{
			Op: "reach host", Host: call.GetHost(), Kind: plugins.Denied,
			Err: fmt.Errorf("plugin %s was not handed this host, or the call that it was for has ended", s.plugin),
		}
	}
	return l, nil
}

// within returns a context that ends with the stream, with the loan, and with
// the time that the caller gave.
func (l *loan) within(stream context.Context, call *Call) (context.Context, context.CancelFunc) {
	ctx, cancel := withTimeout(stream, call)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// withTimeout applies the time that the peer's context had left.
func withTimeout(ctx context.Context, call *Call) (context.Context, context.CancelFunc) {
	if t := call.GetTimeout(); t != nil {
		return context.WithTimeout(ctx, t.AsDuration())
	}
	return context.WithCancel(ctx)
}

// Run implements HostsService.
func (s *hosts) Run(stream commandServer) error {
	in, err := stream.Recv()
	if err != nil {
		return err
	}
	start := in.GetStart()
	return serveCommand(stream, start, func(cmd *plugins.Command) error {
		l, err := s.find(start.GetCall())
		if err != nil {
			return err
		}
		ctx, cancel := l.within(stream.Context(), start.GetCall())
		defer cancel()
		return l.host.Run(ctx, cmd)
	})
}

// Dial implements HostsService.
func (s *hosts) Dial(stream dialServer) error {
	in, err := stream.Recv()
	if err != nil {
		return err
	}
	open := in.GetOpen()
	l, err := s.find(open.GetCall())
	if err == nil {
		var conn net.Conn
		if conn, err = l.dial(stream.Context(), open); err == nil {
			ctx, cancel := l.within(stream.Context(), nil)
			defer cancel()
			return serveDial(ctx, stream, conn)
		}
	}
	return stream.Send(&DialOutput{Part: &DialOutput_Error{encodeError(err)}})
}

func (l *loan) dial(stream context.Context, open *DialOpen) (net.Conn, error) {
	ctx, cancel := l.within(stream, open.GetCall())
	defer cancel()
	return l.host.DialContext(ctx, open.GetNetwork(), open.GetAddress())
}
