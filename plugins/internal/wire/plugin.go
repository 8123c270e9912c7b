package wire

import (
	"context"
	"math"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/teal-deploy/teal/plugins"
)

// Name is what a runtime is called among the things that a plugin may serve.
const Name = "runtime"

// Version is the major version of the protocol.
const Version = 1

// maxMessage is the largest message, in bytes.
const maxMessage = 16 << 20

// Handshake returns what both processes must agree on before they talk. The
// cookie is no secret: it keeps people from starting a plugin by hand.
func Handshake() goplugin.HandshakeConfig {
	return goplugin.HandshakeConfig{
		ProtocolVersion:  Version,
		MagicCookieKey:   "TEAL_RUNTIME_PLUGIN",
		MagicCookieValue: "4b8f0c1e-runtime",
	}
}

// ServerOptions are those of every gRPC server of the protocol.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage)}
}

// DialOptions are those of every gRPC connection of the protocol. It is never
// taken for idle: its end is how a process learns that the other has died.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithIdleTimeout(0),
	}
}

// Plugin is the protocol as go-plugin wants it. The plugin's process sets
// Runtime; teal sets the rest and dispenses a *Client.
type Plugin struct {
	goplugin.NetRPCUnsupportedPlugin

	Runtime plugins.Runtime

	RuntimeName string       // for messages
	Died        func() error // says how the plugin's process, which has broken the connection, ended
}

var _ goplugin.GRPCPlugin = (*Plugin)(nil)

// GRPCServer implements goplugin.GRPCPlugin in the plugin's process.
func (p *Plugin) GRPCServer(broker *goplugin.GRPCBroker, s *grpc.Server) error {
	RegisterRuntimeServiceServer(s, newServer(p.Runtime, func(id uint32) (grpc.ClientConnInterface, error) {
		return broker.DialWithOptions(id, DialOptions()...)
	}))
	return nil
}

// GRPCClient implements goplugin.GRPCPlugin in teal's process. The hosts are
// served once for the plugin's life: each id of the broker costs a listener.
func (p *Plugin) GRPCClient(_ context.Context, broker *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	hosts := newHosts(p.RuntimeName)
	id := broker.NextId()
	go broker.AcceptAndServe(id, func(opts []grpc.ServerOption) *grpc.Server {
		s := grpc.NewServer(append(opts, ServerOptions()...)...)
		RegisterHostsServiceServer(s, hosts)
		return s
	})
	return newClient(p.RuntimeName, conn, hosts, id, p.Died), nil
}

// clampInt32 keeps a number that a message holds in 32 bits within them.
func clampInt32(n int) int32 {
	return int32(min(max(n, math.MinInt32), math.MaxInt32))
}
