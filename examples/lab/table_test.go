//go:build linux

package lab_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/teal-deploy/teal/examples/internal/outside"
	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/runtimes"
)

// A runtimeRow is a runtime that the lab's tests deploy with, and the engine of
// the hosts for it.
type runtimeRow struct {
	name    string
	engine  string                            // of the hosts
	runtime string                            // in the app file
	changes []func(string) string             // of the app file, besides
	prepare func(t *testing.T, folder string) // puts a plugin where teal finds it
	returns bool                              // after a reboot the containers come back
	died    string                            // what is said of a green that ends: one whose restart policy is final is started again

	// client runs a line of the engine's own client, as whoever teal deploys as.
	client clientFunc
	// names lists the app's containers where there is no such client.
	names namesFunc

	// beside says that the test stands beside the same one with Docker: it
	// looks at what the runtimes do in ways of their own and leaves out the rest.
	beside bool
}

// list returns the names of the app's containers on a host, running or not.
func (r *runtimeRow) list(ctx context.Context, h *lab.Host) (string, error) {
	if r.names != nil {
		return r.names(ctx, h)
	}
	return r.client(ctx, h, "ps --all --filter label=teal.app=shop --format '{{.Names}}'")
}

// hosts is a lab of hosts for the row that run an nginx each: one of them where
// the row stands beside Docker.
func (r *runtimeRow) hosts(n int) lab.Config {
	if r.beside {
		n = 1
	}
	return lab.Config{Hosts: n, Engine: r.engine}
}

// runtimeRows is the table of runtimes. Those without a plugin of their own have
// an engine that any test can do with.
func runtimeRows() []runtimeRow {
	// The shop's program comes with its code: there is no image.
	asProcess := []func(string) string{
		lab.Set("image.name", ""), replace("[image]\n", ""),
		lab.Set("container.command", `["sh", "-c", "exec \"$1\" -dir \"$2\" -listen 127.0.0.1:$PORT", "shop", "/srv/app/bin/shop", "/srv/app"]`),
	}
	return []runtimeRow{
		{name: lab.Docker, engine: lab.Docker, runtime: "docker", client: asRoot("docker"), returns: true, died: "exited"},
		{name: lab.Podman, engine: lab.Podman, runtime: "podman", client: asRoot("podman"), returns: true, died: "restarted"},
		{
			name: lab.RootlessPodman, engine: lab.RootlessPodman, runtime: "podman", returns: true, died: "restarted",
			client: atLogin("XDG_RUNTIME_DIR=/run/user/$(id -u) podman"),
		},
		{name: "process", runtime: "process", changes: asProcess, prepare: addProgram, names: inFolder("teal-process")},
		{name: "python", runtime: "python", changes: asProcess, prepare: addPython, names: inFolder("teal-python")},
		{
			name: "exec", engine: lab.Docker, runtime: "cli", client: asRoot("docker"), returns: true, prepare: addScript,
			changes: []func(string) string{lab.Set("plugins.cli.settings", `{ client = ["docker"] }`)},
		},
	}
}

// A clientFunc runs a line of an engine's client.
type clientFunc func(ctx context.Context, h *lab.Host, line string) (string, error)

func asRoot(client string) clientFunc {
	return func(ctx context.Context, h *lab.Host, line string) (string, error) {
		return h.Exec(ctx, "sh", "-c", client+" "+line)
	}
}

func atLogin(client string) clientFunc {
	return func(ctx context.Context, h *lab.Host, line string) (string, error) {
		return h.SSH(ctx, client+" "+line)
	}
}

// A namesFunc lists an app's containers.
type namesFunc func(ctx context.Context, h *lab.Host) (string, error)

// inFolder is for runtimes that keep a folder for each.
func inFolder(name string) namesFunc {
	return func(ctx context.Context, h *lab.Host) (string, error) { return h.SSH(ctx, "ls ~/.local/state/"+name) }
}

// addProgram builds the example process in a module of its own.
func addProgram(t *testing.T, folder string) {
	t.Helper()
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program, err := outside.Build(t.Context(), checkout, "../runtimes/process", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.Rename(program, filepath.Join(folder, filepath.Base(program)))); err != nil {
		t.Fatal(err)
	}
}

// addPython writes the Python skeleton and makes its messages, as an author
// does.
func addPython(t *testing.T, folder string) {
	t.Helper()
	s, err := runtimes.NewSkeleton("python", "python", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(folder); err != nil {
		t.Fatal(err)
	}
	for _, line := range s.Next {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

// addScript copies the example that is a shell script.
func addScript(t *testing.T, folder string) {
	t.Helper()
	script, err := os.ReadFile("../runtimes/shell/teal-runtime-cli.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "teal-runtime-cli.exec"), script, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// engines returns the rows of the table for tests of deployments: the one that
// TEAL_RUNTIME names, or all of them, Docker first and the others beside it.
func engines(t *testing.T) []runtimeRow {
	t.Helper()
	if only := os.Getenv("TEAL_RUNTIME"); only != "" {
		return []runtimeRow{rowOf(t, only)}
	}
	rows := slices.DeleteFunc(runtimeRows(), func(r runtimeRow) bool { return r.prepare != nil })
	for i := range rows {
		rows[i].beside = i > 0
	}
	return rows
}

// rowOf returns the row of an engine.
func rowOf(t *testing.T, engine string) runtimeRow {
	t.Helper()
	for _, r := range runtimeRows() {
		if r.prepare == nil && r.name == engine {
			return r
		}
	}
	t.Fatalf("TEAL_RUNTIME is docker, podman or rootless-podman, not %q", engine)
	panic("unreachable")
}

// eachEngine runs a test with every engine, all at the same time.
func eachEngine(t *testing.T, test func(t *testing.T, on runtimeRow)) {
	t.Helper()
	t.Parallel()
	for _, row := range engines(t) {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			test(t, row)
		})
	}
}
