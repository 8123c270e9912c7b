package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
	"github.com/teal-deploy/teal/plugins"
)

// startAgent serves an agent with the keys of files and returns its socket.
func startAgent(t *testing.T, files ...string) string {
	t.Helper()
	ring := agent.NewKeyring()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		private, err := ssh.ParseRawPrivateKey(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: private, Comment: filepath.Base(file)}); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
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
				_ = agent.ServeAgent(ring, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	return socket
}

// authorize makes a key, encrypted when there is a passphrase, that may log in.
func authorize(t *testing.T, h *sshd, file, passphrase string) {
	t.Helper()
	// One round: how long a passphrase takes to try is not what is tested.
	keygen(t, "-t", "ed25519", "-a", "1", "-N", passphrase, "-f", file)
	pub, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(h.folder, "authorized_keys"), string(pub))
	h.SSH.Identity = []string{file}
}

func TestKeyOfTheAgentIsFoundByThePublicHalf(t *testing.T) {
	h := startSSHD(t, "MaxAuthTries 2")
	folder := t.TempDir()
	var others []string
	for i := range 8 {
		others = append(others, filepath.Join(folder, fmt.Sprint("other", i)))
		remotetest.WriteKey(t, others[i], "")
	}
	mine := filepath.Join(folder, "mine")
	authorize(t, h, mine, "")
	socket := startAgent(t, append(others, mine)...)
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	for name, identity := range map[string]string{"beside the private half": mine, "named itself": mine + ".pub"} {
		t.Run(name, func(t *testing.T) {
			d := testDialer(t)
			t.Setenv("SSH_AUTH_SOCK", socket)
			i := h.Host
			i.SSH.Identity = []string{identity}
			dial(t, d, i)
		})
	}
	t.Run("not at all", func(t *testing.T) {
		d := testDialer(t)
		t.Setenv("SSH_AUTH_SOCK", socket)
		i := h.Host
		i.SSH.Identity = []string{filepath.Join(folder, "gone")}
		refused(t, d, i, plugins.Denied, "Too many authentication failures", "other0 of the agent (ssh-ed25519 SHA256:", "gone (no such file")
	})
	t.Run("an agent that says nothing costs no more than the time limit", func(t *testing.T) {
		d := testDialer(t)
		d.Timeout = 300 * time.Millisecond
		socket := filepath.Join(folder, "deaf.sock")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		t.Setenv("SSH_AUTH_SOCK", socket)
		refused(t, d, h.Host, plugins.Unavailable, "no answer within 300ms")
	})
	t.Run("an agent that is gone is named", func(t *testing.T) {
		d := testDialer(t)
		t.Setenv("SSH_AUTH_SOCK", filepath.Join(folder, "no.sock"))
		refused(t, d, h.Host, plugins.Denied, "not offered: ", "the agent's keys (dial unix")
	})
}

func TestIdentitiesOnlyAndIdentityAgent(t *testing.T) {
	h := startSSHD(t)
	file := filepath.Join(t.TempDir(), "mine")
	authorize(t, h, file, "")
	socket := startAgent(t, file)
	h.SSH.Identity = nil
	if err := errors.Join(os.Remove(file), os.Remove(file+".pub")); err != nil {
		t.Fatal(err)
	}
	d := testDialer(t)
	d.Config = filepath.Join(t.TempDir(), "config")
	write(t, d.Config, "Host *\n IdentityAgent "+socket+"\n")
	dial(t, d, h.Host)

	only := testDialer(t)
	only.Config = filepath.Join(t.TempDir(), "config")
	write(t, only.Config, "Host *\n IdentityAgent "+socket+"\n IdentitiesOnly yes\n IdentityFile /nowhere/at/all\n")
	refused(t, only, h.Host, plugins.Denied, "there was no key to offer")
}

func TestPassphraseIsAskedForOnceAndOnlyWhenNeeded(t *testing.T) {
	h := startSSHD(t)
	file := filepath.Join(t.TempDir(), "mine")
	authorize(t, h, file, "open sesame")
	var asked atomic.Int64
	d := testDialer(t)
	d.Timeout = time.Second
	d.Passphrase = func(_ context.Context, name string) (string, error) {
		if name != file {
			t.Errorf("asked for %s", name)
		}
		if asked.Add(1) == 1 {
			return "close sesame", nil // mistyped
		}
		time.Sleep(1200 * time.Millisecond) // people are slower than the time limit
		return "open sesame", nil
	}
	var all sync.WaitGroup
	for range 5 {
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
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	t.Run("a host that does not know the key asks for nothing", func(t *testing.T) {
		i := remotetest.Start(t, remotetest.Options{}).Inventory("web2")
		i.SSH.Identity = []string{file}
		d := testDialer(t)
		d.Passphrase = func(context.Context, string) (string, error) {
			t.Error("asked")
			return "", nil
		}
		refused(t, d, i, plugins.Denied, "offered: "+file)
	})
	t.Run("a wrong passphrase is given up", func(t *testing.T) {
		asked := 0
		d := testDialer(t)
		d.Passphrase = func(context.Context, string) (string, error) {
			asked++
			return "wrong", nil
		}
		for range 2 {
			refused(t, d, h.Host, plugins.Denied, "decrypt "+file+": the passphrase is wrong")
		}
		if asked != 3 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("an old format without a public half", func(t *testing.T) {
		old := filepath.Join(t.TempDir(), "old")
		keygen(t, "-t", "rsa", "-b", "2048", "-m", "PEM", "-f", old)
		pub, err := os.ReadFile(old + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		keygen(t, "-p", "-m", "PEM", "-N", "open sesame", "-f", old)
		write(t, filepath.Join(h.folder, "authorized_keys"), string(pub))
		_ = os.Remove(old + ".pub")
		i := h.Host
		i.SSH.Identity = []string{old}
		d := testDialer(t)
		d.Passphrase = func(context.Context, string) (string, error) { return "open sesame", nil }
		dial(t, d, i)
	})
	t.Run("nobody to ask", func(t *testing.T) {
		refused(t, testDialer(t), h.Host, plugins.Denied, file+" (encrypted, and the agent does not hold it)")
	})
}

func TestUserCertificate(t *testing.T) {
	folder := t.TempDir()
	ca, file := filepath.Join(folder, "ca"), filepath.Join(folder, "mine")
	keygen(t, "-t", "ed25519", "-f", ca)
	h := startSSHD(t, "TrustedUserCAKeys "+ca+".pub")
	keygen(t, "-t", "rsa", "-b", "2048", "-f", file)
	keygen(t, "-s", ca, "-I", "me", "-n", h.SSH.User, file+".pub")
	h.SSH.Identity = []string{file}
	t.Run("beside the key", func(t *testing.T) { dial(t, testDialer(t), h.Host) })
	t.Run("CertificateFile", func(t *testing.T) {
		moved := filepath.Join(folder, "certificate")
		if err := os.Rename(file+"-cert.pub", moved); err != nil {
			t.Fatal(err)
		}
		refused(t, testDialer(t), h.Host, plugins.Denied)
		d := testDialer(t)
		d.Config = filepath.Join(folder, "config")
		write(t, d.Config, "Host *\n CertificateFile "+moved+"\n")
		dial(t, d, h.Host)
	})
}

func TestPasswordLogin(t *testing.T) {
	for name, o := range map[string]remotetest.Options{
		"password":             {Password: "secret", RefuseKeys: true},
		"keyboard-interactive": {Password: "secret", RefuseKeys: true, Interactive: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := remotetest.Start(t, o).Inventory("web1")
			d := testDialer(t)
			asked := 0
			answer := "secret"
			d.Password = func(_ context.Context, login string) (string, error) {
				asked++
				if login != "deploy@127.0.0.1" {
					t.Errorf("asked for %s", login)
				}
				return answer, nil
			}
			dial(t, d, h)
			answer = "wrong"
			refused(t, d, h, plugins.Denied, "offered: ", "a password")
			if asked != 2 {
				t.Errorf("asked %d times", asked)
			}
			d.Password = nil
			refused(t, d, h, plugins.Denied, "may not log in")
		})
	}
}

func TestRunWithAgentLendsOnlyWhatItIsAskedFor(t *testing.T) {
	folder := t.TempDir()
	var keys []string
	var pubs []string
	for _, name := range []string{"first", "second", "apart"} {
		file := filepath.Join(folder, name)
		pubs = append(pubs, strings.Fields(string(ssh.MarshalAuthorizedKey(remotetest.WriteKey(t, file, ""))))[1])
		keys = append(keys, file)
	}
	for name, h := range map[string]inventory.Host{
		"in process": remotetest.Start(t, remotetest.Options{}).Inventory("web1"),
		"sshd":       startSSHD(t).Host,
	} {
		t.Run(name, func(t *testing.T) {
			d := testDialer(t)
			t.Setenv("SSH_AUTH_SOCK", startAgent(t, keys[0], keys[1]))
			c := dial(t, d, h)
			list := func(identities ...string) string {
				var out bytes.Buffer
				err := c.RunWithAgent(t.Context(), &plugins.Command{Args: []string{"ssh-add", "-L"}, Stdout: &out}, identities)
				if err != nil {
					t.Error(err)
				}
				return out.String()
			}
			// Twice: the host grants its socket only once.
			for range 2 {
				if got := list(); !strings.Contains(got, pubs[0]) || !strings.Contains(got, pubs[1]) || strings.Contains(got, pubs[2]) {
					t.Errorf("the operator's agent: %s", got)
				}
				if got := list(keys[2]); strings.Contains(got, pubs[0]) || !strings.Contains(got, pubs[2]) {
					t.Errorf("one key: %s", got)
				}
			}
			// It signs, and nothing else.
			err := c.RunWithAgent(t.Context(), &plugins.Command{Args: []string{
				"sh", "-c", `printf data >"$1" && ssh-keygen -q -Y sign -f "$2" -n test "$1" </dev/null`, "teal",
				filepath.Join(folder, "data"), keys[2] + ".pub",
			}}, keys[2:])
			if err != nil {
				t.Error(err)
			}
			if err := c.RunWithAgent(t.Context(), &plugins.Command{Args: []string{"ssh-add", "-D"}}, nil); err == nil {
				t.Error("the host may remove keys")
			}
			// Other commands have none, even if they look for the socket.
			if got := output(t, c, "sh", "-c", "echo \"<$SSH_AUTH_SOCK>\""); got != "<>\n" {
				t.Errorf("another command has the agent: %s", got)
			}
			var socket bytes.Buffer
			if err := c.RunWithAgent(t.Context(), &plugins.Command{Args: []string{"printenv", "SSH_AUTH_SOCK"}, Stdout: &socket}, nil); err != nil {
				t.Error(err)
			}
			err = c.Run(t.Context(), &plugins.Command{
				Args: []string{"ssh-add", "-l"}, Env: map[string]string{"SSH_AUTH_SOCK": strings.TrimSpace(socket.String())},
			})
			if _, ok := errors.AsType[*plugins.ExitError](err); !ok {
				t.Errorf("the agent outlives its command: %v", err)
			}
		})
	}
}

func TestRunWithAgentSaysWhyThereIsNone(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	c := dial(t, testDialer(t), remotetest.Start(t, remotetest.Options{}).Inventory("web1"))
	cmd := &plugins.Command{Args: []string{"true"}}
	for identity, text := range map[string]string{"": "no agent runs here", missing: missing + " (no such file"} {
		var identities []string
		if identity != "" {
			identities = []string{identity}
		}
		err := c.RunWithAgent(t.Context(), cmd, identities)
		if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v", err)
		}
	}
	file := filepath.Join(t.TempDir(), "key")
	remotetest.WriteKey(t, file, "")
	for name, h := range map[string]inventory.Host{
		"in process": remotetest.Start(t, remotetest.Options{RefuseAgent: true}).Inventory("web1"),
		"sshd":       startSSHD(t, "AllowAgentForwarding no").Host,
	} {
		c := dial(t, &remote.Dialer{Config: "none"}, h)
		err := c.RunWithAgent(t.Context(), cmd, []string{file})
		if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "AllowAgentForwarding") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
