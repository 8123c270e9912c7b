package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"github.com/teal-deploy/teal/plugins"
)

// packetsUnderWay is how many packets of 32 KiB wait for their answers, so that
// a distant host is written to as fast as a near one.
const packetsUnderWay = 64

// cleanTime bounds how long it may take to remove a file after a failure.
const cleanTime = 5 * time.Second

// Upload writes what r gives into the file target of the host, an absolute path,
// as the login user, with exactly the permissions of mode. The file is there in full and on disk,
// or as it was before: it is written beside its place, synced, renamed, and
// the folder synced. The error is a plugins.Error: NotFound when the folder is
// missing, Denied without the right to write there.
func (c *Conn) Upload(ctx context.Context, target string, r io.Reader, mode fs.FileMode) error {
	op := "upload " + target
	if mode != mode.Perm() || !path.IsAbs(target) {
		err := fmt.Errorf("it takes an absolute path and plain permissions, not %v", mode)
		return &plugins.Error{Op: op, Host: c.name, Kind: plugins.Invalid, Err: err}
	}
	files, err := c.openFiles(ctx)
	switch {
	case err != nil:
		return c.fail(ctx, op, plugins.Unavailable, err)
	case files == nil:
		err = c.uploadByShell(ctx, target, r, mode)
	default:
		_, err = await(ctx, func() (struct{}, error) {
			return struct{}{}, uploadBySFTP(ctx, files, target, r, mode)
		}, func(struct{}) {})
	}
	if err != nil {
		return c.fail(ctx, op, uploadKind(err), err)
	}
	return nil
}

func uploadKind(err error) plugins.Kind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return plugins.NotFound
	case errors.Is(err, fs.ErrPermission):
		return plugins.Denied
	default:
		return plugins.Unavailable
	}
}

// openFiles returns the connection's sftp client, nil when the host has none
// that can rename over a file and sync.
func (c *Conn) openFiles(ctx context.Context) (*sftp.Client, error) {
	free, err := c.uploads.take(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	if c.files != nil || c.noFiles {
		return c.files, nil
	}
	s, err := c.openSession(ctx)
	if err != nil {
		return nil, err
	}
	payload := append([]byte{0, 0, 0, 4}, "sftp"...)
	if err := s.request(ctx, "subsystem", payload); err != nil {
		_ = s.Close()
		if ctx.Err() != nil || c.dying() {
			return nil, err
		}
		c.noFiles = true
		return nil, nil
	}
	files, err := await(ctx, func() (*sftp.Client, error) { return sftp.NewClientPipe(s, s) },
		func(f *sftp.Client) { _ = f.Close() })
	if err != nil {
		_ = s.Close()
		if ctx.Err() != nil || c.dying() {
			return nil, err
		}
		c.dialer.log().Warn("sftp does not work here; files go by a shell", "host", c.name, "error", err)
		c.noFiles = true
		return nil, nil
	}
	for _, extension := range []string{"posix-rename@openssh.com", "fsync@openssh.com"} {
		if _, ok := files.HasExtension(extension); !ok {
			_ = files.Close()
			c.noFiles = true
			return nil, nil
		}
	}
	c.files = files
	return files, nil
}

// uploadBySFTP writes and renames. The temporary file goes when it fails.
func uploadBySFTP(ctx context.Context, files *sftp.Client, target string, r io.Reader, mode fs.FileMode) (err error) {
	temporary := target + "." + token()
	f, err := files.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, files.Remove(temporary))
		}
	}()
	if err := errors.Join(fill(ctx, f, r, mode), f.Close()); err != nil {
		return err
	}
	if err := files.PosixRename(temporary, target); err != nil {
		return err
	}
	return syncFolder(files, path.Dir(target))
}

// fill writes the contents and makes sure that all of them have arrived.
func fill(ctx context.Context, f *sftp.File, r io.Reader, mode fs.FileMode) error {
	if err := f.Chmod(mode); err != nil {
		return err
	}
	n, err := f.ReadFromWithConcurrency(contextReader{ctx, r}, packetsUnderWay)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != n {
		return fmt.Errorf("%d of %d bytes arrived", info.Size(), n)
	}
	return nil
}

func syncFolder(files *sftp.Client, folder string) error {
	f, err := files.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
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

// receiveScript writes standard input to $1 with the permissions $2 and prints
// its digest. Exit codes: 3 without the folder, 4 without the right to write.
const receiveScript = `umask 077
d=${1%/*}
[ -d "${d:=/}" ] || { echo "no folder $d" >&2; exit 3; }
[ -w "$d" ] || { echo "no right to write into $d" >&2; exit 4; }
cat >"$1" && chmod "$2" "$1" && sync "$1" && sha256sum <"$1"`

// placeScript gives $1 the name $2.
const placeScript = `mv -fT "$1" "$2" && sync "${2%/*}/" || { rm -f "$1"; exit 1; }`

// uploadByShell serves hosts without sftp. The digest decides before the file
// gets its name.
func (c *Conn) uploadByShell(ctx context.Context, target string, r io.Reader, mode fs.FileMode) error {
	temporary, digest := target+"."+token(), sha256.New()
	var said bytes.Buffer
	err := c.run(ctx, &plugins.Command{
		Args:   []string{"sh", "-c", receiveScript, "teal", temporary, fmt.Sprintf("%04o", mode)},
		Stdin:  io.TeeReader(r, digest),
		Stdout: &said,
	}, false)
	if err != nil {
		err = shellError(err)
	} else if want, got := hex.EncodeToString(digest.Sum(nil)), said.String(); !strings.HasPrefix(got, want) {
		err = fmt.Errorf("the host has sha256 %.64s in place of %s", got, want)
	} else {
		return shellError(c.run(ctx, &plugins.Command{Args: []string{"sh", "-c", placeScript, "teal", temporary, target}}, false))
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	if left := c.run(clean, &plugins.Command{Args: []string{"rm", "-f", temporary}}, false); left != nil {
		err = errors.Join(err, fmt.Errorf("remove %s: %w", temporary, left))
	}
	return err
}

// shellError gives the scripts' exit codes the meaning that uploadKind knows.
func shellError(err error) error {
	var exit *plugins.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	said := strings.TrimSpace(string(exit.Stderr))
	switch exit.Code {
	case 3:
		return fmt.Errorf("%w: %s", fs.ErrNotExist, said)
	case 4:
		return fmt.Errorf("%w: %s", fs.ErrPermission, said)
	default:
		return errors.New(said)
	}
}

// token makes names of temporary files unique.
func token() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails
	return "teal-" + hex.EncodeToString(b)
}
