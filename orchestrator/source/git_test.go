package source_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// TestMain gives git a home of its own, so that nobody's settings matter.
func TestMain(m *testing.M) {
	home, err := os.MkdirTemp("", "teal-source-")
	if err != nil {
		panic(err)
	}
	for name, value := range map[string]string{
		"HOME": home, "XDG_CONFIG_HOME": home, "TMPDIR": home, "GIT_CONFIG_NOSYSTEM": "1", "SSH_AUTH_SOCK": "",
		"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
		"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com", "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	_ = os.RemoveAll(home)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// needs skips the test where a program is missing, but not in CI.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is not installed", p)
			}
			t.Skipf("%s is not installed", p)
		}
	}
}

// A repo is a git repository with a work tree.
type repo string

func newRepo(t *testing.T) repo {
	t.Helper()
	needs(t, "git", "tar", "sha256sum")
	r := repo(filepath.Join(t.TempDir(), "shop"))
	r.run(t, "init", "-q", "-b", "main", string(r))
	return r
}

// run runs git and returns what it printed.
func (r repo) run(t *testing.T, args ...string) string {
	t.Helper()
	if args[0] != "init" {
		args = append([]string{"-C", string(r)}, args...)
	}
	cmd := exec.CommandContext(t.Context(), "git", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// commit writes files and commits them. A content that begins with "-> " is a
// symbolic link, one that begins with "#!" is executable.
func (r repo) commit(t *testing.T, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(string(r), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		err := error(nil)
		if to, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(to, path)
		} else {
			mode := fs.FileMode(0o644)
			if strings.HasPrefix(content, "#!") {
				mode = 0o755
			}
			err = os.WriteFile(path, []byte(content), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r.run(t, "add", "-A")
	r.run(t, "commit", "-q", "--allow-empty", "-m", "change")
	return r.run(t, "rev-parse", "HEAD")
}

// listing is a folder as text: name to mode and content.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, content := strings.TrimPrefix(path, dir+"/"), ""
		switch {
		case d.IsDir():
			name += "/"
		case info.Mode()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
		default:
			var b []byte
			b, err = os.ReadFile(path)
			content = string(b)
		}
		found[name] = fmt.Sprintf("%s %s", info.Mode(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// open returns a Source for code, closed with the test.
func open(t *testing.T, code spec.Code) *source.Source {
	t.Helper()
	if code.Via == "" {
		code.Via = "host"
	}
	if code.Ref == "" {
		code.Ref = "main"
	}
	s, err := source.New(source.Options{Code: code, Cache: cacheOf(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// cacheOf is a cache that is checked to hold nothing but mirrors in the end.
func cacheOf(t *testing.T) string {
	t.Helper()
	cache := t.TempDir()
	t.Cleanup(func() {
		for name := range listing(t, cache) {
			if top, _, _ := strings.Cut(name, "/"); top != "modules" && top != "lock" {
				t.Errorf("left behind in the cache: %s", name)
			}
		}
	})
	return cache
}

// fetch fetches and returns what lies in the folder then.
func fetch(t *testing.T, s *source.Source, h plugins.Host, dir, release, commit string) map[string]string {
	t.Helper()
	got, err := s.Fetch(t.Context(), h, source.Request{Dir: dir, Release: release, Commit: commit})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "releases", release, "code"); got != want {
		t.Fatalf("folder %s, want %s", got, want)
	}
	return listing(t, got)
}

var web1 = plugintest.Local("web1")

// A counting host counts commands and can change them.
type counting struct {
	plugins.Host
	runs   int
	change func(*plugins.Command)
}

func (c *counting) Run(ctx context.Context, cmd *plugins.Command) error {
	c.runs++
	if c.change != nil {
		c.change(cmd)
	}
	return c.Host.Run(ctx, cmd)
}

// withoutGit is a host whose PATH holds the programs of a small system.
func withoutGit(t *testing.T) plugins.Host {
	t.Helper()
	bin := t.TempDir()
	for _, p := range []string{"sh", "tar", "gzip", "sha256sum", "cat", "cut", "rm", "mkdir", "mv", "sync", "mktemp"} {
		path, err := exec.LookPath(p)
		if err != nil {
			t.Skipf("%s is not installed", p)
		}
		if err := os.Symlink(path, filepath.Join(bin, p)); err != nil {
			t.Fatal(err)
		}
	}
	return &counting{Host: web1, change: func(cmd *plugins.Command) { cmd.Env = map[string]string{"PATH": bin} }}
}
