package source_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

var vias = []string{"host", "controller"}

// strange are files of all kinds, with attributes that would bend them.
var strange = map[string]string{
	"README":                  "read me\n",
	"bin/start":               "#!/bin/sh\n",
	"a folder/ünï code \"x\"": "quoted\n",
	"link":                    "-> bin/start",
	"dangling":                "-> /nowhere/at all",
	"tests/.gitkeep":          "",
	".gitattributes":          "tests export-ignore\nREADME export-subst\n",
	"-rf":                     "a file like an option\n",
	"VERSION":                 "$Format:%H$\n",
	strings.Repeat("long/", 40) + strings.Repeat("n", 120): "deep\n",
}

var written = map[string]string{
	"README":                  "-rw-r--r-- read me\n",
	"bin/":                    "drwxr-xr-x ",
	"bin/start":               "-rwxr-xr-x #!/bin/sh\n",
	"a folder/":               "drwxr-xr-x ",
	"a folder/ünï code \"x\"": "-rw-r--r-- quoted\n",
	"link":                    "Lrwxrwxrwx bin/start",
	"dangling":                "Lrwxrwxrwx /nowhere/at all",
	"tests/":                  "drwxr-xr-x ",
	"tests/.gitkeep":          "-rw-r--r-- ",
	".gitattributes":          "-rw-r--r-- tests export-ignore\nREADME export-subst\n",
	"-rf":                     "-rw-r--r-- a file like an option\n",
	"VERSION":                 "-rw-r--r-- $Format:%H$\n",
	strings.Repeat("long/", 40) + strings.Repeat("n", 120): "-rw-r--r-- deep\n",
}

func TestFetchWritesTheTreeAsItIs(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, strange)
	want := maps.Clone(written)
	for i := range 40 {
		want[strings.Repeat("long/", i+1)] = "drwxr-xr-x "
	}
	for _, via := range vias {
		t.Run(via, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "it's the app")
			s := open(t, spec.Code{Repository: string(r), Via: via})
			got := fetch(t, s, web1, dir, "r1", commit)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			info, err := os.Stat(filepath.Join(dir, "releases/r1/code/README"))
			if err != nil || !info.ModTime().Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
				t.Errorf("the time of a file is %v, want that of the commit (%v)", info.ModTime(), err)
			}
			onlyExpected(t, dir)
		})
	}
}

// onlyExpected fails when a fetch left something in the app's folder.
func onlyExpected(t *testing.T, dir string) {
	t.Helper()
	for name := range listing(t, dir) {
		parts := strings.Split(name, "/")
		switch {
		case parts[0] == "mirror.git", parts[0] == "modules" && !strings.HasSuffix(name, ".tmp/"):
		case len(parts) == 2, parts[0] == "releases" && (len(parts) == 3 && parts[2] == "" || parts[2] == "code" || parts[2] == "code.complete"):
		default:
			t.Errorf("left behind: %s", name)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "teal.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestFetchReachesTheHostWithoutGit(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, strange)
	h := withoutGit(t)
	_, err := open(t, spec.Code{Repository: string(r)}).Fetch(t.Context(), h, source.Request{Dir: t.TempDir(), Release: "r1", Commit: commit})
	if !errors.Is(err, plugins.Unsupported) || !strings.Contains(err.Error(), `git is not installed; install it, or set via = "controller"`) {
		t.Errorf("got %v", err)
	}
	got := fetch(t, open(t, spec.Code{Repository: string(r), Via: "controller"}), h, t.TempDir(), "r1", commit)
	if got["README"] != "-rw-r--r-- read me\n" {
		t.Errorf("got %v", got)
	}
}

func TestFetchWritesTheSubdirAlone(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"back end/app": "#!x", "back end/lib/a": "a", "back end.txt": "no", "front/app": "no"})
	want := map[string]string{"app": "-rwxr-xr-x #!x", "lib/": "drwxr-xr-x ", "lib/a": "-rw-r--r-- a"}
	for _, via := range vias {
		t.Run(via, func(t *testing.T) {
			dir := t.TempDir()
			got := fetch(t, open(t, spec.Code{Repository: string(r), Via: via, Subdir: "back end/"}), web1, dir, "r1", commit)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			onlyExpected(t, dir)
			for _, sub := range []string{"back", "back end/app", "*"} {
				s := open(t, spec.Code{Repository: string(r), Via: via, Subdir: sub})
				_, err := s.Fetch(t.Context(), web1, source.Request{Dir: dir, Release: "r2", Commit: commit})
				if !errors.Is(err, plugins.NotFound) {
					t.Errorf("subdir %q: got %v, want NotFound", sub, err)
				}
			}
		})
	}
}

func TestFetchOfTheSecondReleaseTransfersTheDifference(t *testing.T) {
	r := newRepo(t)
	files := map[string]string{}
	for i := range 50 {
		files["f/"+strconv.Itoa(i)] = strings.Repeat("content "+strconv.Itoa(i), 100)
	}
	first := r.commit(t, files)
	dir := t.TempDir()
	s := open(t, spec.Code{Repository: "file://" + string(r)})
	fetch(t, s, web1, dir, "r1", first)
	mirror := repo(filepath.Join(dir, "mirror.git"))
	before := objects(t, mirror)
	second := r.commit(t, map[string]string{"f/7": "changed"})
	got := fetch(t, s, web1, dir, "r2", second)
	if got["f/7"] != "-rw-r--r-- changed" || len(got) != 51 {
		t.Errorf("got %d files, f/7 %q", len(got), got["f/7"])
	}
	// One blob, two trees, one commit.
	if more := objects(t, mirror) - before; more != 4 {
		t.Errorf("%d objects came, want 4", more)
	}
}

func objects(t *testing.T, r repo) int {
	t.Helper()
	sum := 0
	for line := range strings.Lines(r.run(t, "count-objects", "-v")) {
		if f := strings.Fields(line); f[0] == "count:" || f[0] == "in-pack:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

func TestFetchLeavesHistoryOut(t *testing.T) {
	r := newRepo(t)
	var commits []string
	for i := range 5 {
		commits = append(commits, r.commit(t, map[string]string{"n": strconv.Itoa(i)}))
	}
	dir := t.TempDir()
	s := open(t, spec.Code{Repository: "file://" + string(r)})
	// The third is no ref's end, but reachable.
	if got := fetch(t, s, web1, dir, "r1", commits[2]); got["n"] != "-rw-r--r-- 2" {
		t.Errorf("got %v", got)
	}
	if n := objects(t, repo(filepath.Join(dir, "mirror.git"))); n != 3 {
		t.Errorf("the mirror has %d objects, want one commit, tree and blob", n)
	}
}

func TestFetchServesItselfFromAServerThatRefusesCommitIDs(t *testing.T) {
	r := newRepo(t)
	old := r.commit(t, map[string]string{"n": "old"})
	tip := r.commit(t, map[string]string{"n": "tip"})
	// Protocol 0 lets the server refuse a commit that no ref points to.
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "protocol.version")
	t.Setenv("GIT_CONFIG_VALUE_0", "0")
	dir := t.TempDir()
	s := open(t, spec.Code{Repository: "file://" + string(r)})
	if got := fetch(t, s, web1, dir, "r1", tip); got["n"] != "-rw-r--r-- tip" {
		t.Errorf("got %v", got)
	}
	if got := fetch(t, s, web1, dir, "r2", old); got["n"] != "-rw-r--r-- old" {
		t.Errorf("got %v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "mirror.git/shallow")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mirror is still shallow: %v", err)
	}
}

func TestFetchTellsAMissingCommit(t *testing.T) {
	r := newRepo(t)
	r.commit(t, nil)
	for _, via := range vias {
		s := open(t, spec.Code{Repository: string(r), Via: via})
		_, err := s.Fetch(t.Context(), web1, source.Request{Dir: t.TempDir(), Release: "r1", Commit: strings.Repeat("ab", 20)})
		if !errors.Is(err, plugins.NotFound) || !strings.Contains(err.Error(), "web1: fetch abababababab: ") || !strings.Contains(err.Error(), "has no such commit") {
			t.Errorf("%s: got %v", via, err)
		}
	}
}

func TestFetchReusesACompleteFolderWithoutTheGitServer(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	for _, via := range vias {
		t.Run(via, func(t *testing.T) {
			dir := t.TempDir()
			code := spec.Code{Repository: string(r), Via: via}
			fetch(t, open(t, code), web1, dir, "r1", commit)
			mark := filepath.Join(dir, "releases/r1/code/written-by-the-app")
			if err := os.WriteFile(mark, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			code.Repository = "/nowhere"
			h := &counting{Host: web1}
			got := fetch(t, open(t, code), h, dir, "r1", commit)
			if _, kept := got["written-by-the-app"]; !kept || h.runs != 1 {
				t.Errorf("%d commands, %v", h.runs, got)
			}
		})
	}
}

func TestFetchRefusesToReplaceOtherCode(t *testing.T) {
	r := newRepo(t)
	first := r.commit(t, map[string]string{"a": "1"})
	second := r.commit(t, map[string]string{"a": "2"})
	for _, via := range vias {
		dir := t.TempDir()
		s := open(t, spec.Code{Repository: string(r), Via: via})
		fetch(t, s, web1, dir, "r1", first)
		_, err := s.Fetch(t.Context(), web1, source.Request{Dir: dir, Release: "r1", Commit: second})
		if !errors.Is(err, plugins.Exists) {
			t.Errorf("%s: got %v, want Exists", via, err)
		}
	}
}

func TestFetchReplacesAnIncompleteFolder(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	for _, via := range vias {
		dir := t.TempDir()
		for _, left := range []string{"code/half", "code.new/half", "code.all/half"} {
			path := filepath.Join(dir, "releases/r1", left)
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		got := fetch(t, open(t, spec.Code{Repository: string(r), Via: via}), web1, dir, "r1", commit)
		if diff := cmp.Diff(map[string]string{"a": "-rw-r--r-- 1"}, got); diff != "" {
			t.Errorf("%s: %s", via, diff)
		}
	}
}

func TestFetchMakesADamagedMirrorAnew(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	code := spec.Code{Repository: string(r), Via: "host"}
	damage := map[string]func(mirror string) error{
		"a lost pack": func(mirror string) error { return empty(filepath.Join(mirror, "objects")) },
		"a lost blob": func(mirror string) error {
			blob := r.run(t, "rev-parse", commit+":a")
			return os.Remove(filepath.Join(mirror, "objects", blob[:2], blob[2:]))
		},
		"a lock":          func(mirror string) error { return os.WriteFile(filepath.Join(mirror, "shallow.lock"), nil, 0o600) },
		"a half creation": func(mirror string) error { return os.RemoveAll(filepath.Join(mirror, "info")) },
	}
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fetch(t, open(t, code), web1, dir, "r1", commit)
			if err := hurt(filepath.Join(dir, "mirror.git")); err != nil {
				t.Fatal(err)
			}
			if got := fetch(t, open(t, code), web1, dir, "r2", commit); len(got) != 1 {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("here", func(t *testing.T) {
		cache, dir := cacheOf(t), t.TempDir()
		blob := r.run(t, "rev-parse", commit+":a")
		for _, release := range []string{"r1", "r2"} {
			s, err := source.New(source.Options{Code: spec.Code{Repository: string(r), Ref: "main", Via: "controller"}, Cache: cache})
			if err != nil {
				t.Fatal(err)
			}
			fetch(t, s, web1, dir, release, commit)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			found, err := filepath.Glob(filepath.Join(cache, "modules/*/objects", blob[:2], blob[2:]))
			if err != nil || len(found) != 1 {
				t.Fatalf("found %v %v", found, err)
			}
			if err := os.Remove(found[0]); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func empty(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o700)
}

func TestFetchEndsWithItsDeadlineAndItsCaller(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, nil)
	// A server that never answers.
	silent := "sleep 30; true"
	t.Setenv("GIT_SSH_COMMAND", "sh -c '"+silent+"'")
	for _, via := range vias {
		s, err := source.New(source.Options{
			Code:  spec.Code{Repository: "ssh://git.example.com/x", Ref: "main", Via: via},
			Cache: t.TempDir(), Timeout: 300 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		dir, start := t.TempDir(), time.Now()
		_, err = s.Fetch(t.Context(), web1, source.Request{Dir: dir, Release: "r1", Commit: commit})
		if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "not done within 300ms") || time.Since(start) > 5*time.Second {
			t.Errorf("%s: got %v after %s", via, err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := s.Resolve(ctx, web1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v", via, err)
		}
	}
}

func TestFetchRefusesRequestsThatMakeNoSense(t *testing.T) {
	good := source.Request{Dir: "/srv/shop", Release: "r1", Commit: strings.Repeat("a", 40)}
	for name, change := range map[string]func(*source.Request){
		"relative folder": func(r *source.Request) { r.Dir = "srv" },
		"release above":   func(r *source.Request) { r.Release = "../r1" },
		"release hidden":  func(r *source.Request) { r.Release = ".r1" },
		"release option":  func(r *source.Request) { r.Release = "-rf" },
		"short commit":    func(r *source.Request) { r.Commit = "abcdef0" },
		"option":          func(r *source.Request) { r.Commit = "--upload-pack=x" },
	} {
		request := good
		change(&request)
		_, err := open(t, spec.Code{Repository: "/srv/x"}).Fetch(t.Context(), web1, request)
		if !errors.Is(err, plugins.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
}

func TestHostsShareOneArchive(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	s := open(t, spec.Code{Repository: string(r), Via: "controller"})
	errs := make(chan error)
	for range 8 {
		go func() {
			_, err := s.Fetch(t.Context(), web1, source.Request{Dir: t.TempDir(), Release: "r1", Commit: commit})
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestFetchRefusesAnArchiveThatArrivedDamaged(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	h := &counting{Host: web1, change: func(cmd *plugins.Command) {
		if cmd.Stdin != nil {
			cmd.Stdin = strings.NewReader("cut off")
		}
	}}
	dir := t.TempDir()
	_, err := open(t, spec.Code{Repository: string(r), Via: "controller"}).Fetch(t.Context(), h, source.Request{Dir: dir, Release: "r1", Commit: commit})
	if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "arrived damaged") {
		t.Errorf("got %v", err)
	}
	onlyExpected(t, dir)
}

func TestPruneRemovesAllButTheKept(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"r1/code", "r2", "r 3/code/x", "r4", ".r9.gone"} {
		if err := os.MkdirAll(filepath.Join(dir, "releases", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(dir, "releases/link")); err != nil {
		t.Fatal(err)
	}
	h := &counting{Host: web1, change: func(cmd *plugins.Command) {
		if !cmd.Become {
			t.Error("files of another user could not be removed")
		}
	}}
	if err := source.Prune(t.Context(), h, dir, []string{"r2", "r4", "r7"}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "releases"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"link", "r2", "r4"}, names); diff != "" {
		t.Error(diff)
	}
	if err := source.Prune(t.Context(), web1, filepath.Join(dir, "nothing"), []string{"r1"}); err != nil {
		t.Errorf("an app without releases: %v", err)
	}
	for _, err := range []error{source.Prune(t.Context(), web1, dir, nil), source.Prune(t.Context(), web1, "dir", []string{"r2"})} {
		if !errors.Is(err, plugins.Invalid) {
			t.Errorf("got %v, want Invalid", err)
		}
	}
}
