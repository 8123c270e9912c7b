package plugintest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// Local returns the machine itself as a Host: commands run in processes of
// their own, connections are made from here. Become has no meaning.
func Local(name string) plugins.Host { return local(name) }

type local string

func (l local) String() string { return string(l) }

func (l local) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		kind := plugins.Unavailable
		if errors.Is(err, os.ErrPermission) {
			kind = plugins.Denied
		}
		return nil, &plugins.Error{Op: "dial " + address, Host: string(l), Kind: kind, Err: err}
	}
	return c, nil
}

func (l local) Run(ctx context.Context, cmd *plugins.Command) error {
	if len(cmd.Args) == 0 {
		return &plugins.Error{Op: "run", Host: string(l), Kind: plugins.Invalid, Err: errors.New("no program")}
	}
	c := exec.CommandContext(ctx, cmd.Args[0], cmd.Args[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 2 * time.Second
	c.Env = os.Environ()
	for k, v := range cmd.Env {
		c.Env = append(c.Env, k+"="+v)
	}
	tail := &tail{w: cmd.Stderr}
	c.Stdout, c.Stderr = cmd.Stdout, tail
	err := run(c, cmd.Stdin)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code := exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		return &plugins.ExitError{Host: string(l), Args: cmd.Args, Code: code, Stderr: tail.buf}
	}
	return err
}

// run waits for the command alone. With Cmd.Stdin it would wait for the
// reader too, which may have nothing to say for ever.
func run(c *exec.Cmd, stdin io.Reader) error {
	if stdin == nil {
		return c.Run()
	}
	w, err := c.StdinPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(w, stdin) // a command may end before it has read everything
		_ = w.Close()
	}()
	return c.Wait()
}

// A tail hands on what is written and keeps the end of it.
type tail struct {
	w   io.Writer
	buf []byte
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	if t.w == nil {
		return len(p), nil
	}
	return t.w.Write(p)
}
