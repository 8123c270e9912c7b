package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/teal-deploy/teal/plugins"
)

// An Upload is an image of the operator's machine on its way to hosts. Digest
// and Pack are called by one goroutine; what Serve returns may be used by many.
type Upload struct {
	local  Local
	memory *memory

	program, id string // of the engine that has the image
	digest      string
	archive     *archive // nil: not read yet
	content     content
}

// Content is what an archive holds.
type content interface {
	// name returns the digest that a release knows the image by.
	name() v1.Hash
	// pack makes the content ready to be served and returns the digest that
	// it is pulled by.
	pack(ctx context.Context) (v1.Hash, error)
	manifest(digest v1.Hash) (types.MediaType, []byte, bool)
	// blob returns the size of a blob and how to open it.
	blob(digest v1.Hash) (size int64, open func(context.Context) (*io.SectionReader, error), ok bool)
	close() error
}

// NewUpload returns the upload of an image. Nothing is asked yet.
func NewUpload(l Local) *Upload { return &Upload{local: l, memory: recall(l.Dir)} }

// Digest returns the digest ("sha256:…") by which a release knows the image.
// The error is of kind NotFound when this machine does not have the image, and
// Invalid for an archive that is none.
func (u *Upload) Digest(ctx context.Context) (string, error) {
	if u.digest != "" {
		return u.digest, nil
	}
	digest, err := u.find(ctx)
	if err != nil {
		return "", u.fail(ctx, err)
	}
	u.digest = digest
	return digest, nil
}

func (u *Upload) find(ctx context.Context) (string, error) {
	if u.local.Archive == "" {
		var err error
		if u.program, u.id, err = u.local.find(ctx); err != nil {
			return "", err
		}
		if digest := u.memory.image(u.key()); digest != "" {
			return digest, nil
		}
	}
	if err := u.load(ctx); err != nil {
		return "", err
	}
	return u.content.name().String(), nil
}

func (u *Upload) key() string { return u.program + " " + u.id }

// load reads the archive. An engine is asked to write one first.
func (u *Upload) load(ctx context.Context) error {
	if u.archive != nil {
		return nil
	}
	var err error
	if u.local.Archive != "" {
		u.archive, err = openArchive(ctx, u.local.Archive, u.local.Dir)
	} else if f, saveErr := u.local.save(ctx, u.program, u.id); saveErr != nil {
		err = saveErr
	} else {
		u.archive, err = readArchive(f)
	}
	if err != nil {
		return err
	}
	switch {
	case u.archive.has("manifest.json"):
		u.content, err = readSaved(u)
	case u.archive.has("index.json"):
		u.content, err = readLayout(u.archive)
	default:
		err = errors.New("it holds no image: neither manifest.json nor index.json is in it")
	}
	if err != nil {
		u.archive, err = nil, errors.Join(err, u.archive.close())
		return &plugins.Error{Kind: plugins.Invalid, Err: err}
	}
	if u.local.Archive == "" {
		u.memory.learnImage(u.key(), u.content.name().String())
		u.memory.save()
	}
	return nil
}

// Pack makes the image ready to be served, and returns what is served. It must
// come after Digest.
func (u *Upload) Pack(ctx context.Context) (*Packed, error) {
	if err := u.load(ctx); err != nil {
		return nil, u.fail(ctx, err)
	}
	if got := u.content.name().String(); got != u.digest {
		return nil, u.fail(ctx, &plugins.Error{
			Kind: plugins.Conflict, Err: fmt.Errorf("it was remembered as %s and is %s: try again", u.digest, got),
		})
	}
	repository, _, err := Repository(u.local.Name)
	if err != nil {
		return nil, err
	}
	pinned, err := u.content.pack(ctx)
	if err != nil {
		return nil, u.fail(ctx, err)
	}
	u.memory.save()
	return &Packed{Digest: pinned.String(), repository: withoutRegistry(repository), content: u.content}, nil
}

// withoutRegistry returns the path of a repository at its registry.
func withoutRegistry(repository string) string {
	first, rest, ok := strings.Cut(repository, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return rest
	}
	return repository
}

// Close gives back what the upload takes of the disk.
func (u *Upload) Close() error {
	if u.archive == nil {
		return nil
	}
	return errors.Join(u.content.close(), u.archive.close())
}

func (u *Upload) fail(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	op := "upload " + u.local.Name
	if u.local.Archive != "" {
		op += " from " + u.local.Archive
	}
	kind := cmp.Or(plugins.KindOf(err), plugins.Unavailable)
	if errors.Is(err, fs.ErrNotExist) {
		kind = plugins.NotFound
	}
	return &plugins.Error{Op: op, Kind: kind, Err: err}
}

// saved is an image as engines save it: layers beside a configuration.
type saved struct {
	config     []byte
	configHash v1.Hash
	layers     []*layer

	pinned v1.Hash
	text   []byte // of the manifest
}

// readSaved reads the one image of an archive that an engine wrote.
func readSaved(u *Upload) (*saved, error) {
	var images []struct {
		Config string
		Layers []string
	}
	if err := u.archive.decode("manifest.json", &images); err != nil {
		return nil, err
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("it holds %d images, and must hold one", len(images))
	}
	s := &saved{}
	var err error
	if s.config, err = u.archive.read(images[0].Config); err != nil {
		return nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(s.config))
	if err != nil {
		return nil, fmt.Errorf("its configuration %s: %w", images[0].Config, err)
	}
	if n := len(config.RootFS.DiffIDs); n != len(images[0].Layers) {
		return nil, fmt.Errorf("it is damaged: it has %d layers, and its configuration names %d", len(images[0].Layers), n)
	}
	for i, part := range images[0].Layers {
		s.layers = append(s.layers, &layer{archive: u.archive, part: part, diffID: config.RootFS.DiffIDs[i], upload: u})
	}
	s.configHash, _, err = v1.SHA256(bytes.NewReader(s.config))
	return s, err
}

func (s *saved) name() v1.Hash { return s.configHash }

func (s *saved) pack(ctx context.Context) (v1.Hash, error) {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, l := range s.layers {
		group.Go(func() error { return l.know(gctx) })
	}
	if err := group.Wait(); err != nil {
		return v1.Hash{}, err
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.DockerManifestSchema2,
		Config: v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(s.config)), Digest: s.configHash},
	}
	for _, l := range s.layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.DockerLayer, Size: l.packed.Size, Digest: l.packed.Digest})
	}
	var err error
	if s.text, err = json.Marshal(m); err != nil {
		return v1.Hash{}, err
	}
	s.pinned, _, err = v1.SHA256(bytes.NewReader(s.text))
	return s.pinned, err
}

func (s *saved) manifest(digest v1.Hash) (types.MediaType, []byte, bool) {
	return types.DockerManifestSchema2, s.text, digest == s.pinned
}

func (s *saved) blob(digest v1.Hash) (int64, func(context.Context) (*io.SectionReader, error), bool) {
	if digest == s.configHash {
		return int64(len(s.config)), func(context.Context) (*io.SectionReader, error) {
			return io.NewSectionReader(bytes.NewReader(s.config), 0, int64(len(s.config))), nil
		}, true
	}
	for _, l := range s.layers {
		if l.packed.Digest == digest {
			return l.packed.Size, l.open, true
		}
	}
	return 0, nil, false
}

func (s *saved) close() error {
	var errs []error
	for _, l := range s.layers {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// A layout is an image, or several for different platforms, as OCI lays them
// out: everything lies under its digest and is served as it is.
type layout struct {
	archive *archive
	pinned  v1.Hash
	known   v1.Hash
}

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
