package loader_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// folders are those that plugins are looked for in, all below one of the test.
func folders(t *testing.T) (loader.FindOptions, string) {
	t.Helper()
	root := t.TempDir()
	for p := root; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return loader.FindOptions{
		Project: filepath.Join(root, "project"), User: filepath.Join(root, "user"), System: filepath.Join(root, "system"),
	}, root
}

// put writes a plugin and returns the path and the sum of it.
func put(t *testing.T, text string, parts ...string) (path, sum string) {
	t.Helper()
	path = filepath.Join(parts...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	s := sha256.Sum256([]byte(text))
	return path, hex.EncodeToString(s[:])
}

func TestFindLooksInOrder(t *testing.T) {
	opts, root := folders(t)
	find := func(opts loader.FindOptions, want loader.Found) {
		t.Helper()
		want.Name = "wasm"
		got, err := loader.Find("wasm", opts)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
	}
	path, sum := put(t, "system", root, "system/teal/plugins/teal-runtime-wasm")
	find(opts, loader.Found{Path: path, SHA256: sum, Protocol: loader.GRPC, Origin: loader.FromSystem})
	path, sum = put(t, "user", root, "user/teal/plugins/teal-runtime-wasm.exec")
	find(opts, loader.Found{Path: path, SHA256: sum, Protocol: loader.Exec, Origin: loader.FromUser})
	path, sum = put(t, "project", root, "project/.teal/plugins/teal-runtime-wasm")
	find(opts, loader.Found{Path: path, SHA256: sum, Protocol: loader.GRPC, Origin: loader.FromProject})
	path, sum = put(t, "named", root, "project/own/runtime.sh")
	opts.Path = "own/runtime.sh"
	find(opts, loader.Found{Path: path, SHA256: sum, Protocol: loader.Exec, Origin: loader.FromFile})
	opts.Path, opts.SHA256, opts.Protocol = path, strings.ToUpper(sum), loader.GRPC
	find(opts, loader.Found{Path: path, SHA256: sum, Protocol: loader.GRPC, Origin: loader.FromFile, Locked: true})
}

func TestFindLooksAtTheOperatorsData(t *testing.T) {
	_, root := folders(t)
	t.Setenv("HOME", filepath.Join(root, "home"))
	path, _ := put(t, "home", root, "home/.local/share/teal/plugins/teal-runtime-wasm")
	for _, xdg := range []string{"", "relative"} {
		t.Setenv("XDG_DATA_HOME", xdg)
		if f, err := loader.Find("wasm", loader.FindOptions{System: root}); err != nil || f.Path != path {
			t.Errorf("%q: %+v, %v", xdg, f, err)
		}
	}
	path, _ = put(t, "xdg", root, "xdg/teal/plugins/teal-runtime-wasm")
	t.Setenv("XDG_DATA_HOME", filepath.Join(root, "xdg"))
	if f, err := loader.Find("wasm", loader.FindOptions{System: root}); err != nil || f.Path != path {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestFindNeverLooksAtPATH(t *testing.T) {
	opts, root := folders(t)
	put(t, "path", root, "bin/teal-runtime-wasm")
	t.Setenv("PATH", filepath.Join(root, "bin")+":"+os.Getenv("PATH"))
	_, err := loader.Find("wasm", opts)
	want := "find plugin wasm: there is no " + strings.Join([]string{
		filepath.Join(root, "project/.teal/plugins/teal-runtime-wasm"),
		filepath.Join(root, "user/teal/plugins/teal-runtime-wasm"),
		filepath.Join(root, "system/teal/plugins/teal-runtime-wasm"),
	}, ", nor ")
	if !errors.Is(err, plugins.NotFound) || err.Error() != want {
		t.Errorf("the error is %v\nnot %s", err, want)
	}
}

func TestFindRefusesWhatOthersMayChange(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, root, path string, opts *loader.FindOptions)
		kind  plugins.Kind
		want  string
	}{
		{"file of the group", func(t *testing.T, _, path string, _ *loader.FindOptions) { chmod(t, path, 0o775) }, plugins.Denied, "teal-runtime-wasm is writable by others than its owner (mode 0775): chmod go-w "},
		{"folder of all", func(t *testing.T, _, path string, _ *loader.FindOptions) { chmod(t, filepath.Dir(path), 0o777) }, plugins.Denied, "plugins is writable by others than its owner (mode 0777)"},
		{"folder above", func(t *testing.T, root, _ string, _ *loader.FindOptions) {
			chmod(t, filepath.Join(root, "user"), 0o775)
		}, plugins.Denied, "user is writable by others"},
		{"behind a link", func(t *testing.T, root, path string, _ *loader.FindOptions) {
			other, _ := put(t, "x", root, "other/runtime")
			chmod(t, filepath.Dir(other), 0o777)
			relink(t, other, path)
		}, plugins.Denied, "other is writable by others"},
		{"a link between", func(t *testing.T, root, path string, _ *loader.FindOptions) {
			other, _ := put(t, "x", root, "other/runtime")
			middle := filepath.Join(root, "middle", "link")
			if err := os.Mkdir(filepath.Dir(middle), 0o755); err != nil {
				t.Fatal(err)
			}
			relink(t, other, middle)
			relink(t, "../../../middle/link", path)
			chmod(t, filepath.Dir(middle), 0o777)
		}, plugins.Denied, "middle is writable by others"},
		{"another's", func(t *testing.T, _, path string, _ *loader.FindOptions) {
			if os.Getuid() != 0 {
				t.Skip("only root gives files away")
			}
			if err := os.Chown(path, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}, plugins.Denied, "belongs to user 65534, neither to you nor to root: copy it, or chown it"},
		{"not executable", func(t *testing.T, _, path string, _ *loader.FindOptions) { chmod(t, path, 0o644) }, plugins.Invalid, "is not executable: chmod u+x "},
		{"a folder", func(t *testing.T, _, path string, _ *loader.FindOptions) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
				t.Fatal(err)
			}
		}, plugins.Invalid, "is no file"},
		{"a link to nothing", func(t *testing.T, root, path string, _ *loader.FindOptions) {
			relink(t, filepath.Join(root, "nothing"), path)
		}, plugins.NotFound, "there is no "},
		{"another sum", func(_ *testing.T, _, path string, opts *loader.FindOptions) {
			opts.Path, opts.SHA256 = path, strings.Repeat("0", 64)
		}, plugins.Denied, ", the app file wants 0000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts, root := folders(t)
			path, _ := put(t, "user", root, "user/teal/plugins/teal-runtime-wasm")
			put(t, "system", root, "system/teal/plugins/teal-runtime-wasm") // is no way out
			tt.spoil(t, root, path, &opts)
			_, err := loader.Find("wasm", opts)
			if plugins.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "find plugin wasm: ") {
				t.Errorf("the error is %v, not %s", err, tt.want)
			}
		})
	}
	for _, name := range []string{"", "../up", "A", strings.Repeat("a", 65)} {
		if _, err := loader.Find(name, loader.FindOptions{}); !errors.Is(err, plugins.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
		if err := loader.CheckName(name); !errors.Is(err, plugins.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := loader.CheckName("wasm_2-b"); err != nil {
		t.Error(err)
	}
}

func TestNameOfAFile(t *testing.T) {
	for path, want := range map[string]string{
		"/a/teal-runtime-wasm": "wasm", "teal-runtime-wasm.exec": "wasm", "./wasm.sh": "wasm", "/b/Wasm": "Wasm",
	} {
		if got := loader.NameOf(path); got != want {
			t.Errorf("%s is %q, not %q", path, got, want)
		}
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func relink(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func TestFoundPluginIsPinned(t *testing.T) {
	scratch(t)
	opts, root := folders(t)
	path, sum := put(t, "#!/bin/sh\n"+`read -r request; echo '{"result":{"plugin_version":"1","calls":["logs"],"settings":true}}'`+"\n", root, "user/teal/plugins/teal-runtime-wasm.exec")
	f, err := loader.Find("wasm", opts)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(loader.Spec{Name: "wasm", Cmd: []string{path}, SHA256: sum, Protocol: loader.Exec}, f.Spec()); diff != "" {
		t.Error(diff)
	}
	p := start(t, f.Spec())
	if p.PID() != 0 {
		t.Errorf("it has the process %d", p.PID())
	}
	if diff := cmp.Diff([]string{"logs", "settings"}, p.Abilities()); diff != "" || p.Version() != "1" {
		t.Errorf("version %q, %s", p.Version(), diff)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.Runtime().Remove(t.Context(), plugintest.Local("web1"), "c1"); !errors.Is(err, plugins.Denied) {
		t.Errorf("changed between two calls: %v", err)
	}
}

func TestLockFileRefusesAChangedPlugin(t *testing.T) {
	opts, root := folders(t)
	path, before := put(t, "one", root, "project/.teal/plugins/teal-runtime-wasm")
	for _, name := range []string{"wasm", "other"} {
		if err := loader.Accept(opts.Project, loader.Found{Name: name, SHA256: before}, "1.0"); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := loader.Find("wasm", opts); err != nil || !f.Locked {
		t.Fatalf("%+v, %v", f, err)
	}
	_, after := put(t, "two", path)
	_, err := loader.Find("wasm", opts)
	lock := loader.LockPath(opts.Project)
	want := "find plugin wasm: " + path + " has changed: " + lock + " has version 1.0 " + before + ", the file is " + after +
		": if you know why, accept it with: teal plugins lock wasm"
	if !errors.Is(err, plugins.Denied) || err.Error() != want {
		t.Errorf("the error is %v\nnot %s", err, want)
	}
	pinned, changed := opts, opts
	pinned.SHA256, changed.Changed = after, true
	if f, err := loader.Find("wasm", pinned); err != nil || !f.Locked {
		t.Errorf("the app file wants it: %+v, %v", f, err)
	}
	if f, err := loader.Find("wasm", changed); err != nil || f.Locked || f.SHA256 != after {
		t.Errorf("for whoever wants to accept it: %+v, %v", f, err)
	}
	if err := loader.Accept(opts.Project, loader.Found{Name: "wasm", SHA256: after}, "2.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := loader.Find("wasm", opts); err != nil {
		t.Error(err)
	}
	locks, err := loader.Locks(opts.Project)
	if diff := cmp.Diff([]loader.Lock{{Name: "other", Version: "1.0", SHA256: before}, {Name: "wasm", Version: "2.0", SHA256: after}}, locks); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	if entries, err := os.ReadDir(filepath.Dir(lock)); err != nil || len(entries) != 2 {
		t.Errorf("beside it: %v, %v", entries, err)
	}
	for _, text := range []string{"rubbish", `{"plugins":[{"name":"wasm","digest":"x"}]}`} {
		if err := os.WriteFile(lock, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := loader.Find("wasm", opts); !errors.Is(err, plugins.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestListHasWhatFindWouldReturnAndWhatIsRefused(t *testing.T) {
	opts, root := folders(t)
	a, sumA := put(t, "a", root, "user/teal/plugins/teal-runtime-a")
	b, _ := put(t, "b", root, "project/.teal/plugins/teal-runtime-b.exec")
	chmod(t, b, 0o777)
	c, sumC := put(t, "c", root, "system/teal/plugins/teal-runtime-c")
	put(t, "hidden", root, "system/teal/plugins/teal-runtime-a")
	put(t, "no plugin", root, "system/teal/plugins/README")
	put(t, "no name", root, "system/teal/plugins/teal-runtime-Odd")
	got, err := loader.List(opts)
	want := []loader.Found{
		{Name: "a", Path: a, SHA256: sumA, Protocol: loader.GRPC, Origin: loader.FromUser},
		{Name: "b", Path: b, Protocol: loader.Exec, Origin: loader.FromProject, Err: plugins.Denied},
		{Name: "c", Path: c, SHA256: sumC, Protocol: loader.GRPC, Origin: loader.FromSystem},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
}

func TestListGoesOnBehindAFolderThatCannotBeRead(t *testing.T) {
	opts, root := folders(t)
	put(t, "no folder", root, "user/teal/plugins")
	path, sum := put(t, "c", root, "system/teal/plugins/teal-runtime-c")
	got, err := loader.List(opts)
	want := []loader.Found{{Name: "c", Path: path, SHA256: sum, Protocol: loader.GRPC, Origin: loader.FromSystem}}
	if diff := cmp.Diff(want, got); diff != "" || !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "user/teal/plugins") {
		t.Errorf("%v, %s", err, diff)
	}
}

func TestFileWithoutAnEntryInTheLockFileIsNew(t *testing.T) {
	opts, root := folders(t)
	put(t, "one", root, "project/.teal/plugins/teal-runtime-wasm")
	if f, err := loader.Find("wasm", opts); err != nil || f.Locked {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestLockSaysVersionAndSum(t *testing.T) {
	for want, l := range map[string]loader.Lock{"version 1.0 abc": {Version: "1.0", SHA256: "abc"}, "abc": {SHA256: "abc"}} {
		if l.String() != want {
			t.Errorf("%+v is %q", l, l.String())
		}
	}
}
