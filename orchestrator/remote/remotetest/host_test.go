package remotetest_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// login connects with the library alone.
func login(t *testing.T, h *remotetest.Host) *ssh.Client {
	t.Helper()
	text, err := os.ReadFile(h.Inventory("web1").SSH.Identity[0])
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", h.Addr(), &ssh.ClientConfig{
		User: "deploy", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(h.HostKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestHostRunsCommands(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{Env: map[string]string{"A": "b"}})
	s, err := login(t, h).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	s.Stdin, s.Stderr = strings.NewReader("in"), &stderr
	out, err := s.Output("cat; echo $A$USER; echo err >&2; exit 3")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 3 || string(out) != "inbdeploy\n" || stderr.String() != "err\n" {
		t.Errorf("%q, %q, %v", out, stderr.String(), err)
	}
	if total, open := h.Connections(); total != 1 || open != 1 {
		t.Errorf("%d connections, %d open", total, open)
	}
}

func TestHostLimitsSessions(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{MaxSessions: 2})
	client := login(t, h)
	for range 2 {
		if _, err := client.NewSession(); err != nil {
			t.Fatal(err)
		}
	}
	var refused *ssh.OpenChannelError
	if _, err := client.NewSession(); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
}

func TestHostRefuses(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{RefuseForwarding: true, RefuseSFTP: true, RefuseAgent: true})
	client := login(t, h)
	for network, address := range map[string]string{"tcp": "127.0.0.1:1", "unix": "/nowhere"} {
		var refused *ssh.OpenChannelError
		if _, err := client.Dial(network, address); !errors.As(err, &refused) {
			t.Errorf("%s: %v", network, err)
		}
	}
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestSubsystem("sftp"); err == nil {
		t.Error("sftp works")
	}
	if ok, err := s.SendRequest("auth-agent-req@openssh.com", true, nil); ok || err != nil {
		t.Errorf("agent: %v, %v", ok, err)
	}
}

func TestHostHasFaults(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{Delay: 10 * time.Millisecond})
	h.Drop(1)
	if _, err := ssh.Dial("tcp", h.Addr(), &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(h.HostKey())}); err == nil {
		t.Error("not dropped")
	}
	client := login(t, h)
	ping := func() <-chan time.Duration {
		took := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			_, _, err := client.SendRequest("ping", true, nil)
			if err == nil {
				took <- time.Since(began)
			}
			close(took)
		}()
		return took
	}
	if d := <-ping(); d < 10*time.Millisecond {
		t.Errorf("an answer after %s", d)
	}
	h.Mute()
	late := ping()
	select {
	case <-late:
		t.Error("it speaks")
	case <-time.After(100 * time.Millisecond):
	}
	h.Unmute()
	if d, ok := <-late; !ok || d < 100*time.Millisecond {
		t.Errorf("after Unmute: %s, %v", d, ok)
	}
	h.Kill()
	if err := client.Wait(); err == nil {
		t.Error("no reason")
	}
	c, err := net.Dial("tcp", h.Addr())
	if err != nil {
		t.Fatal("it is gone for good")
	}
	_ = c.Close()
}
