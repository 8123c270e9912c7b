package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/teal-deploy/teal/orchestrator/image"
	"github.com/teal-deploy/teal/plugins"
)

var login = plugins.Auth{Username: "teal", Password: "s3cret"}

// pack makes an image ready to be served.
func pack(t *testing.T, l image.Local) (*image.Upload, *image.Packed) {
	t.Helper()
	u := image.NewUpload(l)
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := u.Digest(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := u.Pack(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return u, p
}

func serve(t *testing.T, p *image.Packed) *image.Serving {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := p.Serve(l, login)
	t.Cleanup(s.Close)
	return s
}

// fetch pulls what a serving serves as an engine does, and checks every digest.
func fetch(t *testing.T, s *image.Serving) v1.Image {
	t.Helper()
	ref, err := name.ParseReference(s.Reference)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref, remote.WithAuth(&authn.Basic{Username: login.Username, Password: login.Password}))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestServedImageIsWhole(t *testing.T) {
	a, b := layerOf(t, "a", 100_000), layerOf(t, "b", 200_000)
	manifest, blobs := ociOf(t, a, b)
	image1 := descriptorOf(ociManifest, manifest)
	image1["platform"] = map[string]any{"os": "linux", "architecture": "amd64"}
	index := jsonOf(t, map[string]any{"schemaVersion": 2, "manifests": []any{image1}})
	for _, tt := range []struct {
		name    string
		archive []byte
		pinned  string // "": whatever was packed
	}{
		{"as an engine saves it", savedOf(t, nil, a, b), ""},
		{"one layer twice", savedOf(t, nil, a, a), ""},
		{"with packed layers", savedOf(t, func(l []byte) []byte { return zipped(t, l) }, a, b), ""},
		{"a layout", layoutOf(t, blobs, image1), digestOf(manifest)},
		{"a layout of an index", layoutOf(t, append(blobs, blobOf(index)), descriptorOf(ociIndex, index)), digestOf(index)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, p := pack(t, image.Local{Name: "registry.example.com:5000/team/shop:1", Archive: file(t, tt.archive), Dir: t.TempDir()})
			s := serve(t, p)
			if !strings.HasPrefix(s.Reference, "127.0.0.1:") || !strings.HasSuffix(s.Reference, "/team/shop@"+p.Digest) {
				t.Errorf("it is pulled as %s", s.Reference)
			}
			if tt.pinned != "" && p.Digest != tt.pinned {
				t.Errorf("it is pulled by %s, want %s", p.Digest, tt.pinned)
			}
			img := fetch(t, s)
			layers, err := img.Layers()
			if err != nil || len(layers) != 2 {
				t.Fatalf("%d layers, %v", len(layers), err)
			}
			r, err := layers[0].Uncompressed()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, a) {
				t.Errorf("the first layer came as %d bytes: %v", len(got), err)
			}
			if s.Sent() == 0 || !s.Asked() {
				t.Errorf("%d bytes were sent, asked is %v", s.Sent(), s.Asked())
			}
		})
	}
}

func TestServingKnowsItsEngine(t *testing.T) {
	_, p := pack(t, image.Local{Name: "shop:1", Archive: file(t, savedOf(t, nil, layerOf(t, "a", 10)))})
	s := serve(t, p)
	if s.Asked() {
		t.Error("nobody has asked yet")
	}
	base := "http://" + strings.Replace(s.Reference, "/shop@", "/v2/shop/manifests/", 1)
	root, _, _ := strings.Cut(base, "shop/")
	none := "sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct {
		method, url, user, password string
		want                        int
	}{
		{"GET", base, "teal", "s3cret", 200},
		{"HEAD", base, "teal", "s3cret", 200},
		{"GET", root, "teal", "s3cret", 200},
		{"GET", root, "", "", 401},
		{"GET", base, "", "", 401},
		{"GET", base, "teal", "wrong", 401},
		{"GET", base, "other", "s3cret", 401},
		{"POST", root + "shop/blobs/uploads/", "", "", 401},
		{"POST", root + "shop/blobs/uploads/", "teal", "s3cret", 405},
		{"PUT", base, "teal", "s3cret", 405},
		{"DELETE", base, "teal", "s3cret", 405},
		{"GET", root + "_catalog", "teal", "s3cret", 404},
		{"GET", root + "shop/tags/list", "teal", "s3cret", 404},
		{"GET", root + "shop/manifests/latest", "teal", "s3cret", 404},
		{"GET", root + "other/manifests/" + p.Digest, "teal", "s3cret", 404},
		{"GET", root + "shop/manifests/" + none, "teal", "s3cret", 404},
		{"GET", root + "shop/blobs/" + none, "teal", "s3cret", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.user != "" {
			req.SetBasicAuth(tt.user, tt.password)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s %s as %q: %s", tt.method, tt.url, tt.user, resp.Status)
		}
		if resp.StatusCode >= 400 && !json.Valid(body) {
			t.Errorf("%s %s: %q is not how a registry says no", tt.method, tt.url, body)
		}
	}
}

// ask asks for a part of something, "" for all of it, with the login.
func ask(t *testing.T, method, url, part string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(login.Username, login.Password)
	if part != "" {
		req.Header.Set("Range", part)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// A download that broke off goes on where it was.
func TestServedLayerInParts(t *testing.T) {
	_, p := pack(t, image.Local{Name: "shop:1", Archive: file(t, savedOf(t, nil, layerOf(t, "a", 100_000)))})
	s := serve(t, p)
	layers, err := fetch(t, s).Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := strings.Cut(s.Reference, "/")
	ask := func(method, part string) (*http.Response, []byte) {
		return ask(t, method, "http://"+address+"/v2/shop/blobs/"+digest.String(), part)
	}
	_, whole := ask("GET", "")
	resp, rest := ask("GET", "bytes=100-")
	if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(rest, whole[100:]) {
		t.Errorf("%s with %d of %d bytes", resp.Status, len(rest), len(whole))
	}
	before := s.Sent()
	if resp, _ := ask("HEAD", ""); resp.ContentLength != int64(len(whole)) || s.Sent() != before {
		t.Errorf("a HEAD says %d of %d bytes, and %d were sent", resp.ContentLength, len(whole), s.Sent()-before)
	}
}

// The second run packs only what somebody asks for, and a wrong memory does no
// harm.
func TestLayersArePackedWhenTheyAreAskedFor(t *testing.T) {
	archive, dir := file(t, savedOf(t, nil, layerOf(t, "a", 1000), layerOf(t, "b", 1000))), t.TempDir()
	l := image.Local{Name: "shop:1", Archive: archive, Dir: dir}
	_, first := pack(t, l)
	_, second := pack(t, l)
	if first.Digest != second.Digest {
		t.Errorf("it is %s, and was %s", second.Digest, first.Digest)
	}
	var all sync.WaitGroup
	for range 4 { // who comes second waits
		all.Go(func() { fetch(t, serve(t, second)) })
	}
	all.Wait()

	known := filepath.Join(dir, "known.json")
	text, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known, bytes.ReplaceAll(text, []byte(`"size":`), []byte(`"size":1`)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, wrong := pack(t, l)
	if wrong.Digest == first.Digest {
		t.Fatal("the memory was not read")
	}
	address, _, _ := strings.Cut(serve(t, wrong).Reference, "/")
	var m v1.Manifest
	_, text = ask(t, "GET", "http://"+address+"/v2/shop/manifests/"+wrong.Digest, "")
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	resp, text := ask(t, "GET", "http://"+address+"/v2/shop/blobs/"+m.Layers[0].Digest.String(), "")
	if resp.StatusCode != http.StatusInternalServerError || !bytes.Contains(text, []byte("try again")) {
		t.Errorf("a wrong memory ended with %s: %s", resp.Status, text)
	}
	_, again := pack(t, l)
	fetch(t, serve(t, again))
	if again.Digest != first.Digest {
		t.Errorf("it is %s, and was %s", again.Digest, first.Digest)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "teal-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDamagedLayerIsNotSent(t *testing.T) {
	archive := savedOf(t, nil, layerOf(t, "a", 1000))
	at := bytes.Index(archive, bytes.Repeat([]byte("a"), 1000))
	archive[at] = 'b'
	u := image.NewUpload(image.Local{Name: "shop:1", Archive: file(t, archive)})
	defer func() { _ = u.Close() }()
	if _, err := u.Digest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Pack(t.Context()); !errors.Is(err, plugins.Invalid) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("it was packed: %v", err)
	}
}

func TestPackEndsWithItsContext(t *testing.T) {
	u := image.NewUpload(image.Local{Name: "shop:1", Archive: file(t, savedOf(t, nil, layerOf(t, "a", 1000)))})
	defer func() { _ = u.Close() }()
	if _, err := u.Digest(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := u.Pack(ctx); !errors.Is(err, stop) {
		t.Errorf("it ended with %v", err)
	}
}

func TestLoginsDiffer(t *testing.T) {
	a, b := image.NewLogin(), image.NewLogin()
	if a.Password == b.Password || len(a.Password) < 20 || a.Username == "" {
		t.Errorf("%v and %v", a, b)
	}
}

func TestImageIsPulledByItsNameWithoutRegistryAndTag(t *testing.T) {
	archive := file(t, savedOf(t, nil, layerOf(t, "a", 10)))
	for called, want := range map[string]string{
		"shop": "shop", "shop:1": "shop", "localhost/shop:1": "shop", "team/shop": "team/shop",
		"registry.example.com/team/shop:1": "team/shop", "127.0.0.1:5000/shop": "shop",
	} {
		_, p := pack(t, image.Local{Name: called, Archive: archive})
		if got := serve(t, p).Reference; !strings.HasSuffix(got, "/"+want+"@"+p.Digest) || strings.Count(got, "/") != 1+strings.Count(want, "/") {
			t.Errorf("%s is pulled as %s", called, got)
		}
	}
}
