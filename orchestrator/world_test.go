package orchestrator

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// A world is a few hosts on this machine: each a folder, with the real lock,
// the real state files and the real teardown, a runtime whose containers are
// folders, and a proxy whose routes are files. What is on a host stays there
// when a connection, or teal itself, dies.
type world struct {
	t     *testing.T
	hosts []*fakeHost // servers
	lbs   []*fakeHost // load balancers; none: every server has its own proxy
	app   string      // teal.toml
	req   Request
}

// A fakeHost is a host of a world. It counts the calls that teal makes, and
// watches what must always hold.
type fakeHost struct {
	name, dir string
	balancers []*fakeHost // that lead to it

	mu       sync.Mutex
	calls    []string
	fault    *fault
	refused  bool                     // refuses new connections
	answers  int                      // status of the public listener
	sick     func(id string) bool     // green fails its tests
	ran      []string                 // lines of install
	warns    []string                 // what its runtime warns of
	wrong    []string                 // what did not hold
	told     map[string][]proxy.Share // what its proxy did with each member, in order
	watching bool                     // a release has served: from then on one always does
}

// A fault is what happens at one call.
type fault struct {
	kind    faultKind
	op      string // "": any
	nth     int    // of op, from 1
	always  bool   // from then on
	gone    bool   // the host refuses connections from then on
	seen    int
	happens func() // with kind interrupt: what interrupts
	next    *fault // what happens after it
}

type faultKind string

const (
	failing     faultKind = "fails"
	lostBefore  faultKind = "connection lost before"
	lostAfter   faultKind = "connection lost after"
	stuck       faultKind = "stuck until told to end"
	interrupt   faultKind = "interrupted"
	diesBefore  faultKind = "teal dies before"
	diesAfter   faultKind = "teal dies after"
	unknownDone faultKind = "outcome unknown, done"
	unknownNot  faultKind = "outcome unknown, not done"
	unproven    faultKind = "not proven"
)

const worldApp = `
app = "shop"
hosts = "all"
[image]
name = "shop:${version}"
pull = "never"
[container]
port = 7
stop_grace = "1s"
[install]
run = ["install"]
once = ["migrate"]
restart = true
[test]
within = "10s"
interval = "20ms"
timeout = "1s"
successes = 1
stable = "0s"
checks = [{ exec = ["selftest"] }]
[proxy]
type = "nginx"
verify = { http = "http://shop.example.com/up" }
[drain]
delay = "200ms"
max = "5s"
`

// newWorld makes hosts that nothing was ever deployed to. Pairs of old and new
// are replaced in the app file.
func newWorld(t *testing.T, hosts int, replace ...string) *world {
	t.Helper()
	return newBalancedWorld(t, hosts, 0, replace...)
}

// newBalancedWorld makes servers behind load balancers.
func newBalancedWorld(t *testing.T, hosts, balancers int, replace ...string) *world {
	t.Helper()
	w := &world{t: t, app: worldApp}
	dir := t.TempDir()
	for i := range balancers {
		h := newFakeHost(t, dir, fmt.Sprintf("lb%d", i+1))
		w.lbs = append(w.lbs, h)
		w.req.Balancers = append(w.req.Balancers, inventory.Host{Name: h.name, Address: h.dir})
	}
	for i := range hosts {
		h := newFakeHost(t, dir, fmt.Sprintf("web%d", i+1))
		h.balancers = w.lbs
		w.hosts = append(w.hosts, h)
		vars := map[string]string{"private": fmt.Sprintf("10.0.0.%d", i+1)}
		w.req.Hosts = append(w.req.Hosts, inventory.Host{Name: h.name, Address: h.dir, Vars: vars})
		w.req.Servers = append(w.req.Servers, h.name)
	}
	if balancers > 0 {
		w.app = strings.Replace(w.app, "[proxy]\n", "[proxy]\nhosts = \"lb\"\naddress = \"${private}\"\n", 1)
	}
	w.edit(replace...)
	t.Cleanup(w.settle)
	return w
}

func newFakeHost(t *testing.T, dir, name string) *fakeHost {
	t.Helper()
	h := &fakeHost{name: name, dir: filepath.Join(dir, name), answers: http.StatusOK}
	for _, sub := range []string{"containers", "proxy", "root"} {
		if err := os.MkdirAll(filepath.Join(h.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/bin/sh", filepath.Join(h.dir, "sshd")); err != nil {
		t.Fatal(err)
	}
	return h
}

// all are the servers and the load balancers.
func (w *world) all() []*fakeHost { return slices.Concat(w.hosts, w.lbs) }

func (w *world) host(name string) *fakeHost {
	all := w.all()
	return all[slices.IndexFunc(all, func(h *fakeHost) bool { return h.name == name })]
}

// copy makes a world whose hosts are as they are here.
func (w *world) copy(t *testing.T) *world {
	t.Helper()
	next := newBalancedWorld(t, len(w.hosts), len(w.lbs))
	next.app = w.app
	next.edit()
	for i, h := range w.all() {
		to := next.all()[i]
		for _, sub := range []string{"containers", "proxy", "root"} {
			if err := os.RemoveAll(filepath.Join(to.dir, sub)); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(to.dir, sub), os.DirFS(filepath.Join(h.dir, sub))); err != nil {
				t.Fatal(err)
			}
		}
		to.watching = h.watching
	}
	return next
}

// edit changes the app file.
func (w *world) edit(replace ...string) {
	w.t.Helper()
	w.app = strings.NewReplacer(replace...).Replace(w.app)
	file, err := spec.Parse(filepath.Join(filepath.Dir(w.hosts[0].dir), "teal.toml"), []byte(w.app), spec.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.req.File = file
}

// settle ends the teardowns that the test has left.
func (w *world) settle() {
	for _, h := range w.hosts {
		orders, _ := filepath.Glob(filepath.Join(h.dir, "root", "shop", "pending", "*", "order"))
		for _, o := range orders {
			_ = os.Symlink("cancel", filepath.Join(filepath.Dir(o), "decision"))
		}
	}
}

// A teal is one process of teal: what it has under way ends with it.
type teal struct {
	*Deployer
	w      *world
	dead   chan struct{}
	once   sync.Once
	events []Event // read when it has ended
}

func (w *world) teal() *teal {
	p := &teal{w: w, dead: make(chan struct{})}
	p.Deployer = &Deployer{
		Dial:    p.dial,
		Runtime: func(context.Context, spec.App) (plugins.Runtime, error) { return fakeRuntime{}, nil },
		Proxy:   func(string) (proxy.Proxy, error) { return fakeProxy{w}, nil },
		Store:   record.Store{Root: hostDir + "/root"},
		Emit:    func(e Event) { p.events = append(p.events, e) },
		By:      "ann@desk", PID: 42,
		undoing: 5 * time.Second, switching: 5 * time.Second,
	}
	return p
}

func (p *teal) die() { p.once.Do(func() { close(p.dead) }) }

// deploy runs a deployment of version to its end, or until teal dies.
func (p *teal) deploy(ctx context.Context, version string, change ...func(*Request)) Result {
	req := p.w.req
	req.Version = version
	for _, c := range change {
		c(&req)
	}
	return p.wait(func() Result { return p.Deploy(ctx, req) })
}

// rollback goes back to release, "" for the one before.
func (w *world) rollback(release string, change ...func(*Request)) (Result, *teal) {
	p, req := w.teal(), w.req
	for _, c := range change {
		c(&req)
	}
	return p.Rollback(context.Background(), req, release), p
}

// detached does not watch green after the switch.
func detached(r *Request) { r.Detach = true }

// outcomeDied is the outcome of a teal that died.
const outcomeDied = "died"

func (p *teal) wait(run func() Result) Result {
	ended := make(chan Result, 1)
	go func() { ended <- run() }()
	select {
	case r := <-ended:
		return r
	case <-p.dead:
		return Result{Outcome: outcomeDied}
	}
}

// must deploys version with a new teal, and waits until the former release is
// gone.
func (w *world) must(version string) Result {
	w.t.Helper()
	var res Result
	// A host frees the lock of a teal that died within a moment.
	w.eventually("the lock is free", func() bool {
		res = w.teal().deploy(context.Background(), version, detached)
		return res.Outcome != OutcomeLocked
	})
	if res.Outcome != OutcomeDone {
		w.t.Fatalf("the deployment of %s ended with %q: %s", version, res.Outcome, explain(res))
	}
	w.quiet()
	return res
}

// quiet waits until all teardowns are done.
func (w *world) quiet() {
	w.t.Helper()
	w.eventually("all teardowns are done", func() bool {
		for _, h := range w.hosts { // load balancers have none
			if orders, _ := filepath.Glob(filepath.Join(h.dir, "root", "shop", "pending", "*", "order")); len(orders) > 0 {
				return false
			}
		}
		return true
	})
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(60 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within a minute: %s", what)
		}
	}
}

func explain(res Result) string {
	text := fmt.Sprintf("%v", res.Err)
	for _, h := range res.Hosts {
		text += fmt.Sprintf("\n%s: %s, serves %s from %s, step %s, err %v", h.Host, h.State, h.Version, h.Slot, h.Step, h.Err)
	}
	return text
}
