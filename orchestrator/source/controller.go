package source

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// An archive is a release's folder as a compressed tar file. The file has no
// name any more: it goes with the process, however that ends.
type archive struct {
	commit string
	sum    string // sha256, hexadecimal
	size   int64
	file   *os.File
}

// send writes the release's folder from an archive that is made here, once
// for all hosts.
func (s *Source) send(ctx context.Context, h plugins.Host, r Request) error {
	out, err := run(ctx, h, s.repository, checkScript, r.folder(), s.stamp(r.Commit))
	if err != nil || out == "complete\n" {
		return err
	}
	a, err := s.pack(ctx, r.Commit)
	if err != nil {
		return within("on this machine", err)
	}
	cmd := shell(receiveScript, r.folder(), s.stamp(r.Commit), a.sum)
	cmd.Stdin = io.NewSectionReader(a.file, 0, a.size)
	return explain(h.Run(ctx, cmd), s.repository)
}

// pack returns the archive of a commit, made by the first who asks.
func (s *Source) pack(ctx context.Context, commit string) (*archive, error) {
	select {
	case s.making <- struct{}{}:
		defer func() { <-s.making }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	a := s.archive
	s.mu.Unlock()
	if a != nil && a.commit == commit {
		return a, nil
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(s.cache, "modules"), 0o700); err != nil {
		return nil, err
	}
	unlock, err := lockFile(ctx, filepath.Join(s.cache, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	a, err = s.packLocked(ctx, commit)
	if errors.Is(err, errCorrupt) {
		a, err = s.packLocked(ctx, commit) // the mirrors that were damaged are gone
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.archive = a
	return a, nil
}

func (s *Source) packLocked(ctx context.Context, commit string) (*archive, error) {
	modules := filepath.Join(s.cache, "modules")
	trees, err := s.gather(ctx, here{}, "", "", commit, filepath.Join(modules, mirrorName(s.repository)), modules)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(s.cache, "archive-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	a, err := s.pour(ctx, file, trees)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	a.commit = commit
	return a, nil
}

// pour writes the trees into file.
func (s *Source) pour(ctx context.Context, file *os.File, trees []tree) (*archive, error) {
	sum := sha256.New()
	zipped, err := gzip.NewWriterLevel(io.MultiWriter(file, sum), gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(zipped)
	seen := s.code.Subdir == ""
	for _, t := range trees {
		found, err := s.copyTree(ctx, w, t)
		if err != nil {
			return nil, err
		}
		seen = seen || found
	}
	if !seen {
		return nil, &plugins.Error{Kind: plugins.NotFound, Err: fmt.Errorf("the commit has no folder %s", s.code.Subdir)}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		return nil, err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	return &archive{sum: hex.EncodeToString(sum.Sum(nil)), size: size, file: file}, err
}

// copyTree adds one tree below its prefix, as seen from the app's subdir, and
// reports whether there was anything. A mirror that cannot be read is removed.
func (s *Source) copyTree(ctx context.Context, w *tar.Writer, t tree) (found bool, err error) {
	r, feed := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := here{}.Run(ctx, &plugins.Command{
			Args:   []string{"git", "--git-dir=" + t.mirror, "-c", "tar.umask=0022", "archive", "--format=tar", t.commit},
			Stdout: feed,
		})
		_ = feed.CloseWithError(err)
		ended <- err
	}()
	found, err = s.copyEntries(w, tar.NewReader(r), t.prefix)
	if err == nil {
		_, err = io.Copy(io.Discard, r) // the padding, or git sees a broken pipe
	}
	_ = r.CloseWithError(err)
	if git := <-ended; git != nil && ctx.Err() == nil {
		if err := os.RemoveAll(t.mirror); err != nil {
			return false, err
		}
		return false, fmt.Errorf("%w: %w", errCorrupt, git)
	}
	return found, err
}

func (s *Source) copyEntries(w *tar.Writer, r *tar.Reader, prefix string) (found bool, err error) {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name := join(prefix, h.Name)
		if s.code.Subdir != "" {
			var inside bool
			if name, inside = strings.CutPrefix(name, s.code.Subdir+"/"); !inside {
				continue
			}
		}
		found = true
		if name == "" {
			continue
		}
		// Small hosts read GNU's long names, but not PAX records.
		h.Name, h.Format, h.PAXRecords = name, tar.FormatGNU, nil
		if err := w.WriteHeader(h); err != nil {
			return found, err
		}
		if _, err := io.Copy(w, r); err != nil {
			return found, err
		}
	}
}

// lockFile waits for an exclusive lock on a file, so that two deployments
// from one machine share the mirrors.
func lockFile(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-again.C:
		}
	}
}
