package docker_test

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/docker"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
	"github.com/teal-deploy/teal/plugins/sdk"
)

// engines is the engine that the tests of this package share.
type engines struct {
	once sync.Once
	e    *enginetest.Engine
	err  error
}

func (s *engines) start() (*enginetest.Engine, error) {
	s.once.Do(func() { s.e, s.err = enginetest.Start() })
	return s.e, s.err
}

var shared engines

// TestMain makes the test binary a plugin when it is started as one. The
// built-in's name is the socket here.
func TestMain(m *testing.M) {
	if socket, ok := loader.BuiltinRequested(os.Args[1:]); ok {
		sdk.Serve(docker.New(socket))
		return
	}
	code := m.Run()
	if shared.e != nil {
		shared.e.Close()
	}
	os.Exit(code)
}

// asPlugin returns the runtime as it is across the process boundary.
func asPlugin(t *testing.T, socket string) plugins.Runtime {
	t.Helper()
	spec, err := loader.Builtin(socket)
	if err != nil {
		t.Fatal(err)
	}
	p, err := loader.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p.Runtime()
}

func TestConformance(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	local := plugintest.Local("web1")
	for i, tt := range []struct {
		name string
		rt   func() plugins.Runtime
		host plugins.Host
	}{
		{"in process over a forwarded socket", func() plugins.Runtime { return docker.New(e.Socket) }, e.Host("web1")},
		{"as a plugin over a bridge", func() plugins.Runtime { return asPlugin(t, e.Socket) }, &enginetest.Host{Host: local, Engine: e, NoUnix: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := plugintest.TestRuntime(context.Background(), tt.rt(), tt.host, plugintest.Options{
				Image:   enginetest.Image,
				Policy:  plugins.PullNever,
				Publish: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(20001+2*i)),
				Prefix:  "teal-test-" + string(rune('a'+i)),
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
