package podman_test

import (
	"cmp"
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
	for i, user := range []string{"", enginetest.User} {
		name := cmp.Or(user, "root")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := p.Host("web1", user)
			h.Env = []string{"XDG_RUNTIME_DIR=" + enginetest.RuntimeDir}
			opts := plugintest.Options{
				Image: enginetest.Image, Policy: plugins.PullNever,
				Publish:   netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(20001+2*i)),
				Unlimited: user != "" && !p.Unified(),
				Prefix:    "teal-test-" + name,
			}
			t.Run("plugin with a service for each operation", func(t *testing.T) {
				if err := plugintest.TestRuntime(context.Background(), asPlugin(t), h, opts); err != nil {
					t.Error(err)
				}
			})
			t.Run("in process at a socket over a bridge", func(t *testing.T) {
				p.Serve(t, user)
				h.NoUnix = true
				if err := plugintest.TestRuntime(context.Background(), podman.New(), h, opts); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
