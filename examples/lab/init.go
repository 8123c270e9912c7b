//go:build linux

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The hidden first arguments by which a program becomes process 1 of a host.
const (
	argJoin = "lab-init-join" // in new namespaces, still in the machine's control groups
	argBoot = "lab-init-boot" // in its own control groups
)

// restartDelay is the pause before a service that ended is started again.
const restartDelay = 200 * time.Millisecond

// self is the running program, also when its file has been removed.
const self = "/proc/self/exe"

// orderFD is where process 1 reads its order. The writing end is in the
// program that made the lab: when it closes, that program is gone.
const orderFD = 3

// An order is everything that process 1 has to know.
type order struct {
	Hostname string
	Detached bool       // go on when the writing end of the order closes
	Cgroups  []string   // cgroup.procs files to join
	Mounts   []cgroupFS // how the host sees its control groups
	Root     *rootFS    // nil: the machine's own root, as the hub has it
	Absent   []string   // folders and files of the machine that are not on the disk, removed once
	Setup    []command  // run once in the life of the disk, before Files
	Files    []file     // written once in the life of the disk
	Boot     []command  // run at every boot, before Services
	Services []service  // started at every boot, in this order
}

// A command runs to its end at a boot of a host.
type command struct {
	Argv  []string
	Stdin string
}

// A file is written once, at the first boot of a host.
type file struct {
	Path  string
	Mode  os.FileMode // 0: 0644
	Owner string      // a user of the host; "": root
	Text  string
}

// A service runs for as long as the host does.
type service struct {
	Name    string
	Argv    []string
	Restart bool // start it again when it ends; else it put itself into the background
}

// Init turns this process into process 1 of a host when args, the arguments
// without the program's name, ask for that; it does not return then. In any
// other case it returns false and has done nothing. Programs that use the
// package call it before anything else.
func Init(args []string) bool {
	if len(args) != 1 || os.Getpid() != 1 {
		return false
	}
	var err error
	switch args[0] {
	case argJoin:
		err = join()
	case argBoot:
		err = boot()
	default:
		return false
	}
	// The end of process 1 is the end of the host; its log keeps the reason.
	fmt.Fprintln(os.Stderr, "lab:", err)
	syscall.Exit(1)
	return true
}

// join enters the host's control groups, makes them the root of what the host
// sees, and starts the program once more. The second start is needed because
// a control group namespace belongs to one thread, and a Go program has many.
func join() error {
	line, err := bufio.NewReader(os.NewFile(orderFD, "order")).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	var o order
	if err := json.Unmarshal([]byte(line), &o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	for _, procs := range o.Cgroups {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return fmt.Errorf("join a control group: %w", err)
		}
	}
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare control groups: %w", err)
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "LAB_ORDER=" + line}
	return syscall.Exec(self, []string{self, argBoot}, env)
}

// boot builds the root file system, starts the services and stays.
func boot() error {
	syscall.CloseOnExec(orderFD)
	var o order
	if err := json.Unmarshal([]byte(os.Getenv("LAB_ORDER")), &o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if err := os.Unsetenv("LAB_ORDER"); err != nil {
		return err
	}
	if o.Root != nil {
		if err := o.Root.enter(o.Mounts); err != nil {
			return err
		}
		if err := syscall.Sethostname([]byte(o.Hostname)); err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
		if err := firstBoot(&o); err != nil {
			return err
		}
	}
	for _, c := range o.Boot {
		if err := c.run(); err != nil {
			return err
		}
	}
	p := newProcesses()
	for _, s := range o.Services {
		go p.supervise(s)
	}
	if !o.Detached {
		go func() {
			_, _ = io.Copy(io.Discard, os.NewFile(orderFD, "order"))
			syscall.Exit(0)
		}()
	}
	return p.reap()
}

func (c *command) run() error {
	cmd := exec.CommandContext(context.Background(), c.Argv[0], c.Argv[1:]...)
	cmd.Stdin = strings.NewReader(c.Stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set up with %s: %w: %s", c.Argv[0], err, out)
	}
	return nil
}

// firstBoot does what is done once in the life of a disk.
func firstBoot(o *order) error {
	const marker = "/var/lib/lab-installed"
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	for _, path := range o.Absent {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	for _, c := range o.Setup {
		if err := c.run(); err != nil {
			return err
		}
	}
	for _, f := range o.Files {
		if err := f.write(); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	return os.WriteFile(marker, nil, 0o600)
}

// processes starts children and waits for them and for every orphan of the
// host, in one place: two waiters would take each other's children away.
type processes struct {
	mu    sync.Mutex
	ended map[int]chan struct{} // by pid
}

func newProcesses() *processes { return &processes{ended: map[int]chan struct{}{}} }

// reap collects ended processes until the host's end.
func (p *processes) reap() error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for range children {
		for {
			// The lock keeps start from being overtaken by its child's end.
			p.mu.Lock()
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if ended, ok := p.ended[pid]; ok {
				close(ended)
				delete(p.ended, pid)
			}
			p.mu.Unlock()
			if pid <= 0 || err != nil {
				break
			}
		}
	}
	return errors.New("no more signals")
}

// supervise starts a service, and starts it again when it has ended.
func (p *processes) supervise(s service) {
	for {
		ended, err := p.start(s)
		if err != nil {
			fmt.Fprintf(os.Stderr, "lab: start %s: %v\n", s.Name, err)
		} else {
			<-ended
		}
		if !s.Restart {
			return
		}
		<-time.After(restartDelay)
	}
}

// start starts a service and returns a channel that is closed when the
// started process has ended.
func (p *processes) start(s service) (<-chan struct{}, error) {
	path, err := exec.LookPath(s.Argv[0])
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	p.mu.Lock()
	defer p.mu.Unlock()
	child, err := os.StartProcess(path, s.Argv, &os.ProcAttr{
		Dir:   "/",
		Files: []*os.File{null, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	p.ended[child.Pid] = ended
	return ended, child.Release()
}

func (f *file) write() error {
	uid, gid, err := owner(f.Owner)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	// What is there may be a link to somewhere else.
	if err := os.Remove(f.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(f.Path, []byte(f.Text), mode); err != nil {
		return err
	}
	return os.Chown(f.Path, uid, gid)
}
