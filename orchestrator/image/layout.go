package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A layout is an image, or several for different platforms, as OCI lays them
// out: everything lies under its digest and is served as it is.
type layout struct {
	archive *archive
	pinned  v1.Hash
	known   v1.Hash
}

var _ content = (*layout)(nil)

// readLayout reads the one image, or index, of a layout.
func readLayout(a *archive) (*layout, error) {
	var index v1.IndexManifest
	if err := a.decode("index.json", &index); err != nil {
		return nil, err
	}
	found := map[v1.Hash]bool{} // one image may have several names
	for _, m := range index.Manifests {
		found[m.Digest] = true
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("it holds %d images, and must hold one, or one index of images for several platforms", len(found))
	}
	l := &layout{archive: a, pinned: index.Manifests[0].Digest}
	var m v1.Manifest
	if err := a.decode(blobPath(l.pinned), &m); err != nil {
		return nil, err
	}
	l.known = l.pinned
	if kind, _, _ := l.manifest(l.pinned); kind.IsIndex() {
		return l, nil
	}
	l.known = m.Config.Digest
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if !a.has(blobPath(d.Digest)) {
			return nil, fmt.Errorf("it is not whole: %s is missing", d.Digest)
		}
	}
	return l, nil
}

func blobPath(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

func (l *layout) name() v1.Hash { return l.known }

func (l *layout) pack(context.Context) (v1.Hash, error) { return l.pinned, nil }

func (l *layout) manifest(digest v1.Hash) (types.MediaType, []byte, bool) {
	text, err := l.archive.read(blobPath(digest))
	var m struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err != nil || json.Unmarshal(text, &m) != nil {
		return "", nil, false
	}
	if m.MediaType == "" { // OCI lets a document do without
		m.MediaType = types.OCIManifestSchema1
		if m.Manifests != nil {
			m.MediaType = types.OCIImageIndex
		}
	}
	return m.MediaType, text, true
}

func (l *layout) blob(digest v1.Hash) (int64, func(context.Context) (*io.SectionReader, error), bool) {
	r, err := l.archive.open(blobPath(digest))
	if err != nil {
		return 0, nil, false
	}
	return r.Size(), func(context.Context) (*io.SectionReader, error) { return r, nil }, true
}

func (*layout) close() error { return nil }
