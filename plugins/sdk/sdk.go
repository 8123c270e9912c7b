// Package sdk makes a runtime a plugin. An author writes a type that
// implements plugins.Runtime, and one line:
//
//	func main() { sdk.Serve(myRuntime{}) }
//
// The program is started by teal and lives as long as teal does. Standard
// output belongs to the protocol until Serve has begun. What the runtime writes
// to it afterwards, or to standard error, arrives in teal's log; the last words
// before an exit do for certain when they go through package log, which writes
// without a detour.
//
// The library below is hashicorp/go-plugin; see plugins/internal/wire.
package sdk

import (
	"context"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/wire"
)

// parentEvery is how often Serve looks whether teal still lives, for the time
// before there is a connection whose end would tell.
const parentEvery = time.Second

// Serve serves rt to the teal that started this process, and returns when teal
// is done with it or has died. The main function should do nothing else. When
// a person starts the program, it says that it is a plugin and exits.
func Serve(rt plugins.Runtime) {
	orphaned := make(chan struct{}, 1)
	ended := make(chan struct{})
	defer close(ended)
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: wire.Handshake(),
		VersionedPlugins: map[int]goplugin.PluginSet{
			wire.Version: {wire.Name: &wire.Plugin{Runtime: rt}},
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true}),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			opts = append(opts, wire.ServerOptions()...)
			s := grpc.NewServer(append(opts, grpc.StatsHandler(hangUp(orphaned)))...)
			go leaveWithParent(s, orphaned, ended)
			return s
		},
	})
}

// Protocol returns the text of runtime.proto, for plugins in languages that
// have no package such as this one.
func Protocol() string { return wire.Proto }

// leaveWithParent stops s, and so ends Serve, when teal has hung up or when
// this process has got another parent. A killed teal cannot say good-bye.
func leaveWithParent(s *grpc.Server, orphaned, ended <-chan struct{}) {
	defer s.Stop()
	parent := os.Getppid()
	tick := time.NewTicker(parentEvery)
	defer tick.Stop()
	for os.Getppid() == parent {
		select {
		case <-tick.C:
		case <-orphaned:
			return
		case <-ended:
			return
		}
	}
}

// hangUp is told when a connection of teal ends. There is only one.
type hangUp chan<- struct{}

func (h hangUp) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); !ok {
		return
	}
	select {
	case h <- struct{}{}:
	default:
	}
}

func (hangUp) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (hangUp) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (hangUp) HandleRPC(context.Context, stats.RPCStats)                         {}
