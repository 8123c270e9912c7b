package execruntime

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/fault"
)

const (
	// maxLine bounds a line of the program, and what a command that it runs may
	// print, in bytes.
	maxLine = 16 << 20
	// leaveTime is how long a program may stay after its last line, and after
	// it was asked to end.
	leaveTime = 2 * time.Second
)

// streams are those of the call itself.
type streams struct {
	in   io.Reader
	out  io.Writer
	err  io.Writer
	last *plugins.ExitError // gets how the last stream ended; nil: nobody asks
}

// both are streams that all go to w, which may be nil.
func both(w io.Writer) streams {
	if w == nil {
		return streams{}
	}
	one := &shared{w: w}
	return streams{out: one, err: one}
}

// A shared writer is one for two streams.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// A brokenError says that the program did not keep to the protocol.
type brokenError struct{ text, stderr string }

func (e *brokenError) Error() string { return e.text }

// A CancelledError is the cause of a call's end, with the last lines that the
// program wrote to standard error until then.
type CancelledError struct {
	Err  error
	Said string
}

func (e *CancelledError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *CancelledError) Unwrap() error { return e.Err }

// A saidError is the program's own.
type saidError struct{ failure *failure }

func (e *saidError) Error() string { return e.failure.Message }

// converse starts the program and answers it until its last line. The thread
// is kept: the kernel ends the program when the thread that started it ends.
func (p *Program) converse(ctx context.Context, h plugins.Host, req request, s streams, into any) error {
	if p.Verify != nil {
		if err := p.Verify(); err != nil {
			return err
		}
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	caller := ctx
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	var tail fault.Tail
	cmd := exec.CommandContext(ctx, p.Path)
	cmd.Args, cmd.Env, cmd.Stderr = p.Argv, p.Env, &tail
	if p.Log != nil {
		log := &fault.Lines{Emit: p.Log}
		defer log.Flush()
		cmd.Stderr = io.MultiWriter(&tail, log)
	}
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error {
		if syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) != nil {
			return os.ErrProcessDone
		}
		return nil
	}
	cmd.WaitDelay = leaveTime
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return &brokenError{text: "does not start: " + fault.NotStarted(p.Path, err).Error()}
	}
	if p.Started != nil {
		defer p.Started(cmd.Process.Pid)()
	}
	// A child that the program left behind goes with it.
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }()
	// A program that is killed, but has given its output to a child, must not
	// hold up the reader.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(leaveTime, func() { _ = stdout.Close() }) })()
	talk := &conversation{host: h, streams: s, in: stdin, out: bufio.NewReaderSize(stdout, 64<<10)}
	err = talk.run(ctx, req, into)
	_ = stdin.Close()
	late := time.AfterFunc(leaveTime, leave)
	defer late.Stop()
	if err != nil {
		leave()
	}
	exit := cmd.Wait()
	if cause := context.Cause(caller); err != nil && cause != nil {
		return &CancelledError{cause, tail.String()}
	}
	if broken, ok := errors.AsType[*brokenError](err); ok {
		broken.stderr = tail.String()
		if broken.text == "" {
			broken.text = "ended without a result"
			if exit != nil {
				broken.text += " (" + exit.Error() + ")"
			}
		}
	}
	return err
}

// A conversation is one call, from the request to the last line.
type conversation struct {
	host    plugins.Host
	streams streams
	in      io.Writer
	out     *bufio.Reader
}

func (c *conversation) run(ctx context.Context, req request, into any) error {
	// A program that ends early shows when its output is read.
	_ = c.say(req)
	for {
		text, err := c.read()
		if err != nil {
			return err
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return &brokenError{text: fmt.Sprintf("wrote %.80q, which is no line of the protocol", text)}
		}
		switch {
		case l.Error != nil:
			return &saidError{l.Error}
		case len(l.Result) > 0:
			if into == nil {
				return nil
			}
			if err := json.Unmarshal(l.Result, into); err != nil {
				return &brokenError{text: "gave a result that is none: " + err.Error()}
			}
			return nil
		case c.host == nil:
			return &brokenError{text: fmt.Sprintf("asked for a command in the call %s, which has no host", req.Call)}
		}
		if err := c.command(ctx, l); err != nil {
			return err
		}
	}
}

// read returns the next line. At the end of the output it is a brokenError
// without a text: what the program wrote to standard error says more.
func (c *conversation) read() ([]byte, error) {
	var text []byte
	for {
		part, err := c.out.ReadSlice('\n')
		if text = append(text, part...); len(text) > maxLine {
			return nil, &brokenError{text: fmt.Sprintf("wrote a line of more than %d MiB", maxLine>>20)}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err == nil:
			return text, nil
		case len(bytes.TrimSpace(text)) > 0:
			return text, nil // the last line needs no end
		default:
			return nil, &brokenError{}
		}
	}
}

// command runs what the program asks for.
func (c *conversation) command(ctx context.Context, l line) error {
	var out, errs limited
	cmd := &plugins.Command{Args: l.Run, Env: l.Env, Become: l.Become, Stdout: &out, Stderr: &errs, Stdin: strings.NewReader(l.Stdin)}
	switch {
	case len(l.Stream) > 0 && len(l.Run) == 0:
		cmd.Args, cmd.Stdin, cmd.Stdout, cmd.Stderr = l.Stream, c.streams.in, c.streams.out, c.streams.err
	case len(l.Run) == 0 || len(l.Stream) > 0:
		return &brokenError{text: "wrote a line that is not one of run, stream, result and error"}
	}
	err := c.host.Run(ctx, cmd)
	exit, ok := errors.AsType[*plugins.ExitError](err)
	switch {
	case out.over || errs.over:
		return &brokenError{text: fmt.Sprintf("ran a command that printed more than %d MiB: it should stream it", maxLine>>20)}
	case err != nil && !ok:
		return err
	}
	reply := answer{Stdout: out.text.String(), Stderr: errs.text.String()}
	if ok {
		reply.Code = exit.Code
		if len(l.Stream) > 0 && c.streams.last != nil {
			*c.streams.last = *exit
		}
	}
	_ = c.say(reply)
	return nil
}

func (c *conversation) say(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = c.in.Write(append(text, '\n'))
	return err
}

// limited keeps what a command prints; too much is an error that ends it.
type limited struct {
	text bytes.Buffer // not embedded: its ReadFrom knows no limit
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.text.Len()+len(p) > maxLine {
		l.over = true
		return 0, io.ErrShortWrite
	}
	return l.text.Write(p)
}
