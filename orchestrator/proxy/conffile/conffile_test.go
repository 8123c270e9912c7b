package conffile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// A program is one that reads a file and remembers what it read.
type program struct {
	file    string
	reads   []string
	refuse  error // what Reload returns
	useless error // what Verify returns
}

func (p *program) reload(context.Context) error {
	if p.refuse != nil {
		return p.refuse
	}
	p.reads = append(p.reads, content(p.file))
	return nil
}

func (p *program) program() Program {
	return Program{
		// Accepts files that have no line "bad".
		Check:  []string{"sh", "-c", `! grep -x bad "$1" >&2`, "check", p.file},
		Reload: p.reload,
		Verify: func(context.Context) error { return p.useless },
	}
}

func content(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "none"
	}
	return string(b)
}

func TestReplace(t *testing.T) {
	lost := errors.New("not taken")
	for name, c := range map[string]struct {
		before  string // none: no file
		content string
		program program
		after   string
		reads   []string
		says    string
		kind    plugins.Kind
	}{
		"new":                        {"none", "good\n", program{}, "good\n", []string{"good\n"}, "", ""},
		"other":                      {"old\n", "good\n", program{}, "good\n", []string{"good\n"}, "", ""},
		"same":                       {"good\n", "good\n", program{}, "good\n", []string{"good\n"}, "", ""},
		"new, refused":               {"none", "a\nbad\n", program{}, "none", nil, ": bad", plugins.Invalid},
		"other, refused":             {"old\n", "a\nbad\n", program{}, "old\n", nil, ": bad", plugins.Invalid},
		"same, refused":              {"bad\n", "bad\n", program{}, "bad\n", nil, ": bad", plugins.Invalid},
		"new, reload lost":           {"none", "good\n", program{refuse: lost}, "none", nil, "not taken", ""},
		"other, reload lost":         {"old\n", "good\n", program{refuse: lost}, "old\n", nil, "not taken", ""},
		"same, reload lost":          {"good\n", "good\n", program{refuse: lost}, "good\n", nil, "not taken", ""},
		"new, useless":               {"none", "good\n", program{useless: lost}, "none", []string{"good\n", "none"}, "not taken", ""},
		"other, useless":             {"old\n", "good\n", program{useless: lost}, "old\n", []string{"good\n", "old\n"}, "not taken", ""},
		"same, useless":              {"good\n", "good\n", program{useless: lost}, "good\n", []string{"good\n"}, "not taken", ""},
		"other, useless with a kind": {"old\n", "good\n", program{useless: &plugins.Error{Kind: plugins.Denied}}, "old\n", []string{"good\n", "old\n"}, "denied", plugins.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.program
			p.file = filepath.Join(t.TempDir(), "a.conf")
			if c.before != "none" {
				write(t, p.file, c.before)
			}
			err := Replace(t.Context(), plugintest.Local("web1"), File{Path: p.file, Content: []byte(c.content)}, p.program())
			if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || plugins.KindOf(err) != c.kind || errors.Is(err, ErrNotRestored)) {
				t.Errorf("kind %q, error %v", plugins.KindOf(err), err)
			}
			if got := content(p.file); got != c.after {
				t.Errorf("the file says %q, want %q", got, c.after)
			}
			if diff := cmp.Diff(c.reads, p.reads); diff != "" {
				t.Errorf("the program read (-want +got):\n%s", diff)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(p.file), ".a.conf.teal-new")); err == nil {
				t.Error("the candidate was left behind")
			}
		})
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func TestReplaceSetsTheMode(t *testing.T) {
	for mode, want := range map[os.FileMode]os.FileMode{0: 0o644, 0o600: 0o600} {
		p := program{file: filepath.Join(t.TempDir(), "a.conf")}
		if err := Replace(t.Context(), plugintest.Local("web1"), File{Path: p.file, Content: []byte("x"), Mode: mode}, p.program()); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(p.file)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%v, %v", info, err)
		}
	}
}

func TestReplaceFollowsASymbolicLinkAndKeepsIt(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real", "a.conf"), filepath.Join(dir, "a.conf")
	if err := os.Mkdir(filepath.Dir(real), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, real, "old\n")
	if err := os.Symlink("real/a.conf", link); err != nil {
		t.Fatal(err)
	}
	p := program{file: link}
	if err := Replace(t.Context(), plugintest.Local("web1"), File{Path: link, Content: []byte("good\n")}, p.program()); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); to != "real/a.conf" || content(real) != "good\n" {
		t.Errorf("link to %q (%v), content %q", to, err, content(real))
	}
	p.useless = errors.New("useless")
	if err := Replace(t.Context(), plugintest.Local("web1"), File{Path: link, Content: []byte("other\n")}, p.program()); err == nil || content(real) != "good\n" {
		t.Errorf("%v, content %q", err, content(real))
	}
}

func TestReplaceKeepsTheFormerFileOutOfSight(t *testing.T) {
	p := program{file: filepath.Join(t.TempDir(), "a.conf")}
	write(t, p.file, "old\n")
	if err := Replace(t.Context(), plugintest.Local("web1"), File{Path: p.file, Content: []byte("good\n")}, p.program()); err != nil {
		t.Fatal(err)
	}
	seen, err := filepath.Glob(filepath.Join(filepath.Dir(p.file), "[^.]*"))
	if err != nil || len(seen) != 1 {
		t.Errorf("%q, %v", seen, err)
	}
	if got := content(filepath.Join(filepath.Dir(p.file), ".a.conf.teal-old")); got != "old\n" {
		t.Errorf("the former file says %q", got)
	}
}

func TestReplaceWithoutCheckAndVerify(t *testing.T) {
	p := program{file: filepath.Join(t.TempDir(), "a.conf")}
	err := Replace(t.Context(), plugintest.Local("web1"), File{Path: p.file, Content: []byte("x")}, Program{Reload: p.reload})
	if err != nil || content(p.file) != "x" || len(p.reads) != 1 {
		t.Errorf("%v, %q, %q", err, content(p.file), p.reads)
	}
}

func TestReplaceWhereItMayNotWriteChangesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "missing", "a.conf"), "a.conf", dir + "/x/../a.conf"} {
		p := program{file: path}
		err := Replace(t.Context(), plugintest.Local("web1"), File{Path: path, Content: []byte("x")}, p.program())
		if err == nil || !strings.Contains(err.Error(), "replace "+path) || len(p.reads) > 0 {
			t.Errorf("%s: %v, %q", path, err, p.reads)
		}
	}
	denied := &plugins.ExitError{Host: "web1", Code: codeNotWritten, Stderr: []byte("sh: cannot create /etc/a: Permission denied\n")}
	err := Replace(t.Context(), failing{plugintest.Local("web1"), denied}, File{Path: "/etc/a"}, Program{})
	if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("error %v", err)
	}
}

// failing is a host on which every command fails in the same way.
type failing struct {
	plugins.Host
	err error
}

func (f failing) Run(context.Context, *plugins.Command) error { return f.err }

func TestReplaceOverALostConnection(t *testing.T) {
	lost := &plugins.Error{Op: "run", Kind: plugins.Lost}
	err := Replace(t.Context(), failing{plugintest.Local("web1"), lost}, File{Path: "/etc/a"}, Program{})
	if !errors.Is(err, plugins.Lost) {
		t.Errorf("error %v", err)
	}
}

func TestReplaceSaysWhenTheFormerFileIsNotBack(t *testing.T) {
	p := program{file: filepath.Join(t.TempDir(), "a.conf")}
	write(t, p.file, "old\n")
	use := p.program()
	use.Verify = func(context.Context) error {
		if err := os.Remove(filepath.Join(filepath.Dir(p.file), ".a.conf.teal-old")); err != nil {
			t.Fatal(err)
		}
		return errors.New("useless")
	}
	err := Replace(t.Context(), plugintest.Local("web1"), File{Path: p.file, Content: []byte("good\n")}, use)
	if !errors.Is(err, ErrNotRestored) || !strings.Contains(err.Error(), "useless") {
		t.Errorf("error %v", err)
	}
	unrestored := &plugins.ExitError{Host: "web1", Code: codeNotRestored, Stderr: []byte("bad\n\nmv: no\n")}
	err = Replace(t.Context(), failing{plugintest.Local("web1"), unrestored}, File{Path: "/etc/a"}, Program{})
	if !errors.Is(err, ErrNotRestored) || !strings.Contains(err.Error(), "bad; mv: no") {
		t.Errorf("error %v", err)
	}
}

func TestReplaceGoesBackWhenTheCallerHasLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := program{file: filepath.Join(t.TempDir(), "a.conf")}
	write(t, p.file, "old\n")
	use := p.program()
	use.Verify = func(ctx context.Context) error {
		cancel()
		return ctx.Err()
	}
	err := Replace(ctx, plugintest.Local("web1"), File{Path: p.file, Content: []byte("good\n")}, use)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotRestored) || content(p.file) != "old\n" {
		t.Errorf("%v, content %q", err, content(p.file))
	}
}
