package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/orchestrator/remote/internal/shell"
	"github.com/teal-deploy/teal/plugins"
)

const (
	// endGrace is how long a cancelled command is waited for: a second that
	// the leash gives it, and the way there and back.
	endGrace = 3 * time.Second

	// drainPause is how long the outputs of a command that has ended may be
	// silent before they are taken for complete. Somebody whom the command
	// left behind may hold them open for ever.
	drainPause = 2 * time.Second
)

// Run runs a command on the host and waits for its end, as plugins.Host says.
// Standard output and error arrive complete and apart. When ctx ends, so does
// the command: its process group gets TERM and, a second later, KILL; Run
// waits up to three seconds for that. What has left the process group (setsid)
// lives on.
//
// A Read of cmd.Stdin that waits when the command ends is left alone: Run does
// not wait for it. An error of cmd.Stdin or cmd.Stdout ends the command and is
// returned.
func (c *Conn) Run(ctx context.Context, cmd *plugins.Command) error {
	return c.run(ctx, cmd, false)
}

func (c *Conn) run(ctx context.Context, cmd *plugins.Command, withAgent bool) error {
	op := "run"
	if len(cmd.Args) > 0 {
		op += " " + cmd.Args[0]
	}
	b, err := c.becomes(ctx, cmd.Become)
	if err != nil {
		return c.fail(ctx, op, plugins.Denied, err)
	}
	w, err := shell.Encode(cmd, b, withAgent)
	if err != nil {
		return &plugins.Error{Op: op, Host: c.name, Kind: plugins.Invalid, Err: err}
	}
	s, err := c.openSession(ctx)
	if err != nil {
		return c.fail(ctx, op, plugins.Unavailable, err)
	}
	defer func() { _ = s.Close() }() // an error means that it is closed
	if withAgent {
		if err := c.requestAgent(ctx, s); err != nil {
			return c.fail(ctx, op, plugins.Denied, err)
		}
	}
	if err := s.request(ctx, "exec", ssh.Marshal(struct{ Line string }{w.Line})); err != nil {
		return c.fail(ctx, op, plugins.Denied, err)
	}
	x := newExecution(s, cmd)
	if b == shell.SudoPassword {
		x.password = c.password + "\n"
	}
	e, err := x.wait(ctx, c.done, w.Header)
	noise, started := x.stdout.Before()
	switch {
	case err != nil:
		return c.fail(ctx, op, plugins.Invalid, err)
	case !e.known:
		c.settle()
		return c.lost(op)
	case !started:
		return &plugins.Error{Op: op, Host: c.name, Kind: plugins.Denied, Err: notStarted(e, b, noise, x.stderr.bytes())}
	case e.code != 0:
		return &plugins.ExitError{Host: c.name, Args: cmd.Args, Code: e.code, Stderr: x.stderr.bytes()}
	}
	return nil
}

// An execution is a command that runs.
type execution struct {
	session        *session
	stdin          *shell.Input // nil: none
	password       string       // for sudo, with a line break
	stdout         *shell.MarkWriter
	stderr         *tail
	streams        [2]stream
	outSink, errTo *sink
	copied         chan error // twice: an output is at its end
	fed            chan error // the caller's reader failed
}

func newExecution(s *session, cmd *plugins.Command) *execution {
	out, errTo := sinks(cmd.Stdout, cmd.Stderr)
	x := &execution{
		session: s, stdout: shell.NewMarkWriter(out), stderr: new(tail),
		outSink: out, errTo: errTo, copied: make(chan error, 2), fed: make(chan error, 1),
	}
	if cmd.Stdin != nil {
		x.stdin = shell.NewInput(cmd.Stdin)
	}
	return x
}

// wait lets the command run to its end. An error is ctx's or the caller's; the
// command has been ended then, as far as that can be known.
func (x *execution) wait(ctx context.Context, done <-chan struct{}, header string) (exit, error) {
	defer x.errTo.close()
	defer x.outSink.close()
	if x.stdin != nil {
		defer x.stdin.Stop()
	}
	go func() { x.copied <- x.streams[0].copy(x.stdout, x.session) }()
	go func() { x.copied <- x.streams[1].copy(io.MultiWriter(x.stderr, x.errTo), x.session.Stderr()) }()
	go x.feed(done, header)
	open := 2
	for {
		select {
		case e := <-x.session.exit:
			return e, x.drain(ctx, open)
		case err := <-x.copied:
			open--
			if err != nil {
				x.cut(done, open)
				return exit{}, err
			}
		case err := <-x.fed:
			x.cut(done, open)
			return exit{}, fmt.Errorf("read standard input: %w", err)
		case <-ctx.Done():
			x.cut(done, open)
			return exit{}, context.Cause(ctx)
		}
	}
}

// cut pulls the leash and waits for the command to end and for its last words:
// they came before its exit code, but through goroutines of their own.
func (x *execution) cut(done <-chan struct{}, open int) {
	x.session.pull()
	grace := time.NewTimer(endGrace)
	defer grace.Stop()
	for over := x.session.exit; over != nil || open > 0; {
		select {
		case <-over:
			over = nil
		case <-x.copied: //nolint:errcheck // the command is cut for another reason
			open--
		case <-done:
			return
		case <-grace.C:
			return
		}
	}
}

// drain waits for the rest of the outputs of a command that has ended.
func (x *execution) drain(ctx context.Context, open int) error {
	look := time.NewTicker(drainPause / 8)
	defer look.Stop()
	for open > 0 {
		select {
		case err := <-x.copied:
			open--
			if err != nil {
				return err
			}
		case <-look.C:
			if x.streams[0].idle(drainPause) && x.streams[1].idle(drainPause) {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// feed sends what belongs on standard input. sudo must not see more than its
// password: what follows waits for the mark.
func (x *execution) feed(done <-chan struct{}, header string) {
	if x.password != "" {
		_, _ = io.WriteString(x.session, x.password)
		select {
		case <-x.stdout.Found():
		case <-x.session.over:
			return
		case <-done:
			return
		}
	}
	if _, err := io.WriteString(x.session, header); err != nil || x.stdin == nil {
		return // an error means that the command is over
	}
	if err := x.stdin.Pump(x.session); err != nil {
		x.fed <- err
	}
}

// notStarted says why a command did not come to run.
func notStarted(e exit, b shell.Become, stdout, stderr []byte) error {
	said := strings.TrimSpace(string(bytes.TrimSpace(stdout)) + "\n" + string(bytes.TrimSpace(stderr)))
	if said == "" {
		said = fmt.Sprintf("exit code %d", e.code)
	}
	if b != shell.None {
		return errors.New("sudo did not run the command: " + said)
	}
	return errors.New("the login shell did not run the command: " + said)
}
