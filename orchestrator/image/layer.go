package image

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/teal-deploy/teal/plugins"
)

// packLevel makes a layer about a tenth larger than the usual level and takes
// a third of its time: it is packed faster than most lines carry it.
const packLevel = gzip.BestSpeed

// packing names what a layer is packed with. Another one makes other bytes.
func packing() string { return fmt.Sprintf("%s gzip -%d", runtime.Version(), packLevel) }

// A packed layer is what hosts download.
type packed struct {
	Digest v1.Hash `json:"digest"`
	Size   int64   `json:"size"`
}

// A layer is one of an image that an engine has saved.
type layer struct {
	archive *archive
	part    string
	diffID  v1.Hash // of its content
	upload  *Upload

	mu     sync.Mutex
	raw    bool     // it is packed as it lies in the archive
	file   *os.File // packed; nil: not yet
	packed packed   // set by know
}

// know finds out what the layer is when it is packed. It packs it when nobody
// remembers.
func (l *layer) know(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	lying, err := l.archive.open(l.part)
	if err != nil {
		return err
	}
	magic := make([]byte, 4)
	if n, err := lying.ReadAt(magic, 0); n == len(magic) && (isGzip(magic) || isZstd(magic)) {
		l.raw = true
		digest, size, err := v1.SHA256(contextReader{ctx, lying})
		l.packed = packed{digest, size}
		return err
	} else if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var known bool
	if l.packed, known = l.upload.memory.layer(l.diffID); known {
		return nil
	}
	if l.packed, err = l.pack(ctx, lying); err == nil {
		l.upload.memory.learnLayer(l.diffID, l.packed)
	}
	return err
}

func isZstd(magic []byte) bool { return bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) }

// pack writes the layer, packed, into a file.
func (l *layer) pack(ctx context.Context, from *io.SectionReader) (made packed, err error) {
	f, err := spool(l.upload.local.Dir)
	if err != nil {
		return packed{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	content, digest := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, digest), packLevel)
	if err != nil {
		return packed{}, err
	}
	_, err = io.Copy(z, io.TeeReader(contextReader{ctx, from}, content))
	if err := cmp.Or(err, z.Close()); err != nil {
		return packed{}, err
	}
	if got := hash(content.Sum(nil)); got != l.diffID {
		return packed{}, &plugins.Error{Kind: plugins.Invalid, Err: fmt.Errorf("the archive is damaged: the layer %s has the digest %s", l.diffID, got)}
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return packed{}, err
	}
	l.file = f
	return packed{hash(digest.Sum(nil)), size}, nil
}

// open returns the packed layer. Whoever asks for it while it is being packed
// waits.
func (l *layer) open(ctx context.Context) (*io.SectionReader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		lying, err := l.archive.open(l.part)
		if err != nil || l.raw {
			return lying, err
		}
		made, err := l.pack(ctx, lying)
		if err != nil {
			return nil, err
		}
		if made != l.packed {
			l.upload.memory.forgetLayers()
			err = fmt.Errorf("the layer %s became %v, and was remembered as %v: try again", l.diffID, made, l.packed)
			err, l.file = errors.Join(err, l.file.Close()), nil
			return nil, err
		}
	}
	return io.NewSectionReader(l.file, 0, l.packed.Size), nil
}

func (l *layer) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// hash is a sum as images have it.
func hash(sum []byte) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum)} }
