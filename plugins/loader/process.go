package loader

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"

	"github.com/teal-deploy/teal/plugins/internal/fault"
)

// A process runs a plugin's program for go-plugin.
type process struct {
	cmd    *exec.Cmd
	keeper *keeper
	stdout head
	stderr io.ReadCloser
	id     atomic.Int64
	ended  func()        // tells the keeper
	exited chan struct{} // closed when the program has ended
	told   atomic.Bool   // to end, by teal
	tail   fault.Tail
}

var _ runner.Runner = (*process)(nil)

func newProcess(path string, argv, env []string, k *keeper) *process {
	return &process{
		cmd:    &exec.Cmd{Path: path, Args: argv, Env: env, SysProcAttr: attributes()},
		keeper: k,
		exited: make(chan struct{}),
	}
}

// prepare adds what go-plugin wants in the environment and makes the pipes.
func (p *process) prepare(env []string) (err error) {
	p.cmd.Env = append(p.cmd.Env, env...)
	if p.stdout.ReadCloser, err = p.cmd.StdoutPipe(); err != nil {
		return err
	}
	p.stderr, err = p.cmd.StderrPipe()
	return err
}

// A head keeps the beginning of what is read through it.
type head struct {
	io.ReadCloser

	mu   sync.Mutex
	kept []byte
}

const headSize = 80

func (h *head) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, p[:min(n, headSize-len(h.kept))]...)
	return n, err
}

// line returns the first line, as far as it was kept, without space around it.
func (h *head) line() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	first, _, _ := strings.Cut(strings.TrimSpace(string(h.kept)), "\n")
	return strings.TrimSpace(first)
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
			p.ended = p.keeper.started(p.pid())
		} else {
			err = fault.NotStarted(p.cmd.Path, err)
		}
		started <- err
		if err == nil {
			<-p.exited
		}
	}()
	return <-started
}

// Wait is called by go-plugin once, when both pipes have been read to the end.
// What the program has left of its group ends with it.
func (p *process) Wait(context.Context) error {
	defer close(p.exited)
	err := p.cmd.Wait()
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	p.ended()
	return err
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

// how says how the program ended, "" when it takes too long for it: it may be
// alive.
func (p *process) how() string {
	limit := time.NewTimer(lastWords)
	defer limit.Stop()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.String()
	case <-limit.C:
		return ""
	}
}

// died is the error of a call to a program that has broken the connection.
func (p *process) died(name string) error {
	what := "was ended in the middle of a call"
	if !p.told.Load() {
		what = "hung up"
		if how := p.how(); how != "" {
			what = "died (" + how + ")"
		}
	}
	return &fault.Error{Plugin: name, What: what, Said: p.tail.String()}
}

func (p *process) Stdout() io.ReadCloser { return &p.stdout }
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
