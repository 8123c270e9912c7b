package plugins

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
)

// A Host is a server, reached over a connection that somebody else owns.
// All methods may be called at the same time by several goroutines.
type Host interface {
	// String returns the host's name in the inventory, for messages.
	String() string

	// Run runs a command and waits for it to end. It returns nil when the
	// command exits with code 0, an *ExitError when it exits with another
	// one, and an *Error of kind Lost when the connection went away first:
	// then it is unknown whether the command ran. A cancelled ctx ends the
	// command on the host as well. The reader of standard input is not
	// waited for: it may have nothing to say for ever.
	Run(ctx context.Context, cmd *Command) error

	// DialContext opens a connection from the host: network "tcp" with
	// "address:port" or "unix" with a path. It has the signature of
	// net.Dialer.DialContext, so that an http.Transport can use it.
	// A refusal is an *Error of kind Denied or Unavailable.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// A Command is a program that a Host is asked to run: arguments, never a line
// for a shell. To run a script, write it as a constant and hand over what
// varies as arguments:
//
//	&Command{Args: []string{"sh", "-c", `rm -- "$1"`, "teal", path}}
type Command struct {
	Args []string // program and arguments; at least one

	// Env is added to the environment that the host's sshd gives. The values
	// travel inside the connection, not on a command line.
	Env map[string]string

	// Become runs the command as the user that the host's become setting
	// leads to, usually root. Where the host has no such setting it runs as
	// the login user.
	Become bool

	Stdin  io.Reader // nil: an empty one
	Stdout io.Writer // nil: discarded
	Stderr io.Writer // nil: discarded; an ExitError keeps the end of it in any case
}

// An ExitError says that a command ran and exited with a code other than 0.
type ExitError struct {
	Host   string
	Args   []string
	Code   int    // 1 to 255; 128 and a signal's number when a signal ended it
	Stderr []byte // what the command wrote there, at most the last 64 KiB
}

// Error is one short line: host, program, code and the last line of Stderr.
func (e *ExitError) Error() string {
	name := "command"
	if len(e.Args) > 0 {
		name = e.Args[0]
	}
	msg := fmt.Sprintf("%s: %s exited with code %d", e.Host, name, e.Code)
	if line := lastLine(e.Stderr); line != "" {
		msg += ": " + line
	}
	return msg
}

func lastLine(b []byte) string {
	s := strings.TrimSpace(string(b))
	return strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
}

// Output runs args on h and returns what they wrote to standard output.
func Output(ctx context.Context, h Host, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := h.Run(ctx, &Command{Args: args, Stdout: &out})
	return out.Bytes(), err
}
