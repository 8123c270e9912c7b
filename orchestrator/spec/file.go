package spec

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// DefaultPath is the name of the app file where none is said.
const DefaultPath = "teal.toml"

// Options are what a command line adds to an app file.
type Options struct {
	Environment string            // of [environments]; "" for none
	Set         map[string]string // --set name=value; stronger than variables of a host

	// Canary takes the place of rollout.canary: shares as "5%", or the one
	// word none. Nil leaves it as the file has it.
	Canary []string
}

// A File is an app file that was read and found right, as far as can be known
// without a host. It does not change.
type File struct {
	path   string // "" when it comes from flags
	doc    *tomlfile.Document
	set    map[string]string
	canary []int // takes the place of the document's; nil: does not
	named  bool  // it holds a name and nothing else
}

// Load reads the app file at path. When the file is wrong the error is a
// tomlfile.Problems with everything that is.
func Load(path string, opts Options) (*File, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read app file: %w", err)
	}
	return Parse(path, src, opts)
}

// Parse is Load for a file that was read already; name is its path.
func Parse(name string, src []byte, opts Options) (*File, error) {
	f, err := newFile(name, opts)
	if err != nil {
		return nil, err
	}
	doc, problems := tomlfile.Parse(name, src, secretKeys()...)
	if doc == nil {
		return nil, problems.Err()
	}
	problems = append(problems, f.overlay(doc, opts.Environment)...)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return f, nil
}

// newFile makes a File with what the command line adds, and without a document.
func newFile(path string, opts Options) (*File, error) {
	if err := checkSet(opts.Set); err != nil {
		return nil, err
	}
	f := &File{path: path, set: maps.Clone(opts.Set)}
	if opts.Canary == nil {
		return f, nil
	}
	var err error
	f.canary, err = parseCanary(opts.Canary)
	return f, err
}

// checkSet checks the names of --set.
func checkSet(set map[string]string) error {
	var problems tomlfile.Problems
	for _, name := range slices.Sorted(maps.Keys(set)) {
		err := inventory.CheckVar(name)
		if err == nil && strings.ContainsRune(set[name], 0) {
			err = fmt.Errorf("the value of %s holds a NUL character", name)
		}
		if err != nil {
			problems = append(problems, tomlfile.Problem{Key: "--set", Message: err.Error(), Hint: tomlfile.Hint(err)})
		}
	}
	return problems.Err()
}

// overlay lays the chosen environment over the file and reads the result. The
// other environments are read as well, so that a slip in one of them does not
// wait for the day when it is needed.
func (f *File) overlay(doc *tomlfile.Document, chosen string) tomlfile.Problems {
	const table = "environments"
	base := doc.Without(table)
	names := doc.Keys(table)
	var problems tomlfile.Problems
	if doc.Has(table) && !doc.IsTable(table) {
		problems = append(problems, doc.Problem(table, "must be a table", "write [environments.staging]"))
	}
	if chosen != "" && !slices.Contains(names, chosen) {
		return append(problems, doc.Problem(table, fmt.Sprintf("there is no environment %q", chosen), environmentHint(chosen, names)))
	}
	for _, name := range names {
		key := tomlfile.Join(table, name)
		if !doc.IsTable(key) {
			problems = append(problems, doc.Problem(key, "must be a table", "write [environments.staging]"))
			continue
		}
		merged := doc.Overlay(key, secretKeys()...)
		_, found := f.read(merged, nil)
		if name == chosen {
			f.doc = merged
			problems = append(problems, found...)
			continue
		}
		for _, p := range found {
			if p.Key == key || strings.HasPrefix(p.Key, key+".") {
				problems = append(problems, p)
			}
		}
	}
	if chosen != "" {
		return problems
	}
	f.doc = base
	_, found := f.read(base, nil)
	return append(problems, found...)
}

func environmentHint(chosen string, names []string) string {
	if len(names) == 0 {
		return "the file has no [environments]"
	}
	if hint := tomlfile.DidYouMean(chosen, names); hint != "" {
		return hint
	}
	return "there is " + strings.Join(names, ", ")
}

// secretKeys are the keys whose values are sources of secrets. An environment
// replaces a source and does not add a second one to it.
func secretKeys() []string {
	return []string{"image.password", "container.secrets.*"}
}

// App returns what the file says, with ${name} as it is written. A value that
// is not text, such as a duration, and holds a ${name} has its default.
func (f *File) App() App {
	app, _ := f.read(f.doc, nil)
	return app
}

// Path returns the path of the file, "" when it was made from flags.
func (f *File) Path() string { return f.path }

// Dir returns the folder that relative paths of the file start from.
func (f *File) Dir() string { return filepath.Dir(f.path) }

// For returns the app as it is for one host: every ${name} is replaced by the
// variables, or by those of --set, which win. The version stands in vars
// under "version", when it is known. The error is a tomlfile.Problems.
func (f *File) For(vars map[string]string) (App, error) {
	if vars == nil {
		vars = map[string]string{}
	}
	app, problems := f.read(f.doc, vars)
	if err := problems.Err(); err != nil {
		return App{}, err
	}
	return app, nil
}

// Uses reports whether ${name} occurs in a value of one of the dotted keys,
// or of what is below them; without keys, whether it occurs anywhere.
func (f *File) Uses(name string, keys ...string) bool {
	found := false
	f.doc.Walk(func(at, text string) {
		if !within(at, keys) {
			return
		}
		parts, err := pieces(text)
		found = found || err == nil && slices.ContainsFunc(parts, func(p piece) bool { return p.name == name })
	})
	return found
}

func within(at string, keys []string) bool {
	return len(keys) == 0 || slices.ContainsFunc(keys, func(key string) bool {
		rest, ok := strings.CutPrefix(at, key)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// Problem returns an error about the value of a dotted key that was found
// elsewhere, as a pattern that selects no host.
func (f *File) Problem(key, message, hint string) error {
	return tomlfile.Problems{f.doc.Problem(key, message, hint)}
}

// read makes an App of a document. vars is nil while no host is known: then
// what depends on one is left out of the checks.
func (f *File) read(doc *tomlfile.Document, vars map[string]string) (App, tomlfile.Problems) {
	app := defaults()
	e := &expander{set: f.set, vars: vars, open: map[string]bool{}, balanced: doc.Has("proxy.hosts")}
	problems := doc.Decode(&app, tomlfile.Rules{
		Convert: converters(),
		Expand:  e.expand,
		Refuse:  refused(),
		Hints:   typeHints(),
	})
	if f.canary != nil {
		app.Rollout.Canary = slices.Clone(f.canary)
	}
	c := &checker{doc: doc, app: &app, skip: e.open, canary: f.canary != nil, problems: problems}
	for _, p := range problems {
		c.skip[p.Key] = true
	}
	if f.named {
		c.run()
		return app, c.problems
	}
	complete(&app, c)
	c.check()
	return app, c.problems
}
