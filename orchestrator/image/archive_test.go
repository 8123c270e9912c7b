package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/image"
	"github.com/teal-deploy/teal/plugins"
)

// An entry is a file of a tar archive, or a link.
type entry struct {
	name, link string
	content    []byte
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content))}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// layerOf is a layer with one file of n bytes that are alike.
func layerOf(t *testing.T, name string, n int) []byte {
	t.Helper()
	return tarOf(t, entry{name: name, content: bytes.Repeat([]byte(name[:1]), n)})
}

// configOf is the configuration of an image of layers.
func configOf(t *testing.T, layers ...[]byte) []byte {
	t.Helper()
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, digestOf(l))
	}
	return jsonOf(t, map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
}

// savedOf is an image as an engine saves it. The layers lie in the archive as
// packed makes them; nil: as they are.
func savedOf(t *testing.T, packed func([]byte) []byte, layers ...[]byte) []byte {
	t.Helper()
	config := configOf(t, layers...)
	entries := []entry{{name: "config.json", content: config}}
	names := []string{}
	for i, l := range layers {
		name := fmt.Sprintf("%d/layer.tar", i)
		names = append(names, name)
		if packed != nil {
			l = packed(l)
		}
		entries = append(entries, entry{name: name, content: l})
	}
	return tarOf(t, append(entries, entry{
		name:    "manifest.json",
		content: jsonOf(t, []any{map[string]any{"Config": "config.json", "RepoTags": []string{"shop:1"}, "Layers": names}}),
	})...)
}

func blobOf(b []byte) entry {
	return entry{name: "blobs/sha256/" + strings.TrimPrefix(digestOf(b), "sha256:"), content: b}
}

func descriptorOf(kind string, b []byte) map[string]any {
	return map[string]any{"mediaType": kind, "size": len(b), "digest": digestOf(b)}
}

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// ociOf is an image as OCI has it: its manifest, and all its blobs.
func ociOf(t *testing.T, layers ...[]byte) (manifest []byte, blobs []entry) {
	t.Helper()
	config := configOf(t, layers...)
	blobs = append(blobs, blobOf(config))
	var descriptors []any
	for _, l := range layers {
		z := zipped(t, l)
		blobs = append(blobs, blobOf(z))
		descriptors = append(descriptors, descriptorOf(ociLayer, z))
	}
	manifest = jsonOf(t, map[string]any{"schemaVersion": 2, "config": descriptorOf(ociConfig, config), "layers": descriptors})
	return manifest, append(blobs, blobOf(manifest))
}

// layoutOf is an archive of an OCI layout that names documents.
func layoutOf(t *testing.T, blobs []entry, named ...map[string]any) []byte {
	t.Helper()
	return tarOf(t, append(
		blobs,
		entry{name: "./oci-layout", content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		entry{name: "./index.json", content: jsonOf(t, map[string]any{"schemaVersion": 2, "manifests": named})},
	)...)
}

// file writes an archive and returns its path.
func file(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shop.tar")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDigestOfAnArchive(t *testing.T) {
	a, b := layerOf(t, "a", 100), layerOf(t, "b", 100)
	config := configOf(t, a, b)
	manifest, blobs := ociOf(t, a, b)
	image1 := descriptorOf(ociManifest, manifest)
	index := jsonOf(t, map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{image1}})
	for _, tt := range []struct {
		name    string
		archive []byte
		want    string
	}{
		{"as an engine saves it", savedOf(t, nil, a, b), digestOf(config)},
		{"with packed layers", savedOf(t, func(l []byte) []byte { return zipped(t, l) }, a, b), digestOf(config)},
		{"as a whole packed", zipped(t, savedOf(t, nil, a, b)), digestOf(config)},
		{"a layout", layoutOf(t, blobs, image1), digestOf(config)},
		{"a layout with two names for one image", layoutOf(t, blobs, image1, image1), digestOf(config)},
		{"a layout of an index", layoutOf(t, append(blobs, blobOf(index)), descriptorOf(ociIndex, index)), digestOf(index)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, dir := range []string{"", t.TempDir()} {
				u := image.NewUpload(image.Local{Name: "shop:1", Archive: file(t, tt.archive), Dir: dir})
				got, err := u.Digest(t.Context())
				if err != nil || got != tt.want {
					t.Errorf("%s, %v; want %s", got, err, tt.want)
				}
				if err := u.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestArchiveThatIsNoneIsRefused(t *testing.T) {
	a, b := layerOf(t, "a", 10), layerOf(t, "b", 10)
	manifest, blobs := ociOf(t, a)
	other, _ := ociOf(t, b)
	two := jsonOf(t, []any{map[string]any{"Config": "c"}, map[string]any{"Config": "d"}})
	one := jsonOf(t, []any{map[string]any{"Config": "c", "Layers": []string{"x"}}})
	for _, tt := range []struct {
		name string
		path string
		kind plugins.Kind
		says string
	}{
		{"absent", "/nowhere/shop.tar", plugins.NotFound, "no such file"},
		{"a folder", t.TempDir(), plugins.Invalid, "it is a folder"},
		{"text", file(t, bytes.Repeat([]byte("x"), 2000)), plugins.Invalid, "no tar archive"},
		{"empty", file(t, nil), plugins.Invalid, "holds no image"},
		{"broken off", file(t, savedOf(t, nil, a)[:1600]), plugins.Invalid, "breaks off within"},
		{"two images", file(t, tarOf(t, entry{name: "manifest.json", content: two})), plugins.Invalid, "holds 2 images"},
		{"no configuration", file(t, tarOf(t, entry{name: "manifest.json", content: one})), plugins.Invalid, "lacks c"},
		{"no JSON", file(t, tarOf(t, entry{name: "manifest.json", content: []byte("x")})), plugins.Invalid, "manifest.json"},
		{
			"too few layers",
			file(t, tarOf(t, entry{name: "manifest.json", content: one}, entry{name: "c", content: configOf(t)})),
			plugins.Invalid, "has 1 layers, and its configuration names 0",
		},
		{
			"links in a circle",
			file(t, tarOf(t, entry{name: "manifest.json", content: one}, entry{name: "c", link: "c"})),
			plugins.Invalid, "too many links",
		},
		{"a layout of two", file(t, layoutOf(t, blobs, descriptorOf(ociManifest, manifest), descriptorOf(ociManifest, other))), plugins.Invalid, "holds 2 images"},
		{"a layout of none", file(t, layoutOf(t, blobs)), plugins.Invalid, "holds 0 images"},
		{"a layout without a layer", file(t, layoutOf(t, append(blobs[:1:1], blobs[2:]...), descriptorOf(ociManifest, manifest))), plugins.Invalid, "is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := image.NewUpload(image.Local{Name: "shop:1", Archive: tt.path})
			_, err := u.Digest(t.Context())
			if plugins.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v of kind %q, want %q of kind %q", err, plugins.KindOf(err), tt.says, tt.kind)
			}
			if err := u.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
