//go:build linux

package lab_test

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
	"github.com/teal-deploy/teal/examples/shop"
)

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
	rows := runtimeRows()
	c := lab.Config{Hosts: len(rows), Engine: lab.Docker}
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
				own.t, own.on, own.state = t, row, t.TempDir()
				r := &runtimeRun{fleet: &own, host: f.Host(i + 1), text: string(text), clients: clients}
				r.test()
			})
		}
	})
}

// A runtimeRun is a row at work.
type runtimeRun struct {
	*fleet
	host *lab.Host
	text string // of the app file that all rows begin with
	dir  string // of its own

	clients map[load.Class]int
}

func (r *runtimeRun) test() {
	r.dir = r.t.TempDir()
	if r.on.prepare != nil {
		r.on.prepare(r.t, filepath.Join(r.dir, ".teal", "plugins"))
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
	r.eventually(25*time.Second, "blue is gone", func() bool { return len(r.containers(r.host)) == 1 })
	r.left("3")
	if e := r.must(r.run(nil, "deploy", "--version", "3")); e.result.Outcome != "nothing to do" {
		r.t.Errorf("the next deployment ended with %q, want nothing to do", e.result.Outcome)
	}
	s.end(r.t)

	if r.on.returns {
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
		lab.Set("hosts", `"`+r.host.Name+`"`), lab.Set("code.ref", `"v`+version+`"`), lab.Set("runtime", `"`+r.on.runtime+`"`),
	}, r.on.changes...)
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
	if got := r.containers(r.host); len(got) != 1 {
		r.t.Errorf("containers are %v, want that of %s alone", got, version)
	}
}
