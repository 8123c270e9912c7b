package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/teal-deploy/teal/plugins"
)

// trusted checks that nobody but the operator and root can change what path
// leads to: not the file, and not the folders above it, for whoever may write
// to a folder may put another file in its place. A folder with the sticky bit,
// such as /tmp, lets nobody replace what is another's.
func trusted(path string) error {
	file, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return refusal(plugins.NotFound, "there is no %s", path)
	} else if err != nil {
		return refusal(plugins.Denied, "%w", err)
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return refusal(plugins.Denied, "%w", err)
	case !info.Mode().IsRegular():
		return refusal(plugins.Invalid, "%s is no file", file)
	case info.Mode()&0o111 == 0:
		return refusal(plugins.Invalid, "%s is not executable: chmod u+x %s", file, file)
	}
	// The folder of a link decides where it leads. EvalSymlinks has seen that
	// the links come to an end.
	for link := path; ; {
		if err := unchangeableUp(link); err != nil {
			return err
		}
		next, err := os.Readlink(link)
		if err != nil {
			return unchangeableUp(file)
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(filepath.Dir(link), next)
		}
		link = next
	}
}

// unchangeableUp checks a file and the folders above it.
func unchangeableUp(path string) error {
	for {
		if err := unchangeable(path); err != nil {
			return err
		}
		if path == filepath.Dir(path) {
			return nil
		}
		path = filepath.Dir(path)
	}
}

// unchangeable checks one file or folder.
func unchangeable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return refusal(plugins.Denied, "%w", err)
	}
	if mode := info.Mode(); mode.Perm()&0o022 != 0 && (!mode.IsDir() || mode&fs.ModeSticky == 0) {
		return refusal(plugins.Denied, "%s is writable by others than its owner (mode %04o): chmod go-w %s", path, mode.Perm(), path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Getuid() {
		return refusal(plugins.Denied, "%s belongs to user %d, neither to you nor to root: copy it, or chown it", path, stat.Uid)
	}
	return nil
}

// sum is the SHA-256 sum of a file, in hexadecimal.
func sum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
