// Package enginetest runs a Docker Engine for tests, away from the machine's
// own: in network, mount and process namespaces that it makes, with its data
// below a temporary folder. Killing one process ends all of it, containers
// included. It needs root, dockerd, busybox and the docker client.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// pollEvery is the pause between two looks at something that is to come.
const pollEvery = 50 * time.Millisecond

// Image is an image with the tools of busybox, among them sh and httpd, that
// every engine has from the start.
const Image = "teal.test/busybox:1"

// An Engine is a running engine.
type Engine struct {
	Dir    string // the engine's own folder
	Socket string // below Dir
	cmd    *exec.Cmd
	ended  <-chan struct{}
	pid    int // of the daemon, in our numbering
	cgroup string
}

// Require returns the engine that start made, or skips the test when there
// cannot be one; where CI is "true" it fails instead.
func Require(tb testing.TB, start func() (*Engine, error)) *Engine {
	tb.Helper()
	if why := missing(); why != "" {
		if os.Getenv("CI") == "true" {
			tb.Fatal(why)
		}
		tb.Skip(why)
	}
	e, err := start()
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func missing() string {
	if os.Getuid() != 0 {
		return "a Docker Engine of the test's own needs root"
	}
	for _, name := range []string{"dockerd", "docker", "busybox", "unshare", "nsenter", "ip", "tar"} {
		if _, err := exec.LookPath(name); err != nil {
			return err.Error()
		}
	}
	return ""
}

// daemon starts the engine: $1 is its folder, $2 the cgroup of its containers.
const daemon = `set -e
ip link set lo up
mount -t tmpfs tmpfs /run
echo '{}' >"$1/daemon.json"
exec dockerd --config-file "$1/daemon.json" --data-root "$1/data" --exec-root /run/docker \
	--pidfile /run/docker.pid -H "unix://$1/docker.sock" --group root --cgroup-parent "$2"`

// Start starts an engine and imports Image.
func Start() (*Engine, error) {
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		return nil, err
	}
	e := &Engine{Dir: dir, Socket: filepath.Join(dir, "docker.sock"), cgroup: filepath.Base(dir)}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // another user shall see the socket
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	e.cmd = exec.CommandContext(context.Background(), "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", daemon, "sh", dir, "/"+e.cgroup)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if e.ended, err = start(e.cmd); err != nil {
		return nil, err
	}
	if err := e.await(); err != nil {
		said, _ := os.ReadFile(log.Name())
		e.Close()
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	return e, nil
}

// start starts a command that dies with the test, also when the test is
// killed. The kernel binds that to the thread that starts it, which therefore
// stays for as long. The channel is closed when the command has ended.
func start(cmd *exec.Cmd) (<-chan struct{}, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return ended, <-started
}

func (e *Engine) await() error {
	for range 200 {
		if _, err := e.Docker(nil, "version"); err == nil {
			if e.pid, err = child(e.cmd.Process.Pid); err != nil {
				return err
			}
			return e.importImage()
		}
		<-time.After(pollEvery)
	}
	return errors.New("dockerd does not answer")
}

// child returns the only child of a process.
func child(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func (e *Engine) importImage() error {
	root := filepath.Join(e.Dir, "root", "bin")
	if err := os.MkdirAll(root, 0o755); err != nil { //nolint:gosec // part of an image
		return err
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "busybox"), program, 0o755); err != nil { //nolint:gosec // a program
		return err
	}
	for _, name := range []string{"sh", "cat", "echo", "env", "sleep", "httpd", "kill", "ls", "touch", "ps", "true", "false", "wc", "head", "yes"} {
		if err := os.Symlink("busybox", filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	var tar bytes.Buffer
	cmd := exec.CommandContext(context.Background(), "tar", "-C", filepath.Dir(root), "-c", ".")
	cmd.Stdout = &tar
	if err := cmd.Run(); err != nil {
		return err
	}
	_, err = e.Docker(&tar, "import", "--change", "LABEL of.image=yes", "-", Image)
	return err
}

// Docker runs the docker client against the engine and returns what it wrote
// to standard output.
func (e *Engine) Docker(stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(context.Background(), "docker", append([]string{"-H", "unix://" + e.Socket}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+filepath.Join(e.Dir, "config"))
	cmd.Stdin = stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("docker %v: %w: %s", args, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), err
}

// Enter returns a command that runs where the engine runs.
func (e *Engine) Enter(args ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(e.pid), "--net", "--mount", "--pid", "--"}, args...)
}

// PathWithout returns a PATH in which a program is not found.
func (e *Engine) PathWithout(tb testing.TB, names ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	for _, name := range []string{"sh", "id", "test", "sed", "env", "curl", "docker", "sudo", "sleep", "cat", "kill"} {
		path, err := exec.LookPath(name)
		if err != nil || slices.Contains(names, name) {
			continue
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// Close kills the engine and everything in it, and removes its folder.
func (e *Engine) Close() {
	_ = e.cmd.Process.Kill()
	<-e.ended
	for range 40 {
		if e.removeGroups() && os.RemoveAll(e.Dir) == nil {
			return
		}
		<-time.After(pollEvery)
	}
}

// removeGroups removes the control groups that the containers leave behind.
func (e *Engine) removeGroups() bool {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + e.cgroup)
	if _, err := os.Stat("/sys/fs/cgroup/" + e.cgroup); err == nil {
		tops = append(tops, "/sys/fs/cgroup/"+e.cgroup)
	}
	gone := true
	for _, top := range tops {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, dir := range dirs {
			gone = unix.Rmdir(dir) == nil && gone
		}
	}
	return gone
}

// Host returns the engine's surroundings as a host, seen by root.
func (e *Engine) Host(name string) plugins.Host {
	return &Host{Host: plugintest.Local(name), Engine: e}
}

// A Host runs commands and makes connections where the engine runs.
type Host struct {
	plugins.Host
	Engine  *Engine
	User    string // runs commands without become; empty: root
	NoUnix  bool   // sockets are not forwarded, as some SSH servers have it
	Path    string // PATH of commands; empty: as it is
	NoSudo  bool   // become is not set up: it means the login user
	Forward bool   // sockets are forwarded though User is not root
	Dialled func(network, address string)
}

// Run implements plugins.Host.
func (h *Host) Run(ctx context.Context, cmd *plugins.Command) error {
	inner := *cmd
	args := cmd.Args
	if h.Path != "" {
		args = append([]string{"/usr/bin/env", "PATH=" + h.Path}, args...)
	}
	if h.User != "" && (!cmd.Become || h.NoSudo) {
		args = append([]string{"/usr/bin/setpriv", "--reuid", h.User, "--regid", "nogroup", "--clear-groups"}, args...)
	}
	inner.Args = h.Engine.Enter(args...)
	err := h.Host.Run(ctx, &inner)
	if exit, ok := errors.AsType[*plugins.ExitError](err); ok {
		exit.Args = cmd.Args
	}
	return err
}

// DialContext implements plugins.Host.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if h.Dialled != nil {
		h.Dialled(network, address)
	}
	if network == "unix" && (h.NoUnix || h.User != "" && !h.Forward) {
		return nil, &plugins.Error{Op: "dial " + address, Host: h.String(), Kind: plugins.Denied, Err: errors.New("open failed")}
	}
	if network == "unix" {
		return h.Host.DialContext(ctx, network, address)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in another namespace
		if err := h.Engine.enterNetwork(); err != nil {
			done <- result{err: err}
			return
		}
		conn, err := h.Host.DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func (e *Engine) enterNetwork() error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", e.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Setns(fd, unix.CLONE_NEWNET)
}
