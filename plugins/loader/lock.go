package loader

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// A Lock is one plugin in a project's lock file, .teal/plugins.lock: the
// content that its people have agreed to run. The file is JSON, one plugin a
// line's worth, and belongs into version control.
type Lock struct {
	Name    string `json:"name"`
	Version string `json:"version"` // as the plugin told it; for people
	SHA256  string `json:"sha256"`
}

// lockFile is JSON for programs and for git.
type lockFile struct {
	Plugins []Lock `json:"plugins"`
}

// LockPath returns the path of a project's lock file.
func LockPath(project string) string { return filepath.Join(project, ".teal", "plugins.lock") }

// Locks returns the plugins that the project's lock file names, by name; none
// when there is no such file.
func Locks(project string) ([]Lock, error) {
	path := LockPath(project)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, &plugins.Error{Op: "read the plugins' lock file", Kind: plugins.Denied, Err: err}
	}
	var file lockFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, refusal(plugins.Invalid, "%s: %w", path, err)
	}
	return file.Plugins, nil
}

// Accept writes the plugin's content, and the version that it told, to the
// project's lock file, in the place of what it had of that name. From then on
// Find refuses any other content.
func Accept(project string, f Found, version string) error {
	locks, err := Locks(project)
	if err != nil {
		return err
	}
	locks = slices.DeleteFunc(locks, func(l Lock) bool { return l.Name == f.Name })
	locks = append(locks, Lock{Name: f.Name, Version: version, SHA256: f.SHA256})
	slices.SortFunc(locks, func(a, b Lock) int { return strings.Compare(a.Name, b.Name) })
	text, err := json.MarshalIndent(lockFile{locks}, "", "  ")
	if err != nil {
		return err
	}
	if err := replace(LockPath(project), append(text, '\n')); err != nil {
		return &plugins.Error{Op: "write the plugins' lock file", Kind: plugins.Denied, Err: err}
	}
	return nil
}

// replace writes a file whole or not at all.
func replace(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // it belongs into version control
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".plugins.lock-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone when it was renamed
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// locked reports whether the project's lock file names the plugin, and refuses
// one that is not what the file says.
func locked(project string, f Found) (bool, error) {
	locks, err := Locks(project)
	if err != nil {
		return false, err
	}
	for _, l := range locks {
		switch {
		case l.Name != f.Name:
		case strings.EqualFold(l.SHA256, f.SHA256):
			return true, nil
		default:
			return false, refusal(plugins.Denied, "%s has changed: %s has %s, the file is %s: if you know why, accept it with: teal plugins lock %s",
				f.Path, LockPath(project), l, f.SHA256, f.Name)
		}
	}
	return false, nil
}

// String is the version and the sum.
func (l Lock) String() string {
	if l.Version == "" {
		return l.SHA256
	}
	return "version " + l.Version + " " + l.SHA256
}
