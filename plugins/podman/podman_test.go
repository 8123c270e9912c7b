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

// remove removes a container at the end of a test.
func remove(t *testing.T, rt plugins.Runtime, h plugins.Host, id string) {
	t.Helper()
	if err := rt.Remove(context.Background(), h, id); err != nil {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	for _, tt := range []struct {
		name string
		user string
		port uint16
		rt   func(*testing.T) plugins.Runtime
	}{
		{"root, in process, at a socket", "", 20001, func(t *testing.T) plugins.Runtime {
			p.Serve(t, "")
			return podman.New()
		}},
		{"rootless, as a plugin, with a service for each operation", enginetest.User, 20003, asPlugin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := p.Host("web1", tt.user)
			h.Env = enginetest.Session(tt.user)
			var lacks []plugintest.Ability
			if tt.user != "" && !p.Unified() {
				lacks = append(lacks, plugintest.Limits)
			}
			err := plugintest.TestRuntime(context.Background(), tt.rt(t), h, plugintest.Options{
				Image: enginetest.Image, Policy: plugins.PullNever,
				Publish: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), tt.port),
				Lacks:   lacks,
				Prefix:  "teal-test-" + cmp.Or(tt.user, "root"),
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
