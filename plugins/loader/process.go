package loader

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
)

// A process runs a plugin's program for go-plugin.
type process struct {
	cmd    *exec.Cmd
	stdout io.ReadCloser
	stderr io.ReadCloser
	id     atomic.Int64
	exited chan struct{}
	tail   tail
}

var _ runner.Runner = (*process)(nil)

func newProcess(path string, argv, env []string) *process {
	return &process{
		cmd:    &exec.Cmd{Path: path, Args: argv, Env: env, SysProcAttr: attributes()},
		exited: make(chan struct{}),
	}
}

// prepare adds what go-plugin wants in the environment and makes the pipes.
func (p *process) prepare(env []string) (err error) {
	p.cmd.Env = append(p.cmd.Env, env...)
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		return err
	}
	p.stderr, err = p.cmd.StderrPipe()
	return err
}

// Start starts the program from a thread that lives as long as the program
// does: the kernel's promise to end it with its parent is bound to the thread.
func (p *process) Start(context.Context) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		if err == nil {
			p.id.Store(int64(p.cmd.Process.Pid))
		}
		started <- err
		if err == nil {
			<-p.exited
		}
	}()
	return <-started
}

// Wait is called by go-plugin once, when both pipes have been read to the end.
func (p *process) Wait(context.Context) error {
	defer close(p.exited)
	return p.cmd.Wait()
}

// Kill ends the program by force, with all of its group: a child that keeps
// standard error open would keep Wait from ever being called.
func (p *process) Kill(context.Context) error {
	select {
	case <-p.exited: // the number may belong to somebody else by now
		return nil
	default:
	}
	if p.pid() == 0 {
		return nil
	}
	if err := syscall.Kill(-p.pid(), syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// abandon closes the pipes, which a process that the plugin has detached may
// hold open for ever.
func (p *process) abandon() {
	_ = p.stdout.Close()
	_ = p.stderr.Close()
}

func (p *process) pid() int { return int(p.id.Load()) }

// lastWords returns the end of what the program wrote, once it has ended or
// taken too long for it.
func (p *process) lastWords() string {
	limit := time.NewTimer(lastWords)
	defer limit.Stop()
	select {
	case <-p.exited:
	case <-limit.C:
	}
	return p.tail.String()
}

func (p *process) Stdout() io.ReadCloser { return p.stdout }
func (p *process) Stderr() io.ReadCloser { return p.stderr }
func (p *process) Name() string          { return p.cmd.Path }

// ID returns "" before the program runs.
func (p *process) ID() string {
	if pid := p.pid(); pid != 0 {
		return strconv.Itoa(pid)
	}
	return ""
}

// Diagnose has nothing to add: what the program wrote is reported by Start.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost and HostToPlugin change nothing: both see the same files.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin is the other direction of PluginToHost.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
