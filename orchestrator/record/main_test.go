package record

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// TestMain is also the program of the stand-in containers: see container.
func TestMain(m *testing.M) {
	if os.Getenv("RECORD_TEST_LISTEN") != "" {
		serve()
		return
	}
	if dir := os.Getenv("RECORD_TEST_HOLD"); dir != "" {
		holdLock(dir)
		return
	}
	// The tests wait most of the time: many at once cost little.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// serve listens, says on which port, and keeps connections open until SIGTERM.
func serve() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	if os.Getenv("RECORD_TEST_LISTEN") == "defers" {
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				if err := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, 30); err != nil {
					panic(err)
				}
			})
		}
		if err != nil {
			panic(err)
		}
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}

// holdLock is a controller that takes a lock and does nothing more.
func holdLock(dir string) {
	_, err := (Store{Root: dir}).Acquire(context.Background(), plugintest.Local("here"), "shop", owner("other"))
	fmt.Println("acquired", err)
	select {}
}

// A shell is a way in which a host may be equipped.
type shell struct {
	name string
	path string // of the programs; "": as they are here
}

// shells are the hosts that every test of a script runs on.
func shells(t *testing.T) []shell {
	t.Helper()
	return []shell{{name: "dash"}, {"dash without flock", withoutFlock(t)}, {"busybox", onlyBusybox(t)}}
}

func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// onlyBusybox makes a folder in which every program is busybox.
func onlyBusybox(t *testing.T) string {
	t.Helper()
	busybox := need(t, "busybox")
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for applet := range strings.FieldsSeq(string(out)) {
		if applet != "flock" {
			symlink(t, busybox, filepath.Join(dir, applet))
		}
	}
	return dir
}

// withoutFlock makes a folder with the programs of this machine but flock.
func withoutFlock(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for program := range strings.FieldsSeq("sh cat cp chmod chown cut date dd env head id ln mkdir mv readlink nohup rm sed setsid sleep sync tail timeout touch tr true wc grep") {
		if path, err := exec.LookPath(program); err == nil {
			symlink(t, path, filepath.Join(dir, program))
		}
	}
	return dir
}

func symlink(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Symlink(from, to); err != nil {
		t.Fatal(err)
	}
}

// A testHost is the machine itself, equipped as a shell says, where commands
// have an ancestor named sshd: a lock that ends its connection ends that one.
// They inherit a descriptor that nobody may keep, as behind a wrapping shell.
type testHost struct {
	plugins.Host
	shell  shell
	sshd   string
	muted  chan struct{} // closed: input no longer arrives
	closed chan struct{}
	deaf   bool     // commands go on when their context ends, as on a host that cannot be reached
	login  []string // goes before every command that does not become
	become bool     // become leads to root
	mu     sync.Mutex
	runs   int   // commands that were run
	failed error // how the last command ended that did not end well
}

func newHost(t *testing.T, sh shell) *testHost {
	t.Helper()
	sshd := filepath.Join(t.TempDir(), "sshd")
	symlink(t, need(t, "sh"), sshd)
	return &testHost{
		Host: plugintest.Local("web1"), shell: sh, sshd: sshd,
		muted: make(chan struct{}), closed: make(chan struct{}),
	}
}

func (h *testHost) Close() error {
	close(h.closed)
	return nil
}

func (h *testHost) Run(ctx context.Context, cmd *plugins.Command) error {
	c := *cmd
	program := c.Args[0]
	c.Env = map[string]string{"PATH": os.Getenv("PATH")}
	if h.shell.path != "" {
		c.Env["PATH"] = h.shell.path
		program = filepath.Join(h.shell.path, program)
	}
	c.Args = append([]string{program}, c.Args[1:]...)
	if !cmd.Become || !h.become {
		c.Args = append(slices.Clone(h.login), c.Args...)
	}
	c.Args = append([]string{h.sshd, "-c", `exec 4>&2; "$@"; exit $?`, "sshd"}, c.Args...)
	if c.Stdin != nil {
		c.Stdin = &mutable{c.Stdin, h.muted}
	}
	if h.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	err := h.Host.Run(ctx, &c)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runs++
	if err != nil {
		h.failed = err
	}
	return err
}

// lastFailure returns how the last command ended that did not end well.
func (h *testHost) lastFailure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// mutable is a reader from which nothing comes once muted is closed.
type mutable struct {
	io.Reader
	muted chan struct{}
}

func (m *mutable) Read(p []byte) (int, error) {
	select {
	case <-m.muted:
		time.Sleep(6 * time.Second) // longer than any silence here
		return 0, io.EOF
	default:
		return m.Reader.Read(p)
	}
}

func owner(run string) Owner {
	return Owner{By: "ann@desk", PID: 42, Run: run, Command: "deploy", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// processes returns those that have one of args as an argument, except the
// stand-ins for sshd.
func processes(t *testing.T, args []string) []int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range all {
		cmdline, _ := os.ReadFile(path) // one that has ended meanwhile has none
		words := strings.Split(string(cmdline), "\x00")
		if filepath.Base(words[0]) == "sshd" || !slices.ContainsFunc(words, func(w string) bool { return slices.Contains(args, w) }) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// kill kills the processes that have one of args as an argument, as a crash
// would, and waits until they are gone.
func (f *fixture) kill(args ...string) {
	f.Helper()
	for _, pid := range processes(f.T, args) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			f.Fatal(err)
		}
	}
	f.eventually("the processes have ended", func() bool { return len(processes(f.T, args)) == 0 })
}

// orders returns the order files on the host.
func (f *fixture) orders() []string {
	f.Helper()
	orders, err := filepath.Glob(filepath.Join(globSafe(f.store.Dir(f.app)), "pending", "*", "order"))
	f.must(err)
	return orders
}

// A fixture is a host with a store and a proxy: the file routed, whose content
// is the slot that it routes to.
type fixture struct {
	*testing.T
	store  Store
	host   *testHost
	app    string
	routed string
}

func newFixture(t *testing.T, sh shell) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{
		T: t, host: newHost(t, sh), app: "shop", routed: filepath.Join(dir, "it's routed"),
		store: Store{Root: filepath.Join(dir, "it's \"the\nroot\"")},
	}
	f.route(proxy.Blue)
	t.Cleanup(f.settle)
	return f
}

// settle cancels what is still to be done and waits for the processes.
func (f *fixture) settle() {
	orders := f.orders()
	for _, o := range orders {
		_ = os.Symlink("cancel", filepath.Join(filepath.Dir(o), "decision"))
	}
	f.eventually("all teardown processes have ended", func() bool { return len(processes(f.T, orders)) == 0 })
}

func globSafe(s string) string {
	return strings.NewReplacer(`\`, `\\`, `[`, `\[`, `*`, `\*`, `?`, `\?`).Replace(s)
}

func (f *fixture) route(s proxy.Slot) { write(f.T, f.routed, string(s)) }

func (f *fixture) acquire() *Lock {
	f.Helper()
	l, err := f.store.Acquire(f.Context(), f.host, f.app, owner("r1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = l.Release(context.Background()) })
	return l
}

func (f *fixture) observe() Observation {
	f.Helper()
	o, err := f.store.Observe(f.Context(), f.host, f.app)
	if err != nil {
		f.Fatal(err)
	}
	return o
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) is(err, target error) {
	f.Helper()
	if !errors.Is(err, target) {
		f.Fatalf("got error %v, want %v", err, target)
	}
}

func (f *fixture) eventually(what string, ok func() bool) {
	f.Helper()
	for range 240 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	f.Fatalf("not within 12 s: %s", what)
}

// teardown is an order to remove c, which has the blue slot.
func (f *fixture) teardown(c *container, delay, maximum time.Duration, successor ...*container) Teardown {
	t := Teardown{
		Release: "2026'r\n1", Slot: proxy.Blue, Delay: delay, Max: maximum,
		Containers:   []Condemned{c.condemned()},
		RoutedScript: `read -r slot <"$1"; [ "$slot" = "$2" ]`, RoutedArgs: []string{f.routed, "blue"},
	}
	for _, s := range successor {
		t.Successor = append(t.Successor, s.condemned())
	}
	return t
}

// A container is a process that listens, with the commands that a runtime
// would give for a real one. Every stop and removal is a line in its log.
type container struct {
	t       *testing.T
	dir     string
	port    uint16
	process *os.Process
	ended   chan struct{}
}

func newContainer(t *testing.T) *container { return newContainerThat(t, "listens") }

// newContainerThat makes one that either listens or defers: then the kernel
// leaves a connection half made until somebody sends something on it.
func newContainerThat(t *testing.T, how string) *container {
	t.Helper()
	c := &container{t: t, dir: filepath.Join(t.TempDir(), "it's\n$(a) container"), ended: make(chan struct{})}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RECORD_TEST_LISTEN="+how)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = fmt.Fscan(out, &c.port)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.process = cmd.Process
	go func() { _ = cmd.Wait(); close(c.ended) }()
	t.Cleanup(func() { _ = c.process.Kill(); <-c.ended })
	write(t, filepath.Join(c.dir, "pid"), strconv.Itoa(c.process.Pid)+"\n")
	return c
}

func (c *container) condemned() Condemned {
	const pid = `p=$(cat "$1/pid" 2>/dev/null) && kill -0 "$p" 2>/dev/null && echo "$p"; exit 0`
	const stop = `echo stop >>"$1/log"; p=$(cat "$1/pid" 2>/dev/null) || exit 0; kill "$p" 2>/dev/null
		while kill -0 "$p" 2>/dev/null; do sleep 0.05; done`
	const remove = `echo remove >>"$1/log"; rm -f "$1/pid"`
	script := func(s string) []string { return []string{"sh", "-c", s, "it's", c.dir} }
	return Condemned{
		ID: filepath.Base(c.dir), Port: c.port,
		Commands: plugins.LocalCommands{PID: script(pid), Stop: script(stop), Remove: script(remove)},
	}
}

func (c *container) dial() net.Conn {
	c.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (c *container) runs() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// log returns what was done to the container, "stop remove" in the end.
func (c *container) log() string {
	data, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	return strings.Join(strings.Fields(string(data)), " ")
}

// goneBetween waits until c is removed, and checks when, counted from start.
// A busy machine gets some seconds more: what is early is wrong, what is late
// may be slow.
func (c *container) goneBetween(start time.Time, from, to time.Duration) {
	c.t.Helper()
	to += 4 * time.Second
	for c.log() != "stop remove" {
		if time.Since(start) > to {
			c.t.Fatalf("after %s: %q, want it removed", to, c.log())
		}
		time.Sleep(20 * time.Millisecond)
	}
	if d := time.Since(start); d < from {
		c.t.Errorf("removed after %s, want not before %s", d, from)
	}
	select {
	case <-c.ended:
	case <-time.After(time.Second):
		c.t.Error("removed, but it runs")
	}
}

// staysFor checks that nothing is done to c for d.
func (c *container) staysFor(d time.Duration) {
	c.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c.log() != "" || !c.runs() {
			c.t.Fatalf("it was to stay, but: %q", c.log())
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// writeProgram writes a script that can be run at once.
func writeProgram(t *testing.T, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock() // a child that has the file open for writing would make it busy
	write(t, path, text)
	syscall.ForkLock.RUnlock()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func ownedBy(info os.FileInfo, uid uint32) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == uid
}
