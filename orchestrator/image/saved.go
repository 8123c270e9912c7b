package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// saved is an image as engines save it: layers beside a configuration.
type saved struct {
	config     []byte
	configHash v1.Hash
	layers     []*layer

	pinned v1.Hash
	text   []byte // of the manifest
}

var _ content = (*saved)(nil)

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
