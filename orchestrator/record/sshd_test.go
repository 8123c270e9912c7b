package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// An sshHost is this machine behind a real sshd. All its commands share one
// connection, that of the process master.
type sshHost struct {
	plugins.Host
	args   []string
	master *exec.Cmd
	once   sync.Once
}

func newSSHHost(t *testing.T) *sshHost {
	t.Helper()
	sshd, ssh, keygen := need(t, "/usr/sbin/sshd"), need(t, "ssh"), need(t, "ssh-keygen")
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Skip(err)
		}
	}
	dir, err := os.MkdirTemp("", "ssh") //nolint:usetesting // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	key := filepath.Join(dir, "key")
	if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	port := freePort(t)
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n",
		port, key, key)
	write(t, filepath.Join(dir, "config"), config)
	server := exec.Command(sshd, "-D", "-f", filepath.Join(dir, "config"))
	start(t, server)
	h := &sshHost{Host: plugintest.Local("web1"), args: []string{
		ssh, "-F", "none", "-S", filepath.Join(dir, "s"), "-i", key, "-p", strconv.Itoa(port), "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "127.0.0.1",
	}}
	master := append([]string{"-M", "-N", "-o", "ConnectionAttempts=20"}, h.args[1:]...)
	h.master = exec.Command(ssh, master...)
	start(t, h.master)
	for range 100 {
		if _, err := os.Stat(filepath.Join(dir, "s")); err == nil {
			return h
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("no connection to sshd")
	return nil
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// start starts a process that is killed in the end.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func (h *sshHost) Run(ctx context.Context, cmd *plugins.Command) error {
	words, err := quoteAll(cmd.Args)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	c := exec.CommandContext(ctx, h.args[0], append(h.args[1:len(h.args):len(h.args)], words)...)
	c.Stdin, c.Stdout, c.Stderr = cmd.Stdin, cmd.Stdout, &stderr
	c.WaitDelay = time.Second
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() != 255 {
		return &plugins.ExitError{Host: h.String(), Args: cmd.Args, Code: exit.ExitCode(), Stderr: stderr.Bytes()}
	}
	if err != nil {
		return &plugins.Error{Op: "run", Host: h.String(), Kind: plugins.Lost, Err: err}
	}
	return nil
}

// Close ends the connection.
func (h *sshHost) Close() error {
	var err error
	h.once.Do(func() { err = h.master.Process.Signal(syscall.SIGKILL) })
	return err
}

func TestSilenceEndsTheSSHConnectionAndWhatRunsOnIt(t *testing.T) {
	t.Parallel()
	h := newSSHHost(t)
	f := newFixture(t, shell{name: "dash"})
	f.store.Silence = 3 * time.Second
	// Without Close: here it is the host that ends the connection.
	l, err := f.store.Acquire(t.Context(), struct{ plugins.Host }{h}, f.app, owner("r1"))
	f.must(err)
	f.must(l.Write(t.Context(), State{}))
	running := make(chan error, 1)
	go func() { // another command of the controller that falls silent
		running <- h.Run(context.Background(), &plugins.Command{Args: []string{"sh", "-c", "cat; sleep 30"}})
	}()
	time.Sleep(500 * time.Millisecond)

	f.must(h.master.Process.Signal(syscall.SIGSTOP)) // the cable is cut
	cut := time.Now()
	f.eventually("the lock is free", func() bool { return f.observe().Holder == nil })
	if d := time.Since(cut); d > 8*time.Second {
		t.Errorf("the lock was free after %s, want 5 s", d)
	}
	select {
	case <-l.Lost():
	default:
		t.Error("the lock is free and its former holder does not know")
	}
	f.must(h.master.Process.Signal(syscall.SIGCONT))
	select {
	case err := <-running:
		f.is(err, plugins.Lost)
	case <-time.After(5 * time.Second):
		t.Error("the connection outlived the lock")
	}
}

func TestTeardownOutlivesTheSSHConnection(t *testing.T) {
	t.Parallel()
	h := newSSHHost(t)
	f := newFixture(t, shell{name: "dash"})
	blue := newContainer(t)
	l, err := f.store.Acquire(t.Context(), h, f.app, owner("r1"))
	f.must(err)
	f.must(l.Arm(t.Context(), f.teardown(blue, 2*time.Second, time.Minute)))
	f.route("green")
	switched := time.Now()
	f.must(h.Close())
	<-l.Lost()
	t.Log("lost after", time.Since(switched))
	blue.goneBetween(switched, 2*time.Second, 5*time.Second)
	t.Log("gone after", time.Since(switched))
}
