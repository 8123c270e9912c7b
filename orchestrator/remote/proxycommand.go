package remote

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// proxyGrace is what a proxy command has between being asked to end and force.
const proxyGrace = time.Second

// A proxyConn is a connection over the standard streams of a proxy command,
// which runs in a process group of its own.
type proxyConn struct {
	io.Reader
	io.WriteCloser // of which only Write is used
	command        string
	cmd            *exec.Cmd
	stderr         *tail
	closed         func() error
}

var _ net.Conn = (*proxyConn)(nil)

// A commandError says how a proxy command ended before its connection did.
type commandError struct {
	command string
	err     error
	stderr  string
}

func (e *commandError) Error() string {
	msg := fmt.Sprintf("proxy command %q: %v", e.command, e.err)
	if e.stderr != "" {
		msg += ": " + e.stderr
	}
	return msg
}

func (e *commandError) Unwrap() error { return e.err }

// startProxy starts command, a line for the shell as in ssh_config.
func startProxy(command string) (*proxyConn, error) {
	cmd := exec.Command("sh", "-c", "exec "+command) //nolint:noctx // Close ends it
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &proxyConn{command: command, cmd: cmd, stderr: new(tail)}
	cmd.Stderr = p.stderr
	cmd.WaitDelay = proxyGrace
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, &commandError{command: command, err: err}
	}
	p.Reader, p.WriteCloser = out, in
	p.closed = sync.OnceValue(p.end)
	return p, nil
}

// end stops the process group and returns a commandError when the command had
// failed by itself.
func (p *proxyConn) end() error {
	_ = p.WriteCloser.Close()
	// The group is asked before anybody waits for its leader, so that the
	// process id cannot have been given to somebody else.
	asked := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	force := time.AfterFunc(proxyGrace, func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
	err := p.cmd.Wait()
	force.Stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) && (!exit.Exited() || asked == nil && exit.ExitCode() == 128+int(syscall.SIGTERM)) {
		err = nil // it was our signal
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return &commandError{p.command, err, strings.TrimSpace(string(p.stderr.bytes()))}
	}
	return nil
}

// Close ends the command. The error is what the command died of, if it died
// by itself.
func (p *proxyConn) Close() error { return p.closed() }

func (p *proxyConn) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (p *proxyConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// Nobody sets deadlines here: who wants an end closes the connection.

func (p *proxyConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (p *proxyConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (p *proxyConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
