package image

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/teal-deploy/teal/plugins"
)

// An archive is a tar file whose parts are read where they lie.
type archive struct {
	file  *os.File
	parts map[string]part // by name
}

// A part of an archive is a file, or a link to one.
type part struct {
	offset, size int64
	link         string // the name that it stands for; "": it is a file
}

// maxLinks is how many links may lead to a part.
const maxLinks = 8

// maxDocument is how large a JSON document of an image may be.
const maxDocument = 16 << 20

// openArchive opens the archive at path, of which dir takes a copy when it is
// compressed.
func openArchive(ctx context.Context, path, dir string) (*archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &plugins.Error{Kind: plugins.Invalid, Err: errors.New("it is a folder: pack it with tar")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if f, err = unpacked(ctx, f, dir); err != nil {
		return nil, err
	}
	return readArchive(f)
}

// unpacked returns f, or what is in it when it is compressed with gzip.
func unpacked(ctx context.Context, f *os.File, dir string) (*os.File, error) {
	magic := make([]byte, 2)
	if _, err := f.ReadAt(magic, 0); err != nil || !isGzip(magic) {
		return f, nil // a file that is too short says so as an archive
	}
	defer func() { _ = f.Close() }() // it was only read
	r, err := gzip.NewReader(contextReader{ctx, f})
	if err != nil {
		return nil, err
	}
	to, err := spool(dir)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(to, r); err != nil { //nolint:gosec // it is the operator's own file, and goes to the disk
		return nil, errors.Join(err, to.Close())
	}
	return to, nil
}

func isGzip(magic []byte) bool { return magic[0] == 0x1f && magic[1] == 0x8b }

// readArchive notes where the parts of a tar file lie. It owns the file.
func readArchive(f *os.File) (*archive, error) {
	a := &archive{file: f, parts: map[string]part{}}
	if err := a.index(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return a, nil
}

func (a *archive) index() error {
	whole, err := a.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for r := tar.NewReader(a.file); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &plugins.Error{Kind: plugins.Invalid, Err: fmt.Errorf("it is no tar archive: %w", err)}
		}
		name := path.Clean(header.Name)
		switch header.Typeflag {
		case tar.TypeReg:
			// The reader has read the header and nothing beyond.
			at, err := a.file.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			if at+header.Size > whole {
				return &plugins.Error{Kind: plugins.Invalid, Err: fmt.Errorf("it breaks off within %s", name)}
			}
			a.parts[name] = part{offset: at, size: header.Size}
		case tar.TypeSymlink:
			a.parts[name] = part{link: path.Join(path.Dir(name), header.Linkname)} //nolint:gosec // a name within the archive: nothing is written
		case tar.TypeLink:
			a.parts[name] = part{link: path.Clean(header.Linkname)}
		}
	}
}

// open returns the content of a part.
func (a *archive) open(name string) (*io.SectionReader, error) {
	at := path.Clean(name)
	for range maxLinks {
		p, ok := a.parts[at]
		switch {
		case !ok:
			return nil, &plugins.Error{Kind: plugins.NotFound, Err: fmt.Errorf("the archive lacks %s", name)}
		case p.link == "":
			return io.NewSectionReader(a.file, p.offset, p.size), nil
		}
		at = p.link
	}
	return nil, &plugins.Error{Kind: plugins.Invalid, Err: fmt.Errorf("in the archive %s leads to too many links", name)}
}

// read returns the content of a small part.
func (a *archive) read(name string) ([]byte, error) {
	r, err := a.open(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > maxDocument {
		return nil, &plugins.Error{Kind: plugins.Invalid, Err: fmt.Errorf("in the archive %s is larger than %d bytes", name, maxDocument)}
	}
	return io.ReadAll(r)
}

// decode reads a part that is a JSON document.
func (a *archive) decode(name string, into any) error {
	text, err := a.read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return &plugins.Error{Kind: plugins.Invalid, Err: fmt.Errorf("in the archive %s: %w", name, err)}
	}
	return nil
}

func (a *archive) has(name string) bool {
	_, ok := a.parts[name]
	return ok
}

func (a *archive) close() error { return a.file.Close() }

// spool makes a file without a name, which is gone with the process.
func spool(dir string) (*os.File, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(dir, "teal-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// A contextReader ends with its context.
type contextReader struct {
	ctx context.Context // a Reader takes none
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
