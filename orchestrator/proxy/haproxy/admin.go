package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// adminWithin is how long the admin socket may take to answer.
const adminWithin = 3 * time.Second

// errRefused is in the chain of an error when haproxy understood a command
// and said no.
var errRefused = errors.New("haproxy refused")

// An admin is the admin socket of a haproxy: a path, or address:port.
type admin struct {
	host    plugins.Host
	address string
}

// ask sends commands and returns what haproxy says, all in one connection that
// haproxy closes. Where the login user may not open the socket it is opened
// with the rights of become, by a program that the host happens to have.
func (a admin) ask(ctx context.Context, commands ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, adminWithin,
		fmt.Errorf("it took the commands and gave no answer for %s: haproxy hangs, or something else listens there", adminWithin))
	defer cancel()
	line := strings.Join(commands, ";") + "\n"
	said, err := a.dialled(ctx, line)
	if kind := plugins.KindOf(err); err != nil && ctx.Err() == nil && (kind == plugins.Denied || kind == plugins.Unavailable) && !a.tcp() {
		said, err = a.become(ctx, line, err)
	}
	if err != nil {
		err = proxy.CutShort(ctx, err)
		kind := plugins.KindOf(err)
		if kind == "" {
			kind = plugins.Unavailable
		}
		return "", failed(a.host, "ask haproxy at "+a.address, kind, err)
	}
	for _, no := range []string{"Permission denied", "Unknown command"} {
		if strings.Contains(said, no) {
			return said, failed(a.host, "ask haproxy at "+a.address, plugins.Denied, fmt.Errorf("%w: %s: the socket needs `level admin`", errRefused, no))
		}
	}
	return said, nil
}

func (a admin) tcp() bool { return !strings.HasPrefix(a.address, "/") }

func (a admin) dialled(ctx context.Context, line string) (string, error) {
	network := "unix"
	if a.tcp() {
		network = "tcp"
	}
	conn, err := a.host.DialContext(ctx, network, a.address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := io.WriteString(conn, line); err != nil {
		return "", err
	}
	said, err := io.ReadAll(io.LimitReader(conn, 32<<20))
	if err == nil {
		err = ctx.Err()
	}
	return string(said), err
}

// codeNoTool is the exit code of becomeScript where the host has no program
// that opens sockets.
const codeNoTool = 127

const becomeScript = `
[ -S "$1" ] || { echo "$1 does not exist" >&2; exit 10; }
if command -v socat >/dev/null; then
	exec socat -t 10 - "UNIX-CONNECT:$1"
elif command -v perl >/dev/null; then
	exec perl -MIO::Socket::UNIX -e '
		my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "$ARGV[0]: $!\n";
		print $s scalar(<STDIN>);
		$s->flush;
		print while <$s>;' "$1"
elif command -v python3 >/dev/null; then
	exec python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.readline().encode())
for part in iter(lambda: s.recv(65536), b""):
    sys.stdout.buffer.write(part)' "$1"
fi
ls -ld "$1" >&2
exit 127
`

// become asks with the rights that the host's become setting gives. refused
// says why there is no other way.
func (a admin) become(ctx context.Context, line string, refused error) (string, error) {
	var out bytes.Buffer
	err := a.host.Run(ctx, &plugins.Command{
		Args:   []string{"sh", "-c", becomeScript, "teal", a.address},
		Become: true,
		Stdin:  strings.NewReader(line),
		Stdout: &out,
	})
	exit, ran := errors.AsType[*plugins.ExitError](err)
	switch {
	case err == nil:
		return out.String(), nil
	case ran && exit.Code == codeNoTool:
		return "", &plugins.Error{Kind: plugins.Denied, Err: fmt.Errorf(
			"%w; the login user must be a member of the socket's group (usermod -aG GROUP USER; %s), and sshd must allow forwarding to sockets", refused, group(exit.Stderr))}
	case ran:
		return "", &plugins.Error{Kind: plugins.KindOf(refused), Err: fmt.Errorf("%w; and as the user of become: %w", refused, err)}
	}
	return "", err
}

// group says which group a file of ls -l has.
func group(line []byte) string {
	if f := strings.Fields(string(line)); len(f) > 3 {
		return "its group is " + f[3]
	}
	return "ls -l shows it"
}
