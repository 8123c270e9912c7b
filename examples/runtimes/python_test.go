package runtimes

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// python writes the Python skeleton and makes its messages, as an author does.
func python(t *testing.T) (string, Skeleton) {
	t.Helper()
	need(t, "/usr/bin/python3", "protoc", "openssl")
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s", out)
		}
		t.Skipf("python3-grpcio is not installed: %s", bytes.TrimSpace(out))
	}
	dir, s := write(t, "python", "mine-python")
	for _, line := range s.Next {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", line, out)
		}
	}
	return dir, s
}

// What has no ability is told so by Python's own means: a missing method.
func TestPythonTellsOfWhatItLacks(t *testing.T) {
	dir, s := python(t)
	program := filepath.Join(dir, s.Program)
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, bytes.Replace(text, []byte("def logs("), []byte("def no_logs("), 1), 0o755); err != nil {
		t.Fatal(err)
	}
	state(t)
	rt := start(t, loader.Spec{Name: "mine", Cmd: []string{program}}).Runtime()
	if _, ok := rt.(plugins.LogStreamer); ok {
		t.Error("it has an ability that it does not tell of")
	}
	info, err := rt.Probe(t.Context(), plugintest.Local("web1"))
	if err != nil || info.Name != "mine-python" || info.Version != "0.1.0" {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := rt.Create(t.Context(), plugintest.Local("web1"), plugins.Spec{Name: "../x", Command: []string{"true"}}); plugins.KindOf(err) != plugins.Invalid {
		t.Errorf("the error is %v", err)
	}
}

func TestPythonStartedByHandSaysWhatItIs(t *testing.T) {
	dir, s := python(t)
	out, err := exec.Command(filepath.Join(dir, s.Program)).CombinedOutput()
	if err == nil || string(out) != "This is a plugin of teal, which starts it.\n" {
		t.Errorf("%q, %v", out, err)
	}
}
