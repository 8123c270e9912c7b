//go:build linux

package lab_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/internal/outside"
	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
	"github.com/teal-deploy/teal/examples/shop"
)

// A runtimeRow is a host whose containers another runtime makes.
type runtimeRow struct {
	name    string
	engine  string
	changes []func(string) string             // of the app file
	list    func(h *lab.Host) (string, error) // the app's containers, running or not, a name each
	prepare func(t *testing.T, beside string) // of the app file's folder
	returns bool                              // after a reboot the containers come back
}

func runtimeRows(t *testing.T) []runtimeRow {
	const ps = " ps --all --filter label=teal.app=shop --format '{{.Names}}'"
	asRoot := func(line string) func(*lab.Host) (string, error) {
		return func(h *lab.Host) (string, error) { return h.Exec(t.Context(), "sh", "-c", line) }
	}
	atLogin := func(line string) func(*lab.Host) (string, error) {
		return func(h *lab.Host) (string, error) { return h.SSH(t.Context(), line) }
	}
	return []runtimeRow{
		{name: "docker", engine: lab.Docker, list: asRoot("docker" + ps), returns: true},
		{
			name: "podman", engine: lab.Podman, list: asRoot("podman" + ps), returns: true,
			changes: []func(string) string{lab.Set("runtime", `"podman"`)},
		},
		{
			name: "rootless podman", engine: lab.RootlessPodman, returns: true,
			list:    atLogin(`XDG_RUNTIME_DIR=/run/user/$(id -u) podman` + ps),
			changes: []func(string) string{lab.Set("runtime", `"podman"`)},
		},
		{
			// The shop's program comes with its code: there is no image. After
			// a reboot this runtime starts nothing.
			name: "process", engine: lab.NoEngine, list: atLogin("ls ~/.local/state/teal-process"),
			changes: []func(string) string{
				lab.Set("runtime", `"process"`),
				lab.Set("image.name", ""), replace("[image]\n", ""),
				lab.Set("container.command", `["sh", "-c", "exec \"$1\" -dir \"$2\" -listen 127.0.0.1:$PORT", "shop", "/srv/app/bin/shop", "/srv/app"]`),
			},
			prepare: addProcessRuntime,
		},
	}
}

// addProcessRuntime puts the example's runtime where teal finds it.
func addProcessRuntime(t *testing.T, beside string) {
	t.Helper()
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program, err := outside.Build(t.Context(), checkout, "../runtimes/process", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(beside, ".teal", "plugins")
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.Rename(program, filepath.Join(folder, filepath.Base(program)))); err != nil {
		t.Fatal(err)
	}
}

// publishOnce commits the releases of all rows, each with the shop's program,
// and tags them v1, v2, v3 and vbad.
func (f *fleet) publishOnce() {
	f.t.Helper()
	for _, release := range []struct{ name, mode string }{{"1", ""}, {"2", ""}, {"bad", "install-fails"}, {"3", ""}} {
		_, err := f.PublishRelease(f.t.Context(), release.name, func(dir string) error {
			program := filepath.Join(dir, "bin", "shop")
			if _, err := os.Stat(program); err != nil {
				if err := shop.BuildApp(f.t.Context(), program); err != nil {
					return err
				}
			}
			return os.WriteFile(filepath.Join(dir, "mode"), []byte(release.mode), 0o600)
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// One lab has a host for each runtime, and each row deploys to its own.
func TestRuntimesDeployUnderLoad(t *testing.T) {
	t.Parallel()
	rows := runtimeRows(t)
	c := lab.Config{Hosts: len(rows)}
	for _, row := range rows {
		c.Engines = append(c.Engines, row.engine)
	}
	// Downloads and sockets outlast the delay: blue has to wait for their ends.
	clients := light()
	clients[load.Download], clients[load.WebSocket] = 1, 1
	f := newBusyFleet(t, c, clients, quick)
	f.publishOnce()
	text, err := os.ReadFile(f.app)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("each", func(t *testing.T) {
		for i, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				own := *f
				own.t, own.state = t, t.TempDir()
				r := &runtimeRun{fleet: &own, row: row, host: f.Host(i + 1), text: string(text), clients: clients}
				r.test()
			})
		}
	})
}

// A runtimeRun is a row at work.
type runtimeRun struct {
	*fleet
	row  runtimeRow
	host *lab.Host
	text string // of the app file that all rows begin with
	dir  string // of its own

	clients map[load.Class]int
}

func (r *runtimeRun) test() {
	r.dir = r.t.TempDir()
	if r.row.prepare != nil {
		r.row.prepare(r.t, r.dir)
	}
	r.ship("1", 0)
	s := r.stress(r.clients, 5*time.Minute, func(c *load.Config) {
		c.Hosts = slices.DeleteFunc(c.Hosts, func(h load.Host) bool { return h.Name != r.host.Name })
	})
	s.switched(r.ship("2", 0))
	r.left("2")
	s.switched(r.must(r.run(nil, "rollback")))
	r.left("1")

	e := r.ship("bad", 4)
	if h := e.result.Hosts[0]; h.Step != "install" || len(h.Log) == 0 {
		r.t.Errorf("it failed in %s with %d lines of what green wrote, want install and some", h.Step, len(h.Log))
	}
	r.left("1")

	// From the switch on the host can do the rest by itself.
	r.at("3")
	killed := r.killAt(syscall.SIGKILL, func(e event) bool { return e.Step == "switch" && e.Status == "done" }, "deploy", "--version", "3")
	if killed.code != -1 {
		r.t.Errorf("teal was to be killed and ended with code %d", killed.code)
	}
	for _, e := range killed.events {
		if e.Step == "switch" && e.Status == "done" {
			s.rec.Switched(load.Switch{Host: e.Host, Release: "3", Began: killed.events[0].Time, Confirmed: e.Time})
		}
	}
	r.eventually(25*time.Second, "blue is gone", func() bool { return len(r.containers()) == 1 })
	r.left("3")
	if e := r.must(r.run(nil, "deploy", "--version", "3")); e.result.Outcome != "nothing to do" {
		r.t.Errorf("the next deployment ended with %q, want nothing to do", e.result.Outcome)
	}
	s.end(r.t)

	if r.row.returns {
		if err := r.host.Reboot(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		r.eventually(30*time.Second, "the release is back after a reboot", func() bool { return r.serves(r.host) == "3" })
	}
}

// at has the app file name a release's code.
func (r *runtimeRun) at(version string) {
	r.t.Helper()
	text := r.text
	changes := append([]func(string) string{
		lab.Set("hosts", `"`+r.host.Name+`"`), lab.Set("code.ref", `"v`+version+`"`),
	}, r.row.changes...)
	for _, change := range changes {
		text = change(text)
	}
	r.app = filepath.Join(r.dir, "teal.toml")
	if err := os.WriteFile(r.app, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// ship deploys a release, which must end with the code.
func (r *runtimeRun) ship(version string, code int) ended {
	r.t.Helper()
	r.at(version)
	e := r.run(nil, "deploy", "--version", version)
	r.want(e, code)
	return e
}

// left checks that a release serves and has the only container.
func (r *runtimeRun) left(version string) {
	r.t.Helper()
	if got := r.serves(r.host); got != version {
		r.t.Errorf("%s serves, want %s", got, version)
	}
	if got := r.containers(); len(got) != 1 {
		r.t.Errorf("containers are %v, want that of %s alone", got, version)
	}
}

func (r *runtimeRun) containers() []string {
	r.t.Helper()
	out, err := r.row.list(r.host)
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Fields(out)
}
