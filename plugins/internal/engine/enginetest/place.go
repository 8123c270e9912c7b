package enginetest

import (
	"context"
	"fmt"
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/teal-deploy/teal/plugins"
)

// pollEvery is the pause between two looks at something that is to come.
const pollEvery = 50 * time.Millisecond

// A Place is a network, a process tree and mounts of their own, in which an
// engine runs.
type Place struct {
	Dir    string // its own folder, at the same path inside and outside
	cmd    *exec.Cmd
	ended  <-chan struct{}
	pid    int    // of the first process, in our numbering
	cgroup string // name of the control group at the top of each hierarchy
}

// newPlace runs cmd, made of the new place's folder and control group, in it.
func newPlace(name string, command func(dir, cgroup string) []string) (*Place, error) {
	dir, err := os.MkdirTemp("", name)
	if err != nil {
		return nil, err
	}
	p := &Place{Dir: dir, cgroup: filepath.Base(dir)}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // another user shall see the socket
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	args := command(dir, p.cgroup)
	p.cmd = exec.CommandContext(context.Background(), args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.ended, err = start(p.cmd)
	return p, err
}

// await waits until ready returns no error. When that takes too long, it
// closes the place and returns what was written to its log.
func (p *Place) await(ready func() error) error {
	var err error
	for range 200 {
		if p.pid, err = child(p.cmd.Process.Pid); err == nil {
			if err = ready(); err == nil {
				return nil
			}
		}
		<-time.After(pollEvery)
	}
	said, _ := os.ReadFile(filepath.Join(p.Dir, "log"))
	p.Close()
	return fmt.Errorf("%w: %s", err, said)
}

// Enter returns a command that runs in the place.
func (p *Place) Enter(args ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(p.pid), "--net", "--mount", "--pid", "--cgroup", "--"}, args...)
}

// Close kills everything in the place, and removes its folder.
func (p *Place) Close() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	for range 40 {
		if p.removeGroups() && os.RemoveAll(p.Dir) == nil {
			return
		}
		<-time.After(pollEvery)
	}
}

// removeGroups removes the control groups that the containers leave behind.
func (p *Place) removeGroups() bool {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + p.cgroup)
	if _, err := os.Stat("/sys/fs/cgroup/" + p.cgroup); err == nil {
		tops = append(tops, "/sys/fs/cgroup/"+p.cgroup)
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

// child returns the only child of a process.
func child(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// dial makes a connection in the network of the place. Sockets are those that
// its processes see.
func (p *Place) dial(ctx context.Context, h plugins.Host, network, address string) (net.Conn, error) {
	if network == "unix" {
		return h.DialContext(ctx, network, fmt.Sprintf("/proc/%d/root%s", p.pid, address))
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in another namespace
		if err := p.enterNetwork(); err != nil {
			done <- result{err: err}
			return
		}
		conn, err := h.DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func (p *Place) enterNetwork() error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", p.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Setns(fd, unix.CLONE_NEWNET)
}
