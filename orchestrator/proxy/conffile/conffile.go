// Package conffile replaces a configuration file on a host and proves that the
// program which reads it has taken it.
//
// The rule: candidate, sync, rename, check, reload, verify; and when any of
// them fails the former file is back in its place, checked again, before
// Replace returns. Writing, renaming, checking and putting back are one command
// on the host, so that a connection that breaks in the middle cannot leave a
// file behind which the program would refuse at its next start.
//
// The boundary: this package knows files. What to write, how to check, reload
// and verify is the caller's. The host needs a POSIX shell and the tools of
// coreutils or busybox.
package conffile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// ErrNotRestored is in the chain of an error of Replace when the former file
// could not be put back or not be taken into use again: somebody must look.
var ErrNotRestored = errors.New("the former configuration could not be restored")

// restoreWithin bounds putting back, which goes on when the caller's context
// has ended.
const restoreWithin = 20 * time.Second

// A File is a configuration file and what it shall contain.
//
// While it is replaced two neighbours exist in its folder, .NAME.teal-new and
// .NAME.teal-old. Programs that read a folder by a pattern do not see names
// that begin with a dot. The latter, the former content, stays.
type File struct {
	Path    string // absolute; a symbolic link is followed
	Content []byte
	Mode    fs.FileMode // 0: 0644
	Become  bool        // write and check with the rights that the host's become setting gives
}

// A Program is how the reader of a File takes it into use.
type Program struct {
	// Check is run on the host when the file is in its place; nil: none. An
	// exit code other than 0 refuses the file, and what Check wrote to
	// standard error is the reason.
	Check []string

	// Reload makes the program read the file. An error means that it goes on
	// with what it had.
	Reload func(context.Context) error

	// Verify proves that the program runs with the file; nil: Reload did. An
	// error means that it runs with it and does not do what it shall: the
	// former file is put back and reloaded.
	Verify func(context.Context) error
}

// Replace writes f, lets p check it, reloads and verifies. A file that has the
// content already is not written, but is checked, reloaded and verified.
//
// On an error everything is as it was, unless errors.Is(err, ErrNotRestored),
// or errors.Is(err, plugins.Lost): then the host finished or undid the writing
// by itself, and calling Replace again with the same file goes on from there.
// Kind Invalid: the check refused the file. Denied: it may not be written.
func Replace(ctx context.Context, h plugins.Host, f File, p Program) error {
	if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
		return f.failed(h, plugins.Invalid, errors.New("the path is not absolute and clean"))
	}
	before, err := f.put(ctx, h, p.Check)
	if err != nil {
		return err
	}
	if err := p.Reload(ctx); err != nil {
		return f.restore(ctx, h, before, p.Check, nil, err)
	}
	if p.Verify == nil {
		return nil
	}
	if err := p.Verify(ctx); err != nil {
		return f.restore(ctx, h, before, p.Check, p.Reload, err)
	}
	return nil
}

// What stood at the file's path before it was put there.
const (
	same    = "same" // the wanted content
	other   = "other"
	nothing = "nothing"
)

// Exit codes of the scripts.
const (
	codeNotWritten  = 10 // nothing has changed
	codeRefused     = 11 // the check failed, the former file is back
	codeNotRestored = 12 // the check failed, and so did putting back
)

const putScript = `
path=$1 mode=$2; shift 2
[ ! -L "$path" ] || path=$(readlink -f "$path") || exit 10
dir=${path%/*}/ name=${path##*/}
new=$dir.$name.teal-new old=$dir.$name.teal-old
umask 077
{ cat >"$new" && chmod "$mode" "$new" && sync "$new"; } || { rm -f "$new"; exit 10; }
before=nothing
if [ -e "$path" ]; then
	before=other
	[ "$(cat "$path")" != "$(cat "$new")" ] || before=same
fi
back() {
	case $before in
	other) mv -fT "$old" "$path" && sync "$dir" ;;
	nothing) rm -f "$path" && sync "$dir" ;;
	esac
}
trap 'back; exit 10' HUP INT TERM
case $before in
other) cp -p "$path" "$old" && mv -fT "$new" "$path" && sync "$dir" ;;
nothing) mv -fT "$new" "$path" && sync "$dir" ;;
same) rm -f "$new" ;;
esac || { rm -f "$new"; exit 10; }
if [ $# -gt 0 ] && ! "$@" >&2; then
	back || exit 12
	exit 11
fi
echo "$before"
`

// put makes the file what it shall be and returns what stood there before.
func (f File) put(ctx context.Context, h plugins.Host, check []string) (before string, err error) {
	mode := f.Mode.Perm()
	if mode == 0 {
		mode = 0o644
	}
	var out bytes.Buffer
	err = h.Run(ctx, &plugins.Command{
		Args:   append([]string{"sh", "-c", putScript, "teal", f.Path, fmt.Sprintf("%04o", mode)}, check...),
		Become: f.Become,
		Stdin:  bytes.NewReader(f.Content),
		Stdout: &out,
	})
	var exit *plugins.ExitError
	switch {
	case err == nil:
		return strings.TrimSpace(out.String()), nil
	case !errors.As(err, &exit):
		return "", f.failed(h, plugins.KindOf(err), err)
	case exit.Code == codeRefused:
		return "", f.failed(h, plugins.Invalid, reason(exit))
	case exit.Code == codeNotRestored:
		return "", f.failed(h, plugins.Invalid, fmt.Errorf("%w: %w", ErrNotRestored, reason(exit)))
	case exit.Code == codeNotWritten && denied(exit.Stderr):
		return "", f.failed(h, plugins.Denied, reason(exit))
	default:
		return "", f.failed(h, "", reason(exit))
	}
}

const backScript = `
path=$1 before=$2; shift 2
[ ! -L "$path" ] || path=$(readlink -f "$path") || exit 10
dir=${path%/*}/ name=${path##*/}
case $before in
other) mv -fT "$dir.$name.teal-old" "$path" ;;
nothing) rm -f "$path" ;;
esac && sync "$dir" || exit 10
[ $# -eq 0 ] || "$@" >&2
`

// restore puts back what was before cause happened, checks it, and reloads it
// when reload is not nil. It returns cause, with what went wrong meanwhile.
func (f File) restore(ctx context.Context, h plugins.Host, before string, check []string, reload func(context.Context) error, cause error) error {
	if before == same {
		return f.failed(h, plugins.KindOf(cause), cause)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreWithin)
	defer cancel()
	err := h.Run(ctx, &plugins.Command{
		Args:   append([]string{"sh", "-c", backScript, "teal", f.Path, before}, check...),
		Become: f.Become,
	})
	if exit, ok := errors.AsType[*plugins.ExitError](err); ok {
		err = reason(exit)
	}
	if err == nil && reload != nil {
		err = reload(ctx)
	}
	if err != nil {
		cause = fmt.Errorf("%w; %w: %w", cause, ErrNotRestored, err)
	}
	return f.failed(h, plugins.KindOf(cause), cause)
}

func (f File) failed(h plugins.Host, kind plugins.Kind, cause error) error {
	return &plugins.Error{Op: "replace " + f.Path, Host: h.String(), Kind: kind, Err: cause}
}

// reason makes one line of what a command that failed wrote.
func reason(exit *plugins.ExitError) error {
	var lines []string
	for line := range strings.Lines(string(exit.Stderr)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return fmt.Errorf("exit code %d", exit.Code)
	}
	return errors.New(strings.Join(lines[max(0, len(lines)-5):], "; "))
}

func denied(stderr []byte) bool {
	for _, s := range []string{"Permission denied", "Operation not permitted", "Read-only file system"} {
		if bytes.Contains(stderr, []byte(s)) {
			return true
		}
	}
	return false
}
