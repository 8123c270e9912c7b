package source_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// addModule records a submodule as git submodule add does.
func (r repo) addModule(t *testing.T, path, url, commit string) {
	t.Helper()
	for key, value := range map[string]string{"path": path, "url": url} {
		r.run(t, "config", "-f", ".gitmodules", "submodule."+path+"."+key, value)
	}
	if err := os.MkdirAll(filepath.Join(string(r), path), 0o755); err != nil {
		t.Fatal(err)
	}
	r.run(t, "update-index", "--add", "--cacheinfo", "160000,"+commit+","+path)
	r.run(t, "add", ".gitmodules")
	r.run(t, "commit", "-q", "-m", "submodule")
}

func TestFetchBringsSubmodulesOfSubmodules(t *testing.T) {
	deep, lib, app := newRepo(t), newRepo(t), newRepo(t)
	deepCommit := deep.commit(t, map[string]string{"deep": "d"})
	lib.commit(t, map[string]string{"lib": "#!l"})
	// Relative, as seen from lib.
	lib.addModule(t, "in ner", "../../"+filepath.Base(filepath.Dir(string(deep)))+"/shop", deepCommit)
	libCommit := lib.run(t, "rev-parse", "HEAD")
	app.commit(t, map[string]string{"src/app": "a", "top": "t"})
	app.addModule(t, "src/lib", string(lib), libCommit)
	app.addModule(t, "other", string(deep), deepCommit)
	commit := app.run(t, "rev-parse", "HEAD")
	gitmodules := "-rw-r--r-- " + read(t, filepath.Join(string(app), ".gitmodules"))
	libModules := "-rw-r--r-- " + read(t, filepath.Join(string(lib), ".gitmodules"))

	all := map[string]string{
		".gitmodules": gitmodules, "top": "-rw-r--r-- t",
		"src/": "drwxr-xr-x ", "src/app": "-rw-r--r-- a",
		"src/lib/": "drwxr-xr-x ", "src/lib/lib": "-rwxr-xr-x #!l", "src/lib/.gitmodules": libModules,
		"src/lib/in ner/": "drwxr-xr-x ", "src/lib/in ner/deep": "-rw-r--r-- d",
		"other/": "drwxr-xr-x ", "other/deep": "-rw-r--r-- d",
	}
	sub := map[string]string{}
	for name, content := range all {
		if rest, ok := strings.CutPrefix(name, "src/"); ok && rest != "" {
			sub[rest] = content
		}
	}
	without := map[string]string{
		".gitmodules": gitmodules, "top": "-rw-r--r-- t",
		"src/": "drwxr-xr-x ", "src/app": "-rw-r--r-- a", "src/lib/": "drwxr-xr-x ", "other/": "drwxr-xr-x ",
	}
	for _, via := range vias {
		for _, tt := range []struct {
			name string
			code spec.Code
			want map[string]string
		}{
			{"all", spec.Code{Submodules: true}, all},
			{"below the subdir", spec.Code{Submodules: true, Subdir: "src"}, sub},
			{"not asked for", spec.Code{}, without},
		} {
			t.Run(via+" "+tt.name, func(t *testing.T) {
				tt.code.Repository, tt.code.Via = string(app), via
				dir := t.TempDir()
				got := fetch(t, open(t, tt.code), web1, dir, "r1", commit)
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				onlyExpected(t, dir)
				if tt.name == "below the subdir" && via == "host" {
					if got, err := os.ReadDir(filepath.Join(dir, "modules")); err != nil || len(got) != 2 {
						t.Errorf("mirrors %v %v, want those of lib and deep", got, err)
					}
				}
			})
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFetchWithSubmodulesOfAnAppThatHasNone(t *testing.T) {
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	for _, via := range vias {
		got := fetch(t, open(t, spec.Code{Repository: string(r), Via: via, Submodules: true}), web1, t.TempDir(), "r1", commit)
		if diff := cmp.Diff(map[string]string{"a": "-rw-r--r-- 1"}, got); diff != "" {
			t.Errorf("%s: %s", via, diff)
		}
	}
}

func TestFetchRefusesSubmodulesThatMakeNoSense(t *testing.T) {
	lib := newRepo(t)
	libCommit := lib.commit(t, map[string]string{"lib": "l"})
	for _, tt := range []struct {
		url, commit string
		kind        plugins.Kind
		want        string
	}{
		{"ext::sh -c 'touch /tmp/x'", libCommit, plugins.Invalid, "remote helpers are not supported"},
		{"-oProxyCommand=x", libCommit, plugins.Invalid, "is not an address"},
		{"", libCommit, plugins.Invalid, "submodule lib has no url in .gitmodules"},
		{string(lib), strings.Repeat("12", 20), plugins.NotFound, "submodule lib: " + string(lib) + " has no such commit"},
		{"/no/where", libCommit, plugins.NotFound, "submodule lib: repository /no/where was not found"},
	} {
		app := newRepo(t)
		app.commit(t, map[string]string{"app": "a"})
		app.addModule(t, "lib", tt.url, tt.commit)
		commit := app.run(t, "rev-parse", "HEAD")
		s := open(t, spec.Code{Repository: string(app), Submodules: true})
		_, err := s.Fetch(t.Context(), web1, source.Request{Dir: t.TempDir(), Release: "r1", Commit: commit})
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.url, err, tt.want)
		}
	}
}
