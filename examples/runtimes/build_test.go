package runtimes

import (
	"path/filepath"
	"testing"

	"github.com/teal-deploy/teal/examples/internal/outside"
	"github.com/teal-deploy/teal/plugins/loader"
)

// build makes a program of the folder in a module of its own, as an author
// does, and returns the program's path.
func build(t *testing.T, folder string) string {
	t.Helper()
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program, err := outside.Build(t.Context(), checkout, folder, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
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
