package source

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// A runner is the part of plugins.Host that git needs.
type runner interface {
	String() string
	Run(ctx context.Context, cmd *plugins.Command) error
}

// here runs commands on the operator's machine, by the rules of plugins.Host.
type here struct{}

var _ runner = here{}

func (here) String() string { return "controller" }

// Run ends the command's whole process group with ctx: politely, so that it
// removes what it made, then by force.
func (here) Run(ctx context.Context, cmd *plugins.Command) error {
	c := exec.CommandContext(ctx, cmd.Args[0], cmd.Args[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = 2 * time.Second
	c.Env = os.Environ()
	for name, value := range cmd.Env {
		c.Env = append(c.Env, name+"="+value)
	}
	var stderr bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = cmd.Stdin, cmd.Stdout, &stderr
	err := c.Run()
	if ctx.Err() != nil {
		if c.Process != nil {
			_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // what ignored the polite way
		}
		return context.Cause(ctx)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code := exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		return &plugins.ExitError{Host: here{}.String(), Args: cmd.Args, Code: code, Stderr: stderr.Bytes()}
	}
	if errors.Is(err, exec.ErrNotFound) {
		return &plugins.Error{
			Op: "run " + cmd.Args[0], Host: here{}.String(), Kind: plugins.Unsupported,
			Err: errors.New(cmd.Args[0] + " is not installed on this machine"),
		}
	}
	return err
}
