package image_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/teal-deploy/teal/orchestrator/image"
	"github.com/teal-deploy/teal/plugins"
)

const user, password = "ci", "hunter22"

// start runs a registry on loopback that asks for a login, with an image
// shop:1 in it. It returns the registry's address and the image's digest.
func start(t *testing.T) (address, digest string) {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`))
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	address = strings.TrimPrefix(server.URL, "http://")
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(address + "/shop:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: user, Password: password})); err != nil {
		t.Fatal(err)
	}
	hash, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return address, hash.String()
}

func TestResolveAsksTheRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // whoever runs the test may be logged in somewhere
	address, digest := start(t)
	login := &plugins.Auth{Username: user, Password: password}
	pinned := address + "/shop@sha256:" + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name, ref string
		auth      *plugins.Auth
		want      string
		kind      plugins.Kind
		says      string
	}{
		{name: "a tag", ref: address + "/shop:1", auth: login, want: digest},
		{name: "a digest is not asked for", ref: pinned, want: "sha256:" + strings.Repeat("ab", 32)},
		{name: "no such tag", ref: address + "/shop:2", auth: login, kind: plugins.NotFound, says: "no such image"},
		{name: "no login", ref: address + "/shop:1", kind: plugins.Denied, says: "who are you?"},
		{name: "a wrong login", ref: address + "/shop:1", auth: &plugins.Auth{Username: user, Password: "wrong1"}, kind: plugins.Denied, says: "refuses the login"},
		{name: "nobody answers", ref: "127.0.0.1:1/shop:1", kind: plugins.Unavailable, says: "refused"},
		{name: "no name", ref: "Shop One", kind: plugins.Invalid, says: "Shop One"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := image.Resolve(t.Context(), tt.ref, tt.auth)
			if got != tt.want || plugins.KindOf(err) != tt.kind {
				t.Errorf("got %q, %v; want %q and kind %q", got, err, tt.want, tt.kind)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "wrong1")) {
				t.Errorf("the error is %q, want it to say %q", err, tt.says)
			}
		})
	}
}

func TestRepositoryAndPin(t *testing.T) {
	digest := "sha256:" + strings.Repeat("12", 32)
	for _, tt := range []struct{ ref, repository, tag string }{
		{"shop", "shop", "latest"},
		{"shop:42", "shop", "42"},
		{"registry.example.com:5000/team/shop:42", "registry.example.com:5000/team/shop", "42"},
		{"registry.example.com:5000/team/shop", "registry.example.com:5000/team/shop", "latest"},
		{"shop@" + digest, "shop", ""},
		{"shop:42@" + digest, "shop", ""},
	} {
		repository, tag, err := image.Repository(tt.ref)
		if err != nil || repository != tt.repository || tag != tt.tag {
			t.Errorf("Repository(%q) = %q, %q, %v; want %q and %q", tt.ref, repository, tag, err, tt.repository, tt.tag)
		}
		if pinned, err := image.Pin(tt.ref, digest); err != nil || pinned != tt.repository+"@"+digest {
			t.Errorf("Pin(%q) = %q, %v", tt.ref, pinned, err)
		}
	}
	if _, _, err := image.Repository("a b"); !errors.Is(err, plugins.Invalid) {
		t.Errorf("Repository of a name with a space: %v", err)
	}
}
