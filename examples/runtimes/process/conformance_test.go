package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/teal-deploy/teal/plugins"
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
	p := start(t, program)
	report := plugintest.Report(t.Context(), p.Runtime(), plugintest.Local("here"), plugintest.Options{
		Discover: true,
		Crash: func(context.Context) (plugins.Runtime, error) {
			err := syscall.Kill(p.PID(), syscall.SIGKILL)
			return start(t, program).Runtime(), err
		},
	})
	for _, c := range report {
		switch {
		case c.Err != nil:
			t.Errorf("%s: %v", c.Name, c.Err)
		case c.Skipped:
			t.Logf("%s: not claimed", c.Name)
		}
	}
}

// start starts the plugin and ends it with the test.
func start(t *testing.T, program string) *loader.Plugin {
	t.Helper()
	p, err := loader.Start(t.Context(), loader.Spec{Name: "process", Cmd: []string{program}})
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
