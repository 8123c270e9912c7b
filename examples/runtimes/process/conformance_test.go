package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// TestConformance builds the plugin, starts it as teal does, and checks on this
// machine that it keeps every promise. Containers are kept in a folder of the
// test.
func TestConformance(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	program := filepath.Join(t.TempDir(), "teal-runtime-process")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p, err := loader.Start(t.Context(), loader.Spec{Name: "process", Cmd: []string{program}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, c := range plugintest.Report(t.Context(), p.Runtime(), plugintest.Local("here"), plugintest.Options{Discover: true}) {
		switch {
		case c.Err != nil:
			t.Errorf("%s: %v", c.Name, c.Err)
		case c.Skipped:
			t.Logf("%s: not claimed", c.Name)
		}
	}
}
