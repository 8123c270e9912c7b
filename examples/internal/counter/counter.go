// Package counter is the shop's gRPC service, for both of its sides: an order
// is one call, a brew is a stream of answers. Its messages are those that
// protobuf brings, so that the example needs no generated code; every answer
// says which release gave it.
package counter

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Cups is how many answers a brew has.
const Cups = 20

// The names of the service.
const (
	service = "shop.Counter"
	order   = "Order"
	brew    = "Brew"
)

// A Server serves at the counter.
type Server interface {
	// Order takes an order and returns a receipt, in JSON as of an order over
	// HTTP.
	Order(ctx context.Context, order []byte) (receipt string, err error)

	// Brew calls pour Cups times over a time with the name of the release. It
	// ends with the first error, or with that of ctx.
	Brew(ctx context.Context, over time.Duration, pour func(release string) error) error
}

// Register has a gRPC server serve at the counter.
func Register(to grpc.ServiceRegistrar, s Server) {
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*Server)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: order, Handler: takeOrder}},
		Streams:     []grpc.StreamDesc{{StreamName: brew, Handler: takeBrew, ServerStreams: true}},
	}, s)
}

func takeOrder(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc's signature
	var in wrapperspb.BytesValue
	if err := decode(&in); err != nil {
		return nil, err
	}
	receipt, err := srv.(Server).Order(ctx, in.GetValue()) //nolint:forcetypeassert // Register has seen to it
	if err != nil {
		return nil, err
	}
	return wrapperspb.String(receipt), nil
}

func takeBrew(srv any, stream grpc.ServerStream) error {
	var over durationpb.Duration
	if err := stream.RecvMsg(&over); err != nil {
		return err
	}
	return srv.(Server).Brew(stream.Context(), over.AsDuration(), func(release string) error { //nolint:forcetypeassert // Register has seen to it
		return stream.SendMsg(wrapperspb.String(release))
	})
}

// Order gives an order and returns the receipt.
func Order(ctx context.Context, at grpc.ClientConnInterface, text []byte) (string, error) {
	var receipt wrapperspb.StringValue
	err := at.Invoke(ctx, "/"+service+"/"+order, wrapperspb.Bytes(text), &receipt)
	return receipt.GetValue(), err
}

// Brew asks for a brew. The function that it returns waits for the next answer,
// a release; its error is io.EOF after the last.
func Brew(ctx context.Context, at grpc.ClientConnInterface, over time.Duration) (func() (release string, err error), error) {
	stream, err := at.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+service+"/"+brew)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(durationpb.New(over)); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	return func() (string, error) {
		var release wrapperspb.StringValue
		err := stream.RecvMsg(&release)
		return release.GetValue(), err
	}, nil
}
