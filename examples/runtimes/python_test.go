package runtimes

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// python makes the messages beside a copy of the example, as an author does.
func python(t *testing.T) string {
	t.Helper()
	need(t, "/usr/bin/python3", "protoc", "openssl")
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s", out)
		}
		t.Skipf("python3-grpcio is not installed: %s", bytes.TrimSpace(out))
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("python")); err != nil {
		t.Fatal(err)
	}
	for folder, file := range map[string]string{"../../plugins/internal/wire": "runtime.proto", "python": "broker.proto"} {
		if out, err := exec.Command("protoc", "--python_out="+dir, "-I", folder, "-I", "/usr/include", file).CombinedOutput(); err != nil {
			t.Fatalf("%s", out)
		}
	}
	return filepath.Join(dir, "teal-runtime-notes")
}

func TestPythonSpeaksTheProtocol(t *testing.T) {
	program := python(t)
	state(t)
	rt := start(t, loader.Spec{Name: "notes", Cmd: []string{program}}).Runtime()
	ctx, h := t.Context(), plugintest.Local("web1")
	info, err := rt.Probe(ctx, h)
	if err != nil || info.Name != "notes" || info.Version == "" {
		t.Fatalf("%+v, %v", info, err)
	}
	img, err := rt.Pull(ctx, h, plugins.PullRequest{Image: "shop:1"})
	if diff := cmp.Diff(plugins.Image{Reference: "shop:1", Digest: "sha256:shop:1"}, img); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	c, err := rt.Create(ctx, h, plugins.Spec{Name: "shop", Image: "shop:1", Labels: map[string]string{"app": "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	big := bytes.Repeat([]byte("x"), 300_000)
	cmd := &plugins.Command{Args: []string{"sh", "-c", `cat; printf %s "$A"`}, Env: map[string]string{"A": "b"}, Stdin: bytes.NewReader(big), Stdout: &out}
	if err := rt.Exec(ctx, h, c.ID, cmd); err != nil || out.String() != string(big)+"b" {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
	var exit *plugins.ExitError
	if err := rt.Exec(ctx, h, c.ID, &plugins.Command{Args: []string{"sh", "-c", "echo oh >&2; exit 3"}}); !errors.As(err, &exit) || exit.Code != 3 || string(exit.Stderr) != "oh\n" {
		t.Errorf("the error is %v", err)
	}
	if err := rt.Exec(ctx, h, "missing", &plugins.Command{Args: []string{"true"}}); !errors.Is(err, plugins.NotFound) {
		t.Errorf("the error is %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := rt.Exec(short, h, c.ID, &plugins.Command{Args: []string{"sleep", "60"}}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("cancelled after %v: %v", time.Since(began), err)
	}
	if err := rt.Stop(ctx, h, c.ID, time.Second); err != nil {
		t.Error(err)
	}
	c.Status = plugins.StatusExited
	list, err := rt.List(ctx, h, map[string]string{"app": "shop"})
	if diff := cmp.Diff([]plugins.Container{c}, list, cmpopts.EquateApproxTime(time.Microsecond)); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	for range 2 {
		if err := rt.Remove(ctx, h, c.ID); err != nil {
			t.Error(err)
		}
	}
	if list, err := rt.List(ctx, h, nil); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, ok := rt.(plugins.Restarter); ok {
		t.Error("it has an ability that it does not tell of")
	}
}

func TestPythonStartedByHandSaysWhatItIs(t *testing.T) {
	out, err := exec.Command(python(t)).CombinedOutput()
	if err == nil || string(out) != "This is a plugin of teal, which starts it.\n" {
		t.Errorf("%q, %v", out, err)
	}
}
