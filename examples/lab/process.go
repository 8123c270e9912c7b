//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is process 1 of a host or of the hub, as the machine sees it. The
// start time makes it safe to use after the number has been given away again.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // ticks since the machine's boot

	line *os.File // the writing end of its order; nil when it needs none to live
}

// hostNamespaces are those that a host does not share with the machine; the
// control groups follow in join.
const hostNamespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
	syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// start starts process 1 of new namespaces. It waits for its order, so that
// the caller can give it a network and control groups before.
func start(ctx context.Context, namespaces uintptr, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	// A host ends when its lab says so, not with the ctx of the call.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, argJoin)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start namespaces: %w", err), w.Close())
	}
	p := &process{PID: cmd.Process.Pid, line: w}
	go func() { _ = cmd.Wait() }() // how it ended is in its log
	s, err := statIn("/proc", p.PID)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	p.Start = s.began
	return p, nil
}

// send gives process 1 its order.
func (p *process) send(o *order) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := p.line.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("send the order: %w", err)
	}
	if !o.Detached {
		return nil
	}
	defer func() { p.line = nil }()
	return p.line.Close()
}

// kill ends process 1 and with it, by the rules of pid namespaces, every
// process of the host, and waits for that.
func (p *process) kill(ctx context.Context) error {
	if p == nil || p.PID == 0 {
		return nil
	}
	if p.line != nil {
		defer func() { _ = p.line.Close() }()
	}
	for p.alive() {
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d: %w", p.PID, err)
		}
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("wait for the end of process %d: %w", p.PID, context.Cause(ctx))
		}
	}
	return nil
}

// alive reports whether the process has not ended.
func (p *process) alive() bool {
	if p == nil || p.PID == 0 {
		return false
	}
	s, err := statIn("/proc", p.PID)
	return err == nil && s.began == p.Start && !s.ended()
}

// A stat is what the kernel says of a process.
type stat struct {
	state   string // of its first thread, a letter: R, S, D, T, Z, X
	parent  int
	threads int
	began   uint64 // ticks since the machine's boot
}

// ended reports whether nothing of the process runs any more. Its first thread
// ends before the others do, and for a moment when another one of them starts
// a program in its place.
func (s stat) ended() bool { return s.state == "X" || s.state == "Z" && s.threads <= 1 }

// statIn reads it from a mounted /proc, which says whose counting the number is
// of.
func statIn(proc string, pid int) (stat, error) {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const parentField, threadsField, startField = 1, 17, 19 // 4, 20 and 22 of proc(5), counted after the name
	if len(fields) <= startField {
		return stat{}, fmt.Errorf("read the state of process %d: %q", pid, b)
	}
	s := stat{state: fields[0]}
	if s.parent, err = strconv.Atoi(fields[parentField]); err != nil {
		return stat{}, err
	}
	if s.threads, err = strconv.Atoi(fields[threadsField]); err != nil {
		return stat{}, err
	}
	s.began, err = strconv.ParseUint(fields[startField], 10, 64)
	return s, err
}
