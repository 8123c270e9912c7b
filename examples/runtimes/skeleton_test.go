package runtimes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/examples/internal/outside"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// write writes a skeleton as teal plugins new does, and returns its folder.
func write(t *testing.T, language, name string) (string, Skeleton) {
	t.Helper()
	s, err := NewSkeleton(language, name, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir, s
}

// Each is written, built outside of teal's module, and checked on this machine.
// They wait more than they work, and their containers have folders of their own.
// The one in Python is checked by a script of the command, on a host with sshd.
func TestSkeletonsConform(t *testing.T) {
	need(t, "setsid", "busybox", "jq")
	dir := state(t)
	t.Run("each", func(t *testing.T) {
		t.Run("go", func(t *testing.T) {
			t.Parallel()
			goConforms(t)
		})
		t.Run("sh", func(t *testing.T) {
			t.Parallel()
			folder, s := write(t, "sh", "mine-sh")
			conforms(t, loader.Spec{Name: "mine-sh", Cmd: []string{filepath.Join(folder, s.Program)}, Protocol: loader.Exec})
		})
	})
	left, err := filepath.Glob(filepath.Join(dir, "*", "[^.]*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// goConforms runs the conformance test that the skeleton brings along.
func goConforms(t *testing.T) {
	folder, _ := write(t, "go", "mine")
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	module := t.TempDir()
	if err := outside.Module(t.Context(), checkout, folder, module); err != nil {
		t.Fatal(err)
	}
	if out, err := outside.Go(t.Context(), module, "test", "-v", "."); err != nil || !strings.Contains(out, "--- PASS: TestConformance") {
		t.Errorf("%v: %s", err, out)
	}
}

// conforms runs the conformance test on this machine and checks what it says
// that the runtime does not claim.
func conforms(t *testing.T, launch loader.Spec) {
	t.Helper()
	p := start(t, launch)
	if diff := cmp.Diff([]string{"restart", "restart-policy", "logs", "local-commands"}, p.Abilities()); diff != "" {
		t.Error(diff)
	}
	if p.Version() != "0.1.0" {
		t.Errorf("its version is %q", p.Version())
	}
	opts := plugintest.Options{Discover: true, Prefix: launch.Name, Timeout: 2 * time.Minute}
	for _, c := range plugintest.Report(t.Context(), p.Runtime(), plugintest.Local("web1"), opts) {
		may := c.Name == string(plugintest.Limits) || c.Name == string(plugintest.ReadOnlyMounts)
		if c.Err != nil || c.Skipped && !may {
			t.Errorf("%s: skipped %v, %v", c.Name, c.Skipped, c.Err)
		}
	}
}

// A skeleton bears its own name everywhere: two of them on one host do not meet.
func TestSkeletonBearsItsName(t *testing.T) {
	for _, language := range Languages() {
		s, err := NewSkeleton(language, "mine", "v1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		named, programs := false, 0
		for _, f := range s.Files {
			text := string(f.Text)
			for _, old := range []string{"teal-process", "teal-runtime-process", `"process"`} {
				if strings.Contains(text, old) {
					t.Errorf("%s: %s has %s", language, f.Path, old)
				}
			}
			named = named || strings.Contains(text, "teal-mine")
			if f.Path == s.Program {
				programs++
				if !f.Executable {
					t.Errorf("%s: %s is not executable", language, f.Path)
				}
			}
		}
		if !named || programs == 0 && len(s.Next) == 0 {
			t.Errorf("%s: named %v, %d programs", language, named, programs)
		}
	}
	if _, err := NewSkeleton("perl", "mine", ""); err == nil || err.Error() != `there is no skeleton in "perl", but in go, python, sh` {
		t.Error(err)
	}
}

func TestGoSkeletonIsAModuleThatRequiresTeal(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "module example.com/teal-runtime-mine\n\ngo 1.26.0\n\nrequire github.com/teal-deploy/teal v1.2.3\n",
		"":       "module example.com/teal-runtime-mine\n\ngo 1.26.0\n",
	} {
		s, err := NewSkeleton("go", "mine", version)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(s.Files[0].Text)); diff != "" {
			t.Error(diff)
		}
	}
	ours, err := os.ReadFile("../../go.mod")
	if err != nil || !strings.Contains(string(ours), "\ngo "+goVersion+"\n") {
		t.Errorf("teal's module wants another Go than %s: %v", goVersion, err)
	}
}

// What the script refuses before it looks at the host.
func TestShellSkeletonRefusesNonsense(t *testing.T) {
	need(t, "jq")
	dir, s := write(t, "sh", "mine")
	if len(s.Files) != 1 {
		t.Errorf("it has %d files", len(s.Files))
	}
	state(t)
	rt := start(t, loader.Spec{Name: "mine", Cmd: []string{filepath.Join(dir, s.Program)}, Protocol: loader.Exec}).Runtime()
	for _, tt := range []struct {
		change func(*plugins.Spec)
		kind   plugins.Kind
		want   string
	}{
		{func(s *plugins.Spec) { s.Name = "../x" }, plugins.Invalid, `web1: create ../x: "../x" is no name for a container`},
		{func(s *plugins.Spec) { s.Command = nil }, plugins.Invalid, "there is no command: set container.command"},
		{func(s *plugins.Spec) { s.Env = map[string]string{"A;B": ""} }, plugins.Invalid, `"A;B" is no name for a variable`},
	} {
		spec := plugins.Spec{Name: "shop", Command: []string{"true"}}
		tt.change(&spec)
		_, err := rt.Create(t.Context(), plugintest.Local("web1"), spec)
		if plugins.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("the error is %v, not %s", err, tt.want)
		}
	}
}
