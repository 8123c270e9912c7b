package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
	"github.com/teal-deploy/teal/plugins"
)

func TestMain(m *testing.M) {
	if address := os.Getenv("TEAL_TEST_CONNECT"); address != "" {
		connect(address)
		return
	}
	goleak.VerifyTestMain(m)
}

// connect makes the test's binary a proxy command.
func connect(address string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return
	}
	go func() { _, _ = io.Copy(c, os.Stdin) }()
	_, _ = io.Copy(os.Stdout, c)
}

// skip says why a test cannot run. Where everything is meant to be there, that
// is a failure.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// testDialer returns a dialer that reads nothing of the person who runs the
// tests, and leaves the agent alone.
func testDialer(t *testing.T) *remote.Dialer {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	d := &remote.Dialer{Config: "none"}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// dial connects, and closes the connection at the end of the test.
func dial(t *testing.T, d *remote.Dialer, h inventory.Host) *remote.Conn {
	t.Helper()
	c, err := d.Dial(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// output runs args and returns what they print.
func output(t *testing.T, c *remote.Conn, args ...string) string {
	t.Helper()
	out, err := plugins.Output(t.Context(), c, args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// An sshd is the real thing, on a loopback port of its own.
type sshd struct {
	port uint16
	inventory.Host
	folder string
}

// startSSHD starts sshd with more lines of configuration. Only the user who
// runs the tests may log in.
func startSSHD(t *testing.T, lines ...string) *sshd {
	t.Helper()
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Subsystem") }) {
		lines = append(lines, "Subsystem sftp internal-sftp")
	}
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		skip(t, "needs /usr/sbin/sshd")
	}
	if os.Getuid() == 0 {
		// Where it puts its unprivileged half.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	folder := t.TempDir()
	key := remotetest.WriteKey(t, filepath.Join(folder, "id"), "")
	hostKey := remotetest.WriteKey(t, filepath.Join(folder, "host_key"), "")
	port := freePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	write(t, filepath.Join(folder, "authorized_keys"), string(ssh.MarshalAuthorizedKey(key)))
	write(t, filepath.Join(folder, "known_hosts"), knownhosts.Line([]string{address}, hostKey)+"\n")
	config := filepath.Join(folder, "sshd_config")
	// The first line of a kind counts, so more lines go first.
	write(t, config, strings.Join(append(lines, []string{
		"ListenAddress " + address,
		"HostKey " + filepath.Join(folder, "host_key"),
		"PidFile none", "StrictModes no", "UsePAM no",
		"PermitRootLogin prohibit-password", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"AuthorizedKeysFile " + filepath.Join(folder, "authorized_keys"),
		"SetEnv HOME=" + folder, // not the start-up files of whoever runs the tests
	}...), "\n")+"\n")
	startDaemon(t, address, program, "-D", "-e", "-f", config)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return &sshd{port: port, folder: folder, Host: inventory.Host{Name: "web1", Address: "127.0.0.1", SSH: inventory.SSH{
		User: me.Username, Port: port,
		Identity:   []string{filepath.Join(folder, "id")},
		KnownHosts: []string{filepath.Join(folder, "known_hosts")},
	}}}
}

// startDaemon starts a program that listens on address, and ends it with the
// test.
func startDaemon(t *testing.T, address string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", args[0], log.Bytes())
		}
	})
	within(t, 5*time.Second, "listening on "+address, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// within waits for a condition.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s within %s", what, limit)
		}
	}
}

// A cable leads to an address and can be cut.
type cable struct {
	port uint16

	mu    sync.Mutex
	conns []net.Conn
	held  chan struct{} // not nil: nothing is carried until it is closed
}

// lay makes a cable to the address of h and returns h at its other end.
func lay(t *testing.T, h inventory.Host) (*cable, inventory.Host) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := net.JoinHostPort(h.Address, fmt.Sprint(h.SSH.Port))
	c := &cable{port: uint16(l.Addr().(*net.TCPAddr).Port)}
	var copies sync.WaitGroup
	copies.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, near, far)
			c.mu.Unlock()
			copies.Go(func() { _, _ = io.Copy(carrier{near, c}, far) })
			copies.Go(func() { _, _ = io.Copy(carrier{far, c}, near) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.cut()
		copies.Wait()
	})
	key, err := os.ReadFile(h.SSH.KnownHosts[0])
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(t.TempDir(), "known_hosts")
	_, rest, _ := strings.Cut(string(key), " ")
	write(t, known, fmt.Sprintf("[127.0.0.1]:%d %s", c.port, rest))
	h.SSH.Port, h.SSH.KnownHosts = c.port, []string{known}
	return c, h
}

// hold keeps the cable from carrying anything, and tells nobody.
func (c *cable) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = make(chan struct{})
}

// A carrier is one direction of a cable.
type carrier struct {
	io.Writer
	cable *cable
}

func (c carrier) Write(p []byte) (int, error) {
	c.cable.mu.Lock()
	held := c.cable.held
	c.cable.mu.Unlock()
	if held != nil {
		<-held
	}
	return c.Writer.Write(p)
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		close(c.held)
		c.held = nil
	}
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

// start runs a command in the background; the channel gets its error.
func start(ctx context.Context, c plugins.Host, cmd *plugins.Command) <-chan error {
	errs := make(chan error, 1)
	go func() { errs <- c.Run(ctx, cmd) }()
	return errs
}

// listenEcho listens and sends back what comes.
func listenEcho(t *testing.T, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr()
}

// allKnown returns a known_hosts file for hosts.
func allKnown(t *testing.T, hosts ...*remotetest.Host) string {
	t.Helper()
	var text strings.Builder
	for _, h := range hosts {
		text.WriteString(line(h.Addr(), h.HostKey()) + "\n")
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	write(t, file, text.String())
	return file
}

func line(address string, key ssh.PublicKey) string { return knownhosts.Line([]string{address}, key) }

func fingerprint(key ssh.PublicKey) string { return ssh.FingerprintSHA256(key) }

func portText(port uint16) string { return fmt.Sprint(port) }

// keygen runs ssh-keygen.
func keygen(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command("ssh-keygen", append([]string{"-q", "-N", ""}, args...)...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		skip(t, "needs ssh-keygen")
	}
	if err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
}
