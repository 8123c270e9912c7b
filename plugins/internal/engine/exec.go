package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/teal-deploy/teal/plugins"
)

const (
	stderrKept  = 64 << 10 // bytes of an ExitError's Stderr
	endEvery    = 20 * time.Millisecond
	endTimeout  = 10 * time.Second // for an engine to notice that a process has ended
	killTimeout = 10 * time.Second
)

// Exec implements plugins.Runtime. When ctx ends, the command is killed with
// its process group: an engine has no call for that, so it is done with the
// host's own kill, or with the container's where become is not to be had.
func (e *Engine) Exec(ctx context.Context, h plugins.Host, id string, cmd *plugins.Command) error {
	op := "exec in " + id
	s, err := e.open(ctx, h)
	if err != nil {
		return err
	}
	defer s.close()
	opts := client.ExecCreateOptions{AttachStdin: cmd.Stdin != nil, AttachStdout: true, AttachStderr: true, Cmd: cmd.Args}
	for _, k := range slices.Sorted(maps.Keys(cmd.Env)) {
		opts.Env = append(opts.Env, k+"="+cmd.Env[k])
	}
	made, err := s.api.ExecCreate(ctx, id, opts)
	if err != nil {
		if contains(err, "is not running", "is paused", "is restarting") {
			return s.fault(op, plugins.Unavailable, err)
		}
		return s.wrap(ctx, op, err)
	}
	var stdout, stderr tail
	if err := s.attach(ctx, made.ID, cmd, &stdout, &stderr); err != nil {
		return errors.Join(s.wrap(ctx, op, err), s.kill(ctx, id, made.ID))
	}
	code, err := s.exitCode(ctx, made.ID)
	if err != nil {
		return s.wrap(ctx, op, err)
	}
	if code == 0 {
		return nil
	}
	said := stderr.buf
	if len(said) == 0 && (code == 126 || code == 127) {
		said = stdout.buf // a program that cannot be started is reported there
	}
	return &plugins.ExitError{Host: h.String(), Args: cmd.Args, Code: code, Stderr: said}
}

// attach starts the command and moves its streams until it ends.
func (s *session) attach(ctx context.Context, exec string, cmd *plugins.Command, stdout, stderr *tail) error {
	att, err := s.api.ExecAttach(ctx, exec, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	defer att.Close()
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	defer context.AfterFunc(ctx, att.Close)()
	if cmd.Stdin != nil {
		go func() {
			if err := feed(att.Conn, cmd.Stdin); err != nil {
				abort(err)
				return
			}
			_ = att.CloseWrite()
		}()
	}
	err = demultiplex(false, tee(cmd.Stdout, stdout), tee(cmd.Stderr, stderr), att.Reader)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// feed copies standard input. Only a reader that fails is an error: a command
// may end before it has read everything.
func feed(w io.Writer, r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return nil //nolint:nilerr // it has ended, and nobody reads any more
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
	}
}

// demultiplex parts what an engine sends as one stream. With a terminal there
// is nothing to part.
func demultiplex(tty bool, stdout, stderr io.Writer, r io.Reader) error {
	var err error
	if tty {
		_, err = io.Copy(stdout, r)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, r)
	}
	return err
}

func tee(w io.Writer, t *tail) io.Writer {
	if w == nil {
		return t
	}
	return io.MultiWriter(w, t)
}

// A tail keeps the last stderrKept bytes.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - stderrKept; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// exitCode waits for the engine to notice that the process has ended: its
// streams may end a moment earlier.
func (s *session) exitCode(ctx context.Context, exec string) (int, error) {
	in, err := s.awaitExec(ctx, exec, func(in client.ExecInspectResult) bool { return !in.Running })
	return in.ExitCode, err
}

// awaitExec looks at an exec until it is as wanted.
func (s *session) awaitExec(ctx context.Context, exec string, wanted func(client.ExecInspectResult) bool) (client.ExecInspectResult, error) {
	limit := time.NewTimer(endTimeout)
	defer limit.Stop()
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	for {
		in, err := s.api.ExecInspect(ctx, exec, client.ExecInspectOptions{})
		if err != nil || wanted(in) {
			return in, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return in, context.Cause(ctx)
		case <-limit.C:
			return in, s.fault("exec", plugins.Lost, errors.New("the engine does not know how the command goes on"))
		}
	}
}

// A command in a container is the leader of its process group, so one signal
// ends also what it started.
const (
	killOnHost = `kill -KILL "-$1" || [ ! -d "/proc/$1" ]`
	// nsPID prints the process id inside the container.
	nsPID = `sed -n 's/^NSpid:.*[[:space:]]\([0-9][0-9]*\)$/\1/p' "/proc/$1/status"`
)

// kill ends an exec that nobody waits for any more.
func (s *session) kill(ctx context.Context, id, exec string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	// What has just been started has no process id yet.
	in, err := s.awaitExec(ctx, exec, func(in client.ExecInspectResult) bool { return !in.Running || in.PID != 0 })
	if err != nil || !in.Running {
		return s.wrap(ctx, "kill the command", unlessGone(err))
	}
	pid := strconv.Itoa(in.PID)
	err = s.host.Run(ctx, &plugins.Command{Args: []string{"sh", "-c", killOnHost, "teal", pid}, Become: true})
	if err == nil {
		return nil
	}
	if inside := s.killInside(ctx, id, pid); inside != nil {
		return s.fault("kill the command in "+id, cmp.Or(plugins.KindOf(err), plugins.Denied), errors.Join(err, inside))
	}
	return nil
}

// killInside uses the kill of the container, which needs no rights on the
// host.
func (s *session) killInside(ctx context.Context, id, pid string) error {
	out, err := plugins.Output(ctx, s.host, "sh", "-c", nsPID, "teal", pid)
	if err != nil {
		return err
	}
	inside := string(bytes.TrimSpace(out))
	if inside == "" {
		return errors.New("the host does not tell the process id inside the container")
	}
	made, err := s.api.ExecCreate(ctx, id, client.ExecCreateOptions{
		User: "0", AttachStdout: true, AttachStderr: true, Cmd: []string{"kill", "-KILL", "-" + inside},
	})
	if err != nil {
		return err
	}
	var out2, err2 tail
	if err := s.attach(ctx, made.ID, &plugins.Command{}, &out2, &err2); err != nil {
		return err
	}
	code, err := s.exitCode(ctx, made.ID)
	if err == nil && code != 0 {
		err = fmt.Errorf("kill exited with code %d: %s%s", code, out2.buf, err2.buf)
	}
	return err
}
