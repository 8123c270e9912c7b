package orchestrator

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// A fakeConn is a connection of a teal to a host.
type fakeConn struct {
	plugins.Host
	host *fakeHost
	teal *teal
	done chan struct{}
	once sync.Once
}

func (p *teal) dial(ctx context.Context, h inventory.Host) (Connection, error) {
	c := &fakeConn{Host: plugintest.Local(h.Name), host: p.w.host(h.Name), teal: p, done: make(chan struct{})}
	err := c.call(ctx, "connect", func(context.Context) error {
		c.host.mu.Lock()
		defer c.host.mu.Unlock()
		if c.host.refused {
			return &plugins.Error{Op: "connect", Host: h.Name, Kind: plugins.Unavailable, Err: errors.New("connection refused")}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *fakeConn) Done() <-chan struct{} { return c.done }

func (c *fakeConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *fakeConn) errLost() error {
	return &plugins.Error{Host: c.host.name, Kind: plugins.Lost, Err: errors.New("connection reset")}
}

// due returns the fault of this call.
func (h *fakeHost) due(op string) *fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, op)
	f := h.fault
	if f == nil || (f.op != "" && f.op != op) {
		return nil
	}
	if f.seen++; f.seen != f.nth && (!f.always || f.seen < f.nth) {
		return nil
	}
	h.refused = h.refused || f.gone
	if f.next != nil {
		h.fault = f.next
	}
	return f
}

// heal ends all that ails the host. The teal that died may still be about to
// make a call.
func (h *fakeHost) heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault, h.sick, h.refused, h.answers = nil, nil, false, http.StatusOK
}

// call does an operation on the host, with the fault that is due.
func (c *fakeConn) call(ctx context.Context, op string, do func(context.Context) error) error {
	select {
	case <-c.teal.dead: // it does nothing any more
		select {}
	default:
	}
	f := c.host.due(op)
	defer c.host.look()
	if f == nil {
		return c.finish(ctx, do)
	}
	switch f.kind {
	case failing:
		return errors.New("injected failure")
	case unproven:
		return proxy.Unproven(ctx, errors.New("injected silence"))
	case lostBefore:
		_ = c.Close()
	case lostAfter:
		_ = c.finish(ctx, do)
		_ = c.Close()
	case stuck:
		if f.happens != nil {
			f.happens()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
		}
	case interrupt:
		f.happens()
	case diesBefore:
		c.teal.die()
	case diesAfter:
		_ = c.finish(ctx, do)
		c.teal.die()
	case unknownDone, unknownNot:
		if f.kind == unknownDone {
			_ = c.finish(ctx, do)
		}
		return fmt.Errorf("injected: %w", proxy.ErrUnknown)
	}
	return c.finish(ctx, do)
}

// finish does an operation unless the connection or teal has ended. Whatever
// was begun goes on on the host; nobody hears of it.
func (c *fakeConn) finish(ctx context.Context, do func(context.Context) error) error {
	select {
	case <-c.teal.dead:
		select {}
	case <-c.done:
		return c.errLost()
	default:
	}
	ended := make(chan error, 1)
	go func() { ended <- do(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-c.done:
		return c.errLost()
	case <-c.teal.dead:
		select {}
	}
}

// hostDir stands for a host's folder in what is the same on all hosts.
const hostDir = "/host"

// Run runs a command. What has an input has an ancestor named sshd, which a
// host ends whose lock has fallen silent.
func (c *fakeConn) Run(ctx context.Context, cmd *plugins.Command) error {
	run := *cmd
	op := opOf(cmd)
	begun := make(chan struct{})
	if op == "lock" {
		run.Stdout = &firstWrite{w: cmd.Stdout, begun: begun}
	}
	args := cmd.Args
	if op == "arm" { // the order names files of the host, too
		order, err := io.ReadAll(cmd.Stdin)
		if err != nil {
			return err
		}
		own := bytes.ReplaceAll(order, []byte(hostDir+"/"), []byte(c.host.dir+"/"))
		args = slices.Clone(args)
		args[slices.Index(args, strconv.Itoa(len(order)))] = strconv.Itoa(len(own))
		run.Stdin = bytes.NewReader(own)
	}
	run.Args = nil
	for _, arg := range args {
		if rest, ok := strings.CutPrefix(arg, hostDir+"/"); ok {
			arg = filepath.Join(c.host.dir, rest)
		}
		run.Args = append(run.Args, arg)
	}
	if cmd.Stdin != nil {
		run.Args = append([]string{filepath.Join(c.host.dir, "sshd"), "-c", `"$@"; exit $?`, "sshd"}, run.Args...)
	}
	return c.call(ctx, op, func(ctx context.Context) error {
		ended := make(chan struct{})
		defer close(ended)
		if cmd.Stdin != nil {
			run.Stdin = c.input(run.Stdin, ended)
		}
		if op != "lock" {
			return c.Host.Run(context.WithoutCancel(ctx), &run)
		}
		return c.hold(ctx, &run, begun)
	})
}

// hold runs the holder of a lock. A fault behind the call means: behind its
// first word, for it ends with the lock only.
func (c *fakeConn) hold(ctx context.Context, run *plugins.Command, begun <-chan struct{}) error {
	result := make(chan error, 1)
	go func() { result <- c.Host.Run(ctx, run) }()
	if f := c.host.current("lock"); f == nil || (f.kind != lostAfter && f.kind != diesAfter) {
		return <-result
	}
	select {
	case err := <-result:
		return err
	case <-begun:
		return nil
	}
}

// current returns the fault if it is happening now.
func (h *fakeHost) current(op string) *fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.fault; f != nil && (f.op == "" || f.op == op) && f.nth == f.seen {
		return f
	}
	return nil
}

// input is standard input, which ends with the connection, with teal, and
// with the command.
func (c *fakeConn) input(stdin io.Reader, ended <-chan struct{}) io.Reader {
	r, w := io.Pipe()
	go func() {
		_, _ = io.Copy(w, stdin)
		_ = w.Close()
	}()
	go func() {
		select {
		case <-c.done:
		case <-c.teal.dead:
		case <-ended:
		}
		_ = w.Close()
	}()
	return r
}

type firstWrite struct {
	w     io.Writer
	begun chan struct{}
	once  sync.Once
}

func (f *firstWrite) Write(p []byte) (int, error) {
	f.once.Do(func() { close(f.begun) })
	return f.w.Write(p)
}

// DialContext connects to the public listener, which answers by what the host
// was told.
func (c *fakeConn) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	var conn net.Conn
	err := c.call(ctx, "dial", func(context.Context) error {
		near, far := net.Pipe()
		conn = near
		go c.host.answer(far)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Listen listens on this machine, which all hosts are.
func (c *fakeConn) Listen(ctx context.Context, address string) (l net.Listener, err error) {
	err = c.call(ctx, "listen", func(context.Context) (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

func (h *fakeHost) answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	h.mu.Lock()
	status := h.answers
	h.mu.Unlock()
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status))
}

// opOf names the operation of package record that a command is.
func opOf(cmd *plugins.Command) string {
	script := strings.Join(cmd.Args, " ")
	for _, known := range [][2]string{
		{`echo "locked`, "lock"},
		{`echo "now `, "observe"},
		{`abandon 74`, "arm"},
		{`true >"$folder/released"`, "let"},
		{`cancel) sync "$folder"`, "cancel"},
		{`history.jsonl`, "append"},
		{`"$new.serves"`, "write"},
		{`launch()`, "reap"},
	} {
		if strings.Contains(script, known[0]) {
			return known[1]
		}
	}
	return "run"
}
