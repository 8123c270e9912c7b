package loader

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

const (
	// prefix begins the name of a plugin's file.
	prefix = "teal-runtime-"
	// execSuffix ends that of one that speaks Exec.
	execSuffix = ".exec"
)

// FindOptions say where plugins are looked for. PATH is not: what an
// operator's PATH leads to is nobody's decision to run a plugin.
type FindOptions struct {
	// Path is where the app file says that the plugin is; then nowhere else is
	// looked. A relative one begins at Project.
	Path     string
	SHA256   string   // that the app file wants, in hexadecimal; "": any, or what the lock file says
	Protocol Protocol // that the app file wants; "": by the file's name

	Project string // the folder of the app file; "": none
	User    string // the operator's folder of data; "": $XDG_DATA_HOME or ~/.local/share
	System  string // "": /usr/local/lib

	// Changed takes a plugin that is not what the project's lock file says, for
	// whoever is about to accept it.
	Changed bool
}

// Found is a plugin that may be trusted as far as its file tells.
type Found struct {
	Name     string   `json:"name"`
	Path     string   `json:"path"` // absolute
	SHA256   string   `json:"sha256"`
	Protocol Protocol `json:"protocol"`
	Origin   Origin   `json:"origin"`
	Locked   bool     `json:"locked"` // the app file or the project's lock file names this content
	// Err is why the plugin is refused; only List has any.
	Err error `json:"-"`
}

// An Origin says why a plugin was found.
type Origin string

// The origins, in the order in which they are looked at.
const (
	FromFile    Origin = "app file" // FindOptions.Path
	FromProject Origin = "project"  // .teal/plugins beside the app file
	FromUser    Origin = "user"     // teal/plugins in the operator's folder of data
	FromSystem  Origin = "system"   // /usr/local/lib/teal/plugins
)

// Spec returns what Start takes, pinned to the content that was found.
func (f Found) Spec() Spec {
	return Spec{Name: f.Name, Cmd: []string{f.Path}, SHA256: f.SHA256, Protocol: f.Protocol}
}

// Find returns the plugin of that name: the one that the options name, else
// the first of the folders that has one. An error is of kind NotFound with the
// files that were looked for, or Denied with the reason: the file, or a folder
// that leads to it, can be changed by others than the operator and root, or the
// content is not what the app file or the project's lock file says.
func Find(name string, opts FindOptions) (Found, error) {
	f, err := find(name, opts)
	if err == nil && opts.SHA256 != "" && !strings.EqualFold(opts.SHA256, f.SHA256) {
		err = refusal(plugins.Denied, "%s has the SHA-256 sum %s, the app file wants %s", f.Path, f.SHA256, opts.SHA256)
	}
	if err != nil {
		return Found{}, &plugins.Error{Op: "find plugin " + name, Kind: plugins.KindOf(err), Err: err}
	}
	return f, nil
}

func find(name string, opts FindOptions) (Found, error) {
	if err := CheckName(name); err != nil {
		return Found{}, err
	}
	if opts.Path != "" {
		path := opts.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(opts.Project, path)
		}
		return inspect(name, path, FromFile, opts)
	}
	var looked []string
	for _, place := range opts.places() {
		for _, suffix := range []string{"", execSuffix} {
			path := filepath.Join(place.dir, prefix+name+suffix)
			if _, err := os.Lstat(path); err == nil {
				return inspect(name, path, place.origin, opts)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return Found{}, refusal(plugins.Denied, "%w", err)
			}
		}
		looked = append(looked, filepath.Join(place.dir, prefix+name))
	}
	return Found{}, refusal(plugins.NotFound, "there is no %s", strings.Join(looked, ", nor "))
}

// List returns the plugins of all folders, those that Find would return and
// those that are refused, with Err set, sorted by name. A plugin that another
// of the same name hides is not in it. An error, of kind Denied, tells of the
// folders that cannot be read; the list has what is in the others.
func List(opts FindOptions) ([]Found, error) {
	seen := map[string]bool{}
	var list []Found
	var unread []error
	for _, place := range opts.places() {
		if dir, err := filepath.Abs(place.dir); err == nil {
			place.dir = dir
		}
		entries, err := os.ReadDir(place.dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			unread = append(unread, &plugins.Error{Op: "list plugins", Kind: plugins.Denied, Err: err})
		}
		for _, e := range entries {
			file, ok := strings.CutPrefix(e.Name(), prefix)
			name := strings.TrimSuffix(file, execSuffix)
			if !ok || seen[name] || !nameExpr().MatchString(name) {
				continue
			}
			seen[name] = true
			path := filepath.Join(place.dir, e.Name())
			f, err := inspect(name, path, place.origin, opts)
			if err != nil {
				f = Found{Name: name, Path: path, Origin: place.origin, Protocol: protocolOf(path), Err: err}
			}
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b Found) int { return strings.Compare(a.Name, b.Name) })
	return list, errors.Join(unread...)
}

// nameExpr is what the app file takes for a runtime.
func nameExpr() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`) }

// A place is a folder of plugins.
type place struct {
	dir    string
	origin Origin
}

func (o FindOptions) places() []place {
	var places []place
	if o.Project != "" {
		places = append(places, place{filepath.Join(o.Project, ".teal", "plugins"), FromProject})
	}
	user := cmp.Or(o.User, os.Getenv("XDG_DATA_HOME"))
	if !filepath.IsAbs(user) { // XDG wants a relative one ignored
		user = ""
		if home, err := os.UserHomeDir(); err == nil {
			user = filepath.Join(home, ".local", "share")
		}
	}
	if user != "" {
		places = append(places, place{filepath.Join(user, "teal", "plugins"), FromUser})
	}
	return append(places, place{filepath.Join(cmp.Or(o.System, "/usr/local/lib"), "teal", "plugins"), FromSystem})
}

// inspect decides whether a plugin may be trusted.
func inspect(name, path string, origin Origin, opts FindOptions) (Found, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Found{}, err
	}
	f := Found{Name: name, Path: path, Protocol: cmp.Or(opts.Protocol, protocolOf(path)), Origin: origin}
	if err := trusted(path); err != nil {
		return Found{}, err
	}
	if f.SHA256, err = sum(path); err != nil {
		return Found{}, refusal(plugins.Denied, "%w", err)
	}
	switch {
	case opts.SHA256 != "": // which Find compares: the app file is its own lock
		f.Locked = true
	case opts.Project != "" && !opts.Changed:
		if f.Locked, err = locked(opts.Project, f); err != nil {
			return Found{}, err
		}
	}
	return f, nil
}

// NameOf returns the name that the file of a plugin stands for.
func NameOf(path string) string {
	name := strings.TrimPrefix(filepath.Base(path), prefix)
	return strings.TrimSuffix(strings.TrimSuffix(name, execSuffix), ".sh")
}

// CheckName returns an error of kind Invalid when a plugin cannot have that
// name.
func CheckName(name string) error {
	if nameExpr().MatchString(name) {
		return nil
	}
	return refusal(plugins.Invalid, "a name is a-z, 0-9, '-' and '_', up to 64 of them, not %q", name)
}

func protocolOf(path string) Protocol {
	if strings.HasSuffix(path, execSuffix) || strings.HasSuffix(path, ".sh") {
		return Exec
	}
	return GRPC
}

func refusal(kind plugins.Kind, format string, args ...any) error {
	return &plugins.Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}
