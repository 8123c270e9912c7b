package wire

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
)

func sameAddress(a, b netip.AddrPort) bool { return a == b }

// fullSpec sets every field.
func fullSpec() plugins.Spec {
	return plugins.Spec{
		Name: "shop-green-1", Image: "shop@sha256:1", Command: []string{"bin/web", ""},
		Env: map[string]string{"A": "x=y\n"}, Labels: map[string]string{"teal.app": "shop"},
		Mounts: []plugins.Mount{{Source: "/srv", Target: "/data", ReadOnly: true}, {Source: "uploads", Target: "/up"}},
		Port:   8080, Publish: netip.MustParseAddrPort("[::1]:20000"),
		Memory: 512 << 20, CPUs: 1.5, StopGrace: 10 * time.Second, Restart: plugins.RestartAlways,
	}
}

// A field that is added to the contract must be added to the wire.
func TestNoFieldIsForgotten(t *testing.T) {
	for name, v := range map[string]any{
		"Spec": fullSpec(),
		"Container": plugins.Container{
			ID: "a", Name: "b", Image: "c", Labels: map[string]string{"d": "e"}, Status: "f", Health: "g",
			PID: 1, ExitCode: 2, Created: time.Unix(3, 4).UTC(),
		},
	} {
		rv := reflect.ValueOf(v)
		for i := range rv.NumField() {
			if rv.Field(i).IsZero() {
				t.Errorf("%s.%s is not covered by this test", name, rv.Type().Field(i).Name)
			}
		}
		var back any
		switch v := v.(type) {
		case plugins.Spec:
			spec, err := specFromWire(specToWire(v))
			if err != nil {
				t.Fatal(err)
			}
			back = spec
		case plugins.Container:
			back = containerFromWire(containerToWire(v))
		}
		if diff := cmp.Diff(v, back, cmp.Comparer(sameAddress)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestZeroValuesStayZero(t *testing.T) {
	spec, err := specFromWire(specToWire(plugins.Spec{}))
	if diff := cmp.Diff(plugins.Spec{}, spec, cmp.Comparer(sameAddress)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if diff := cmp.Diff(plugins.Container{}, containerFromWire(containerToWire(plugins.Container{}))); diff != "" {
		t.Error(diff)
	}
	if got := pullFromWire(pullToWire(nil, plugins.PullRequest{})); got.Auth != nil || got.Progress != nil {
		t.Errorf("%+v", got)
	}
}

func TestNonsenseFromTheWireIsInvalid(t *testing.T) {
	for _, publish := range []string{"nonsense", "127.0.0.1", "127.0.0.1:99999"} {
		if _, err := specFromWire(&Spec{Publish: publish}); !errors.Is(err, plugins.Invalid) {
			t.Errorf("%q: %v", publish, err)
		}
	}
}
