package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

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

// A content is what an archive holds.
type content interface {
	// name returns the digest that a release knows the image by.
	name() v1.Hash
	// pack makes the content ready to be served and returns the digest that
	// it is pulled by.
	pack(ctx context.Context) (v1.Hash, error)
	// manifest returns a manifest or an index.
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
