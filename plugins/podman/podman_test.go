package podman_test

import (
	"context"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
	"github.com/teal-deploy/teal/plugins/podman"
	"github.com/teal-deploy/teal/plugins/sdk"
)

// places is the place that the tests of this package share.
type places struct {
	once sync.Once
	p    *enginetest.Podman
	err  error
}

func (s *places) start() (*enginetest.Podman, error) {
	s.once.Do(func() { s.p, s.err = enginetest.StartPodman() })
	return s.p, s.err
}

var shared places

// TestMain makes the test binary a plugin when it is started as one.
func TestMain(m *testing.M) {
	if _, ok := loader.BuiltinRequested(os.Args[1:]); ok {
		sdk.Serve(podman.New())
		return
	}
	code := m.Run()
	if shared.p != nil {
		shared.p.Close()
	}
	os.Exit(code)
}

// asPlugin returns the runtime as it is across the process boundary.
func asPlugin(t *testing.T) plugins.Runtime {
	t.Helper()
	spec, err := loader.Builtin("podman")
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
	p := enginetest.RequirePodman(t, shared.start)
	for i, tt := range []struct {
		name   string
		user   string
		plugin bool
		serve  bool
		noUnix bool
	}{
		{name: "root, at its socket", serve: true},
		{name: "rootless, as a plugin, at its socket over a bridge", user: enginetest.User, plugin: true, serve: true, noUnix: true},
		{name: "root, as a plugin, with a service for each operation", plugin: true},
		{name: "rootless, with a service for each operation", user: enginetest.User},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.serve {
				p.Serve(t, tt.user)
			}
			var rt plugins.Runtime = podman.New()
			if tt.plugin {
				rt = asPlugin(t)
			}
			h := p.Host("web1", tt.user)
			h.Env = []string{"XDG_RUNTIME_DIR=" + enginetest.RuntimeDir}
			h.NoUnix = tt.noUnix
			err := plugintest.TestRuntime(context.Background(), rt, h, plugintest.Options{
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
