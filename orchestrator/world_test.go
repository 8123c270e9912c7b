package orchestrator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// A world is a few hosts on this machine: each a folder, with the real lock,
// the real state files and the real teardown, a runtime whose containers are
// folders, and a proxy whose routes are files. What is on a host stays there
// when a connection, or teal itself, dies.
type world struct {
	t     *testing.T
	hosts []*fakeHost
	app   string // teal.toml
	req   Request
}

// A fakeHost is a host of a world. It counts the calls that teal makes, and
// watches what must always hold.
type fakeHost struct {
	name, dir string

	mu       sync.Mutex
	calls    []string
	fault    *fault
	refused  bool                 // refuses new connections
	answers  int                  // status of the public listener
	sick     func(id string) bool // green fails its tests
	ran      []string             // lines of install
	wrong    []string             // what did not hold
	watching bool                 // a release has served: from then on one always does
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
within = "5s"
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
	w := &world{t: t, app: worldApp}
	dir := t.TempDir()
	for i := range hosts {
		h := &fakeHost{name: fmt.Sprintf("web%d", i+1), answers: http.StatusOK}
		h.dir = filepath.Join(dir, h.name)
		for _, sub := range []string{"containers", "proxy", "root"} {
			if err := os.MkdirAll(filepath.Join(h.dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/bin/sh", filepath.Join(h.dir, "sshd")); err != nil {
			t.Fatal(err)
		}
		w.hosts = append(w.hosts, h)
		w.req.Hosts = append(w.req.Hosts, inventory.Host{Name: h.name, Address: h.dir})
	}
	w.edit(replace...)
	t.Cleanup(w.settle)
	return w
}

func (w *world) host(name string) *fakeHost {
	i := slices.IndexFunc(w.hosts, func(h *fakeHost) bool { return h.name == name })
	return w.hosts[i]
}

// copy makes a world whose hosts are as they are here.
func (w *world) copy(t *testing.T) *world {
	t.Helper()
	next := newWorld(t, len(w.hosts))
	next.app = w.app
	next.edit()
	for i, h := range w.hosts {
		for _, sub := range []string{"containers", "proxy", "root"} {
			if err := os.RemoveAll(filepath.Join(next.hosts[i].dir, sub)); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(next.hosts[i].dir, sub), os.DirFS(filepath.Join(h.dir, sub))); err != nil {
				t.Fatal(err)
			}
		}
		next.hosts[i].watching = h.watching
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
		for _, h := range w.hosts {
			if orders, _ := filepath.Glob(filepath.Join(h.dir, "root", "shop", "pending", "*", "order")); len(orders) > 0 {
				return false
			}
		}
		return true
	})
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within 30 s: %s", what)
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

// A fakeConn is a connection of a teal to a host.
type fakeConn struct {
	plugins.Host
	host *fakeHost
	teal *teal
	done chan struct{}
	once sync.Once
}

func (p *teal) dial(ctx context.Context, h inventory.Host) (Connection, error) {
	c := &fakeConn{Host: plugintest.Local(h.Name), host: p.w.host(h.Name), teal: p, done: make(chan struct{})}
	err := c.call(ctx, "connect", func(context.Context) error {
		c.host.mu.Lock()
		defer c.host.mu.Unlock()
		if c.host.refused {
			return &plugins.Error{Op: "connect", Host: h.Name, Kind: plugins.Unavailable, Err: errors.New("connection refused")}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *fakeConn) Done() <-chan struct{} { return c.done }

func (c *fakeConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *fakeConn) errLost() error {
	return &plugins.Error{Host: c.host.name, Kind: plugins.Lost, Err: errors.New("connection reset")}
}

// due returns the fault of this call.
func (h *fakeHost) due(op string) *fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, op)
	f := h.fault
	if f == nil || (f.op != "" && f.op != op) {
		return nil
	}
	if f.seen++; f.seen != f.nth && (!f.always || f.seen < f.nth) {
		return nil
	}
	h.refused = h.refused || f.gone
	return f
}

// heal ends all that ails the host. The teal that died may still be about to
// make a call.
func (h *fakeHost) heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault, h.sick, h.refused, h.answers = nil, nil, false, http.StatusOK
}

// call does an operation on the host, with the fault that is due.
func (c *fakeConn) call(ctx context.Context, op string, do func(context.Context) error) error {
	select {
	case <-c.teal.dead: // it does nothing any more
		select {}
	default:
	}
	f := c.host.due(op)
	defer c.host.look()
	if f == nil {
		return c.finish(ctx, do)
	}
	switch f.kind {
	case failing:
		return errors.New("injected failure")
	case lostBefore:
		_ = c.Close()
	case lostAfter:
		_ = c.finish(ctx, do)
		_ = c.Close()
	case stuck:
		if f.happens != nil {
			f.happens()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
		}
	case interrupt:
		f.happens()
	case diesBefore:
		c.teal.die()
	case diesAfter:
		_ = c.finish(ctx, do)
		c.teal.die()
	case unknownDone, unknownNot:
		if f.kind == unknownDone {
			_ = c.finish(ctx, do)
		}
		return fmt.Errorf("injected: %w", proxy.ErrUnknown)
	}
	return c.finish(ctx, do)
}

// finish does an operation unless the connection or teal has ended. Whatever
// was begun goes on on the host; nobody hears of it.
func (c *fakeConn) finish(ctx context.Context, do func(context.Context) error) error {
	select {
	case <-c.teal.dead:
		select {}
	case <-c.done:
		return c.errLost()
	default:
	}
	ended := make(chan error, 1)
	go func() { ended <- do(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-c.done:
		return c.errLost()
	case <-c.teal.dead:
		select {}
	}
}

// hostDir stands for a host's folder in what is the same on all hosts.
const hostDir = "/host"

// Run runs a command. What has an input has an ancestor named sshd, which a
// host ends whose lock has fallen silent.
func (c *fakeConn) Run(ctx context.Context, cmd *plugins.Command) error {
	run := *cmd
	op := opOf(cmd)
	begun := make(chan struct{})
	if op == "lock" {
		run.Stdout = &firstWrite{w: cmd.Stdout, begun: begun}
	}
	run.Args = nil
	for _, arg := range cmd.Args {
		if rest, ok := strings.CutPrefix(arg, hostDir+"/"); ok {
			arg = filepath.Join(c.host.dir, rest)
		}
		run.Args = append(run.Args, arg)
	}
	if cmd.Stdin != nil {
		run.Args = append([]string{filepath.Join(c.host.dir, "sshd"), "-c", `"$@"; exit $?`, "sshd"}, run.Args...)
	}
	return c.call(ctx, op, func(ctx context.Context) error {
		ended := make(chan struct{})
		defer close(ended)
		if cmd.Stdin != nil {
			run.Stdin = c.input(cmd.Stdin, ended)
		}
		if op != "lock" {
			return c.Host.Run(context.WithoutCancel(ctx), &run)
		}
		return c.hold(ctx, &run, begun)
	})
}

// hold runs the holder of a lock. A fault behind the call means: behind its
// first word, for it ends with the lock only.
func (c *fakeConn) hold(ctx context.Context, run *plugins.Command, begun <-chan struct{}) error {
	result := make(chan error, 1)
	go func() { result <- c.Host.Run(ctx, run) }()
	if f := c.host.current("lock"); f == nil || (f.kind != lostAfter && f.kind != diesAfter) {
		return <-result
	}
	select {
	case err := <-result:
		return err
	case <-begun:
		return nil
	}
}

// current returns the fault if it is happening now.
func (h *fakeHost) current(op string) *fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.fault; f != nil && (f.op == "" || f.op == op) && f.nth == f.seen {
		return f
	}
	return nil
}

// input is standard input, which ends with the connection, with teal, and
// with the command.
func (c *fakeConn) input(stdin io.Reader, ended <-chan struct{}) io.Reader {
	r, w := io.Pipe()
	go func() {
		_, _ = io.Copy(w, stdin)
		_ = w.Close()
	}()
	go func() {
		select {
		case <-c.done:
		case <-c.teal.dead:
		case <-ended:
		}
		_ = w.Close()
	}()
	return r
}

type firstWrite struct {
	w     io.Writer
	begun chan struct{}
	once  sync.Once
}

func (f *firstWrite) Write(p []byte) (int, error) {
	f.once.Do(func() { close(f.begun) })
	return f.w.Write(p)
}

// DialContext connects to the public listener, which answers by what the host
// was told.
func (c *fakeConn) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	var conn net.Conn
	err := c.call(ctx, "dial", func(context.Context) error {
		near, far := net.Pipe()
		conn = near
		go c.host.answer(far)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func (h *fakeHost) answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	h.mu.Lock()
	status := h.answers
	h.mu.Unlock()
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status))
}

// opOf names the operation of package record that a command is.
func opOf(cmd *plugins.Command) string {
	script := strings.Join(cmd.Args, " ")
	for _, known := range [][2]string{
		{`echo "locked`, "lock"},
		{`echo "now `, "observe"},
		{`abandon 74`, "arm"},
		{`true >"$folder/released"`, "let"},
		{`cancel) sync "$folder"`, "cancel"},
		{`history.jsonl`, "append"},
		{`"$dir/$file"`, "write"},
		{`launch()`, "reap"},
	} {
		if strings.Contains(script, known[0]) {
			return known[1]
		}
	}
	return "run"
}
