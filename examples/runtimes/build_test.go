package runtimes

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/teal-deploy/teal/plugins/loader"
)

// build makes a program of the folder in a module of its own that requires
// teal and nothing else, as an author does, and returns the program's path.
func build(t *testing.T, folder string) string {
	t.Helper()
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(checkout, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		run("mod", "init", "example.com/runtime")
	}
	run("mod", "edit", "-require=github.com/teal-deploy/teal@v0.0.0", "-replace=github.com/teal-deploy/teal="+checkout)
	program := filepath.Join(dir, "teal-runtime-"+filepath.Base(folder))
	run("build", "-o", program, ".")
	return program
}

// start starts a plugin and ends it with the test.
func start(t *testing.T, spec loader.Spec) *loader.Plugin {
	t.Helper()
	p, err := loader.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
