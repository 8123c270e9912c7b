package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
	"github.com/teal-deploy/teal/plugins"
)

// refused dials and expects an error of a kind whose text holds all of texts.
func refused(t *testing.T, d *remote.Dialer, h inventory.Host, kind plugins.Kind, texts ...string) {
	t.Helper()
	c, err := d.Dial(t.Context(), h)
	if err == nil {
		_ = c.Close()
		t.Fatal("the login was accepted")
	}
	if !errors.Is(err, kind) {
		t.Errorf("%v is not of kind %q", err, kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v\ndoes not say %q", err, text)
		}
	}
}

func TestDialReportsWhyNobodyAnswers(t *testing.T) {
	d := testDialer(t)
	h := remotetest.Start(t, remotetest.Options{}).Inventory("web1")
	h.SSH.Port = freePort(t)
	refused(t, d, h, plugins.Unavailable, "web1: connect: ", "connection refused")

	for name, tt := range map[string]inventory.Host{
		"no address":  {},
		"an option":   {Name: "-oProxyCommand=touch"},
		"bad become":  {Name: "web1", SSH: inventory.SSH{Become: "doas"}},
		"bad token":   {Name: "web1", SSH: inventory.SSH{Identity: []string{"%y"}}},
		"lone token":  {Name: "web1", SSH: inventory.SSH{KnownHosts: []string{"a%"}}},
		"endless way": {Name: "web1", SSH: inventory.SSH{Jump: strings.Repeat("a,", 12) + "b"}},
	} {
		if _, err := d.Dial(t.Context(), tt); !errors.Is(err, plugins.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestDialGivesUpOnAMuteHost(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{})
	h.Mute()
	d := testDialer(t)
	d.Timeout = 200 * time.Millisecond
	began := time.Now()
	refused(t, d, h.Inventory("web1"), plugins.Unavailable, "no answer within 200ms")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	d.Timeout = 0
	stop := errors.New("operator went home")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, stop)
	defer cancel()
	if _, err := d.Dial(ctx, h.Inventory("web1")); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestDialTriesAgainWhenAHostHasNoRoom(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{})
	h.Drop(4)
	d := testDialer(t)
	c := dial(t, d, h.Inventory("web1"))
	if total, _ := h.Connections(); total != 5 {
		t.Errorf("%d attempts", total)
	}
	_ = c.Close()
	h.Drop(5)
	refused(t, d, h.Inventory("web1"), plugins.Unavailable, "hung up")
}

func TestHandshakesAtOneAddressWaitForEachOther(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{Delay: 5 * time.Millisecond})
	d := testDialer(t)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			c, err := d.Dial(t.Context(), h.Inventory("web1"))
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		})
	}
	all.Wait()
	if most := h.MostHandshakes(); most > 8 {
		t.Errorf("%d at the same time", most)
	}
}

func TestLoginBeyondMaxStartupsOfSSHD(t *testing.T) {
	h := startSSHD(t, "MaxStartups 3:30:5")
	d := testDialer(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			c, err := d.Dial(t.Context(), h.Host)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		})
	}
	all.Wait()
}

func TestUnknownHostKeyIsRefusedWithTheRemedy(t *testing.T) {
	for name, h := range map[string]inventory.Host{
		"in process": remotetest.Start(t, remotetest.Options{}).Inventory("web1"),
		"sshd":       startSSHD(t).Host,
	} {
		t.Run(name, func(t *testing.T) {
			d := testDialer(t)
			good, err := os.ReadFile(h.SSH.KnownHosts[0])
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "new", "known_hosts")
			h := h
			h.SSH.KnownHosts = []string{file}
			refused(t, d, h, plugins.Denied, "the host key ssh-ed25519 SHA256:", "is not known",
				"echo '"+strings.TrimSpace(string(good))+"' >> "+file)

			h.SSH.HostKeys = "accept-new"
			_ = dial(t, d, h).Close()
			got, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(got, good) {
				t.Errorf("%q, %v", got, err)
			}
			h.SSH.HostKeys = "strict"
			_ = dial(t, d, h).Close()
		})
	}
}

func TestManyNewHostsAreWrittenOnce(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{}).Inventory("web1")
	file := filepath.Join(t.TempDir(), "known_hosts")
	write(t, file, "# no line break at the end")
	h.SSH.KnownHosts, h.SSH.HostKeys = []string{file}, "accept-new"
	d := testDialer(t)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			c, err := d.Dial(t.Context(), h)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		})
	}
	all.Wait()
	text, _ := os.ReadFile(file)
	if n := strings.Count(string(text), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, text)
	}
}

func TestChangedHostKeyIsRefusedWithBothFingerprints(t *testing.T) {
	other := remotetest.WriteKey(t, filepath.Join(t.TempDir(), "key"), "")
	h := remotetest.Start(t, remotetest.Options{})
	i := h.Inventory("web1")
	file := filepath.Join(t.TempDir(), "known_hosts")
	write(t, file, "# comment\n"+line(h.Addr(), other)+"\n")
	i.SSH.KnownHosts = []string{file}
	for _, policy := range []string{"", "accept-new"} {
		i.SSH.HostKeys = policy
		refused(t, testDialer(t), i, plugins.Denied, file+":2 says ssh-ed25519 "+fingerprint(other),
			"the host shows ssh-ed25519 "+fingerprint(h.HostKey()), "ssh-keygen -f '"+file+"' -R")
	}
}

func TestRevokedHostKeyIsRefused(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{})
	i := h.Inventory("web1")
	file := filepath.Join(t.TempDir(), "known_hosts")
	write(t, file, line(h.Addr(), h.HostKey())+"\n@revoked "+line("*", h.HostKey())+"\n")
	i.SSH.KnownHosts = []string{file}
	refused(t, testDialer(t), i, plugins.Denied, "revoked by "+file+":2")
}

func TestLineOfKnownHostsThatNobodyUnderstandsIsPassedOver(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{})
	i := h.Inventory("web1")
	file := filepath.Join(t.TempDir(), "known_hosts")
	write(t, file, "web9 ssh-quantum AAAAB3Nz\n"+line(h.Addr(), h.HostKey())+"\n")
	i.SSH.KnownHosts = []string{file, filepath.Join(t.TempDir(), "missing")}
	d := testDialer(t)
	var log bytes.Buffer
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	dial(t, d, i)
	if !strings.Contains(log.String(), file+":1") {
		t.Errorf("log: %s", log.String())
	}
}

func TestHostKeyOfAnotherTypeIsNoMismatch(t *testing.T) {
	folder := t.TempDir()
	rsa, ecdsa := filepath.Join(folder, "rsa"), filepath.Join(folder, "ecdsa")
	keygen(t, "-t", "rsa", "-b", "2048", "-f", rsa)
	keygen(t, "-t", "ecdsa", "-f", ecdsa)
	h := startSSHD(t, "HostKey "+rsa, "HostKey "+ecdsa)
	for _, file := range []string{rsa, ecdsa} {
		pub, err := os.ReadFile(file + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		known := filepath.Join(t.TempDir(), "known_hosts")
		write(t, known, "[127.0.0.1]:"+portText(h.port)+" "+string(pub))
		h.SSH.KnownHosts = []string{known}
		_ = dial(t, testDialer(t), h.Host).Close()
	}
}

func TestHostCertificate(t *testing.T) {
	folder := t.TempDir()
	ca := filepath.Join(folder, "ca")
	keygen(t, "-t", "ed25519", "-f", ca)
	keygen(t, "-t", "ed25519", "-f", filepath.Join(folder, "host"))
	keygen(t, "-s", ca, "-I", "host", "-h", "-n", "127.0.0.1", filepath.Join(folder, "host.pub"))
	pub, _ := os.ReadFile(ca + ".pub")
	known := filepath.Join(folder, "known_hosts")
	write(t, known, "@cert-authority * "+string(pub))
	h := startSSHD(t, "HostKey "+filepath.Join(folder, "host"), "HostCertificate "+filepath.Join(folder, "host-cert.pub"))
	h.SSH.KnownHosts = []string{known}
	dial(t, testDialer(t), h.Host)

	// A certificate of an authority that is not known is a plain key.
	h.SSH.KnownHosts = []string{filepath.Join(folder, "none")}
	refused(t, testDialer(t), h.Host, plugins.Denied, "is not known")
}

func TestKeepaliveEndsAMuteConnection(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{})
	d := testDialer(t)
	d.Keepalive, d.KeepaliveLimit = 20*time.Millisecond, 100*time.Millisecond
	c := dial(t, d, h.Inventory("web1"))
	errs := start(t.Context(), c, &plugins.Command{Args: []string{"sleep", "60"}})
	time.Sleep(250 * time.Millisecond) // quiet, but alive
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	h.Mute()
	select {
	case <-c.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the connection still lives")
	}
	if err := <-errs; !errors.Is(err, plugins.Lost) || !strings.Contains(err.Error(), "silent for") {
		t.Errorf("got %v", err)
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "silent for") {
		t.Errorf("Err is %v", err)
	}
	h.Unmute()
	h.Kill()
}

func TestConnectionSaysWhyItEnded(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{})
	d := testDialer(t)
	c := dial(t, d, h.Inventory("web1"))
	if c.String() != "web1" || c.Err() != nil {
		t.Errorf("%q, %v", c, c.Err())
	}
	h.Kill()
	<-c.Done()
	if c.Err() == nil {
		t.Error("no reason")
	}
	c = dial(t, d, h.Inventory("web1"))
	_ = c.Close()
	if err := c.Err(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestJumpHostsShareOneConnection(t *testing.T) {
	bastion, inner := remotetest.Start(t, remotetest.Options{}), remotetest.Start(t, remotetest.Options{})
	folder := t.TempDir()
	d := testDialer(t)
	known := allKnown(t, bastion, inner)
	var hosts []*remotetest.Host
	for range 3 {
		hosts = append(hosts, remotetest.Start(t, remotetest.Options{}))
	}
	var all sync.WaitGroup
	for _, h := range hosts {
		i := h.Inventory("web")
		i.SSH.KnownHosts = append(i.SSH.KnownHosts, known)
		i.SSH.Identity = append(i.SSH.Identity, bastion.Inventory("").SSH.Identity[0], inner.Inventory("").SSH.Identity[0])
		i.SSH.Jump = "ops@" + bastion.Addr() + ", ops@" + inner.Addr()
		all.Go(func() {
			c, err := d.Dial(t.Context(), i)
			if err != nil {
				t.Error(err)
				return
			}
			out, err := plugins.Output(t.Context(), c, "echo", "through")
			if err != nil || string(out) != "through\n" {
				t.Errorf("%q, %v", out, err)
			}
			t.Cleanup(func() { _ = c.Close() })
		})
	}
	all.Wait()
	for _, h := range []*remotetest.Host{bastion, inner} {
		if total, open := h.Connections(); total != 1 || open != 1 {
			t.Errorf("%d connections, %d open", total, open)
		}
	}

	t.Run("a lost jump host takes all with it and is dialed again", func(t *testing.T) {
		i := hosts[0].Inventory("web")
		i.SSH.KnownHosts = append(i.SSH.KnownHosts, known)
		i.SSH.Identity = append(i.SSH.Identity, bastion.Inventory("").SSH.Identity[0])
		i.SSH.Jump = bastion.Addr()
		i.SSH.User = "deploy"
		c := dial(t, d, i)
		errs := start(t.Context(), c, &plugins.Command{Args: []string{"sleep", "30"}})
		time.Sleep(50 * time.Millisecond)
		bastion.Kill()
		if err := <-errs; !errors.Is(err, plugins.Lost) {
			t.Errorf("got %v", err)
		}
		dial(t, d, i)
	})
	t.Run("a jump host that refuses is named", func(t *testing.T) {
		i := hosts[0].Inventory("web")
		i.SSH.Jump = "stranger@" + bastion.Addr()
		i.SSH.Identity = []string{filepath.Join(folder, "none")}
		i.SSH.KnownHosts = append(i.SSH.KnownHosts, known)
		refused(t, d, i, plugins.Denied, "web: connect: jump host 127.0.0.1", "may not log in", "(no such file or directory)")
	})
	t.Run("nothing is dialed after Close", func(t *testing.T) {
		i := hosts[0].Inventory("web")
		i.SSH.Jump = bastion.Addr()
		_ = d.Close()
		if _, err := d.Dial(t.Context(), i); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestProxyCommand(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{})
	connect := func(t *testing.T, command string) (*remote.Dialer, inventory.Host) {
		t.Helper()
		d := testDialer(t)
		d.Config = filepath.Join(t.TempDir(), "config")
		write(t, d.Config, "Host *\n  ProxyCommand "+command+"\n")
		return d, h.Inventory("web1")
	}
	t.Run("carries the connection and ends with it", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		binary, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		d, i := connect(t, "sh -c 'echo $$ >"+pid+"; TEAL_TEST_CONNECT=%h:%p exec "+binary+"'")
		c := dial(t, d, i)
		if got := output(t, c, "echo", "through"); got != "through\n" {
			t.Errorf("got %q", got)
		}
		text, _ := os.ReadFile(pid)
		_ = c.Close()
		within(t, 3*time.Second, "proxy command gone", func() bool {
			_, err := os.Stat("/proc/" + strings.TrimSpace(string(text)))
			return err != nil
		})
	})
	t.Run("says what it died of", func(t *testing.T) {
		d, i := connect(t, "sh -c 'echo no way to %n port %p >&2; exit 3'")
		refused(t, d, i, plugins.Unavailable, "proxy command", "exit status 3: no way to 127.0.0.1 port "+portText(h.Port()))
	})
	t.Run("may hang", func(t *testing.T) {
		d, i := connect(t, "sleep 60")
		d.Timeout = 200 * time.Millisecond
		refused(t, d, i, plugins.Unavailable, "no answer within")
	})
}

func TestDialContextThroughTheHost(t *testing.T) {
	echo := listenEcho(t, "tcp", "127.0.0.1:0")
	socket := listenEcho(t, "unix", filepath.Join(t.TempDir(), "echo.sock"))
	for name, h := range map[string]inventory.Host{
		"in process": remotetest.Start(t, remotetest.Options{}).Inventory("web1"),
		"sshd":       startSSHD(t).Host,
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, testDialer(t), h)
			for _, to := range []net.Addr{echo, socket} {
				conn, err := c.DialContext(t.Context(), to.Network(), to.String())
				if err != nil {
					t.Fatal(err)
				}
				if conn.RemoteAddr().String() != to.String() || conn.LocalAddr().String() != "web1" {
					t.Errorf("%v to %v", conn.LocalAddr(), conn.RemoteAddr())
				}
				checkDeadlines(t, conn)
				_, _ = io.WriteString(conn, "one\n")
				// The other side sees our end and gives the rest.
				if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Error(err)
				}
				if got, err := io.ReadAll(conn); err != nil || string(got) != "one\n" {
					t.Errorf("%q, %v", got, err)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func checkDeadlines(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

func TestWriteDeadlineEndsAStuckWrite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it accepts nothing
	c := dial(t, testDialer(t), startSSHD(t).Host)
	conn, err := c.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for err == nil {
		_, err = conn.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestForwardedConnectionIsLostWithTheHost(t *testing.T) {
	echo := listenEcho(t, "tcp", "127.0.0.1:0")
	h := remotetest.Start(t, remotetest.Options{})
	c := dial(t, testDialer(t), h.Inventory("web1"))
	conn, err := c.DialContext(t.Context(), "tcp", echo.String())
	if err != nil {
		t.Fatal(err)
	}
	h.Kill()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, plugins.Lost) {
		t.Errorf("read: %v", err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, plugins.Lost) {
		t.Errorf("write: %v", err)
	}
	if _, err := c.DialContext(t.Context(), "tcp", echo.String()); !errors.Is(err, plugins.Lost) {
		t.Errorf("dial: %v", err)
	}
	_ = conn.Close()
}

func TestDialContextRefusals(t *testing.T) {
	folder := t.TempDir()
	silent := filepath.Join(folder, "silent.sock")
	l, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	write(t, filepath.Join(folder, "file"), "")
	live := listenEcho(t, "unix", filepath.Join(folder, "live.sock")).String()
	closed := net.JoinHostPort("127.0.0.1", portText(freePort(t)))

	open, forbidden := startSSHD(t).Host, startSSHD(t, "AllowTcpForwarding no").Host
	tests := []struct {
		host             inventory.Host
		network, address string
		kind             plugins.Kind
		text             string
	}{
		{open, "unix", filepath.Join(folder, "missing"), plugins.Unavailable, "there is no socket"},
		{open, "unix", filepath.Join(folder, "file"), plugins.Invalid, "is no socket"},
		{open, "unix", silent, plugins.Unavailable, "nobody listens on " + silent},
		{open, "tcp", closed, plugins.Unavailable, "refused"},
		{open, "tcp", "no port", plugins.Invalid, "missing port"},
		{open, "tcp", "localhost:http", plugins.Invalid, "no number"},
		{open, "udp", "127.0.0.1:53", plugins.Invalid, "only tcp and unix"},
		{forbidden, "unix", live, plugins.Denied, "AllowStreamLocalForwarding"},
		{forbidden, "tcp", closed, plugins.Denied, "AllowTcpForwarding"},
	}
	d := testDialer(t)
	for _, tt := range tests {
		c := dial(t, d, tt.host)
		_, err := c.DialContext(t.Context(), tt.network, tt.address)
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s %s: got %v", tt.network, tt.address, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := dial(t, d, open)
	if _, err := c.DialContext(ctx, "tcp", closed); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
