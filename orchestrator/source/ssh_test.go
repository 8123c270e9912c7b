package source_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// A gitServer is a real sshd that serves the repositories of this machine.
type gitServer struct {
	dir, port string
}

func newGitServer(t *testing.T) gitServer {
	t.Helper()
	needs(t, "git", "ssh", "ssh-keygen", "ssh-agent", "ssh-add")
	if os.Getuid() != 0 {
		t.Skip("sshd lets only root log anybody in")
	}
	const sshd = "/usr/sbin/sshd"
	needs(t, sshd)
	g := gitServer{dir: t.TempDir()}
	for _, name := range []string{"host", "user", "stranger"} {
		command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name+"@test", "-f", g.path(name))
	}
	config := fmt.Sprintf("HostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\nPermitRootLogin yes\n",
		g.path("host"), g.path("user.pub"))
	if err := os.WriteFile(g.path("config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, g.port, _ = net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	background(t, exec.Command(sshd, "-D", "-f", g.path("config"), "-p", g.port, "-o", "ListenAddress=127.0.0.1"))
	for range 100 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+g.port)
		if err == nil {
			_ = c.Close()
			return g
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("sshd does not listen")
	return g
}

func (g gitServer) path(name string) string { return filepath.Join(g.dir, name) }

func (g gitServer) url(r repo) string { return "ssh://root@127.0.0.1:" + g.port + string(r) }

// knownHosts writes a known_hosts file for the server with a public key.
func (g gitServer) knownHosts(t *testing.T, key string, hashed bool) string {
	t.Helper()
	pub := strings.Fields(read(t, g.path(key+".pub")))
	file := g.path("known hosts " + key)
	line := fmt.Sprintf("# mine\nother.example.com %s %s\n[127.0.0.1]:%s %s %s\n", pub[0], pub[1], g.port, pub[0], pub[1])
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if hashed {
		command(t, "ssh-keygen", "-q", "-H", "-f", file)
		_ = os.Remove(file + ".old")
	}
	return file
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

func background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// An agentHost lends an agent of its own to commands that ask for one.
type agentHost struct {
	plugins.Host
	socket string
	asked  [][]string
}

func (a *agentHost) RunWithAgent(ctx context.Context, cmd *plugins.Command, identities []string) error {
	a.asked = append(a.asked, identities)
	cmd.Env = map[string]string{"SSH_AUTH_SOCK": a.socket}
	return a.Run(ctx, cmd)
}

func (g gitServer) agent(t *testing.T, key string) *agentHost {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	background(t, exec.Command("ssh-agent", "-D", "-a", socket))
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if key != "" {
		cmd := exec.CommandContext(t.Context(), "ssh-add", "-q", g.path(key))
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return &agentHost{Host: web1, socket: socket}
}

func TestFetchOverSSHWithTheOperatorsAgent(t *testing.T) {
	g := newGitServer(t)
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	for _, hashed := range []bool{false, true} {
		h := g.agent(t, "user")
		s, err := source.New(source.Options{
			Code:       spec.Code{Repository: g.url(r), Ref: "main", Via: "host", Identity: []string{"~/.ssh/work"}},
			KnownHosts: []string{"/no/such/file", g.knownHosts(t, "host", hashed)}, Cache: cacheOf(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Resolve(t.Context(), h)
		if err != nil || got != commit {
			t.Fatalf("hashed %t: got %s, %v", hashed, got, err)
		}
		dir := filepath.Join(t.TempDir(), `a "dir"`)
		if got := fetch(t, s, h, dir, "r1", commit); got["a"] != "-rw-r--r-- 1" {
			t.Errorf("got %v", got)
		}
		onlyExpected(t, dir)
		if _, err := os.Stat(filepath.Join(os.Getenv("HOME"), ".ssh/known_hosts")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a host key was stored on the host: %v", err)
		}
		if len(h.asked) != 2 || !strings.HasSuffix(h.asked[0][0], "/.ssh/work") || strings.HasPrefix(h.asked[0][0], "~") {
			t.Errorf("the agent was asked for %q", h.asked)
		}
	}
}

func TestFetchFromHereWithAKeyFile(t *testing.T) {
	g := newGitServer(t)
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	key := g.path("it's a key")
	if err := os.WriteFile(key, []byte(read(t, g.path("user"))), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := source.New(source.Options{
		Code:       spec.Code{Repository: g.url(r), Ref: "main", Via: "controller", Identity: []string{key}},
		KnownHosts: []string{g.knownHosts(t, "host", true)}, Cache: cacheOf(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if got := fetch(t, s, withoutGit(t), t.TempDir(), "r1", commit); got["a"] != "-rw-r--r-- 1" {
		t.Errorf("got %v", got)
	}
}

func TestFetchOverSSHSaysWhatIsWrong(t *testing.T) {
	g := newGitServer(t)
	r := newRepo(t)
	commit := r.commit(t, map[string]string{"a": "1"})
	for _, tt := range []struct {
		name, agent, hostKey, url string
		kind                      plugins.Kind
		want                      []string
	}{
		{"no key in the agent", "", "host", g.url(r), plugins.Denied, []string{"Permission denied (publickey)", "no key was offered"}},
		{"a wrong key in the agent", "stranger", "host", g.url(r), plugins.Denied, []string{"Permission denied (publickey)", "offered: stranger@test ED25519 SHA256:"}},
		{"a host key that is not known", "user", "", g.url(r), plugins.Denied, []string{"is not known", "ssh-keyscan -p " + g.port + " 127.0.0.1"}},
		{"another host key", "user", "stranger", g.url(r), plugins.Denied, []string{"is not the one in known_hosts"}},
		{"no such repository", "user", "host", g.url(r) + "x", plugins.NotFound, []string{"was not found, or this login may not see it"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			known := []string{"/no/such/file"}
			if tt.hostKey != "" {
				known = []string{g.knownHosts(t, tt.hostKey, false)}
			}
			s, err := source.New(source.Options{
				Code:       spec.Code{Repository: tt.url, Ref: "main", Via: "host"},
				KnownHosts: known, Cache: cacheOf(t),
			})
			if err != nil {
				t.Fatal(err)
			}
			h, dir := g.agent(t, tt.agent), t.TempDir()
			_, fetchErr := s.Fetch(t.Context(), h, source.Request{Dir: dir, Release: "r1", Commit: commit})
			_, resolveErr := s.Resolve(t.Context(), h)
			for _, err := range []error{fetchErr, resolveErr} {
				if !errors.Is(err, tt.kind) {
					t.Errorf("got %v, want kind %s", err, tt.kind)
					continue
				}
				for _, part := range tt.want {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%v\nlacks %q", err, part)
					}
				}
				if strings.Contains(err.Error(), "debug1") || strings.Contains(err.Error(), "\n") {
					t.Errorf("noise in %q", err)
				}
			}
			onlyExpected(t, dir)
		})
	}
}
