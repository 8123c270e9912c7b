//go:build linux

package lab_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
)

// changed is how large the layer is by which the images of two releases differ.
const changed = 300_000

// buildImages makes an image for each name on the first host, all of them the
// shop with a layer of their own, and returns their archives on this machine.
// The host keeps none of them.
func (f *fleet) buildImages(names ...string) map[string]string {
	f.t.Helper()
	dir, archives := f.t.TempDir(), map[string]string{}
	for _, name := range names {
		archives[name] = filepath.Join(dir, name+".tar")
		f.buildImage(name)
		f.docker("save", "--output", archives[name], name)
	}
	for _, name := range append(names, f.Registry().String()+"/shop:1") {
		f.docker("image", "rm", "--force", name)
	}
	f.docker("image", "prune", "--force")
	return archives
}

func (f *fleet) buildImage(name string) {
	f.t.Helper()
	dir := f.t.TempDir()
	layer := make([]byte, changed)
	_, _ = rand.Read(layer)
	file := "FROM " + f.Registry().String() + "/shop:1\nCOPY layer /layer\nLABEL release=" + name + "\n"
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "layer"), layer, 0o600),
		os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o600),
	); err != nil {
		f.t.Fatal(err)
	}
	f.docker("build", "--quiet", "--tag", name, dir)
}

// docker runs docker for the engine of the first host.
func (f *fleet) docker(args ...string) {
	f.t.Helper()
	if _, err := f.Docker(f.t.Context(), f.Host(1), args...); err != nil {
		f.t.Fatal(err)
	}
}

// sent returns how many bytes of the image were sent to the only host of a
// run; -1: it had the image.
func sent(e ended) float64 {
	said := regexp.MustCompile(`([0-9.]+) (bytes?|kB|MB) sent$`)
	for _, ev := range e.events {
		if m := said.FindStringSubmatch(ev.Text); m != nil && ev.Step == "image" {
			n, _ := strconv.ParseFloat(m[1], 64)
			return n * map[string]float64{"byte": 1, "bytes": 1, "kB": 1e3, "MB": 1e6}[m[2]]
		}
	}
	return -1
}

func TestUploadNeedsNoRegistry(t *testing.T) {
	t.Parallel()
	f := newFleet(t, lab.Config{Hosts: 2, Engines: []string{lab.Docker, lab.RootlessPodman}}, quick)
	for _, version := range []string{"1", "2", "3"} {
		f.publish(version, "")
	}
	archives := f.buildImages("shop-1", "shop-2")
	text, err := os.ReadFile(f.app)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("each", func(t *testing.T) {
		for i, engine := range []string{lab.Docker, lab.Podman} {
			t.Run(engine, func(t *testing.T) {
				t.Parallel()
				own := *f
				own.t, own.state = t, t.TempDir()
				(&uploadRun{fleet: &own, host: f.Host(i + 1), engine: engine, text: string(text)}).test(archives)
			})
		}
	})
	// What is built by the operator's own engine needs no archive.
	f.docker("pull", "--quiet", f.Registry().String()+"/shop:1")
	f.buildImage("shop-3")
	r := &uploadRun{fleet: f, host: f.Host(2), engine: lab.Podman, text: string(text)}
	r.env = []string{"DOCKER_HOST=unix:///proc/" + strconv.Itoa(f.Host(1).PID()) + "/root/run/docker.sock"}
	e := r.ship("3", "", "--detach")
	if n := sent(e); n < changed || n > 2*changed {
		t.Errorf("%.0f bytes were sent of the operator's engine, the new layer has %d", n, changed)
	}
}

// An uploadRun is a host that gets its images through its SSH connection.
type uploadRun struct {
	*fleet
	host   *lab.Host
	engine string
	text   string // of the app file that all begin with
}

func (r *uploadRun) test(archives map[string]string) {
	whole := sent(r.ship("1", archives["shop-1"]))
	s := r.stress(light(), 5*time.Minute, func(c *load.Config) {
		c.Hosts = slices.DeleteFunc(c.Hosts, func(h load.Host) bool { return h.Name != r.host.Name })
	})
	next := r.ship("2", archives["shop-2"])
	s.switched(next)
	if part := sent(next); whole < 5*changed || part < changed || part > 2*changed {
		r.t.Errorf("%.0f bytes were sent for a layer of %d, and %.0f for the whole image", part, changed, whole)
	}
	r.must(r.run(nil, "plan", "--version", "2")) // nothing to do
	back := r.must(r.run(nil, "rollback"))
	s.switched(back)
	if n := sent(back); n >= 0 || r.serves(r.host) != "1" {
		r.t.Errorf("%.0f bytes were sent to go back, and %s serves", n, r.serves(r.host))
	}
	s.end(r.t)
}

// ship deploys a release with the image in an archive, or with that of the
// operator's engine.
func (r *uploadRun) ship(version, archive string, args ...string) ended {
	r.t.Helper()
	text := r.text
	for _, change := range []func(string) string{
		lab.Set("hosts", `"`+r.host.Name+`"`), lab.Set("runtime", `"`+r.engine+`"`), lab.Set("code.ref", `"v`+version+`"`),
		lab.Set("image.name", `"shop-`+version+`"`), lab.Set("image.pull", `"upload"`),
	} {
		text = change(text)
	}
	if archive != "" {
		text = lab.Set("image.archive", `"`+archive+`"`)(text)
	}
	r.app = filepath.Join(r.t.TempDir(), "teal.toml")
	if err := os.WriteFile(r.app, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	e := r.must(r.run(nil, append([]string{"deploy", "--version", version}, args...)...))
	if got := r.serves(r.host); got != version {
		r.t.Errorf("%s serves, want %s", got, version)
	}
	return e
}
