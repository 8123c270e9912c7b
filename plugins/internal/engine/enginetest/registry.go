package enginetest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

const registryConfig = `version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: %s}
`

const registryAuth = `auth: {htpasswd: {realm: test, path: %s}}
`

// Registry starts an image registry in the place, at a loopback address of its
// own network, and returns that address. With a user it asks
// for a login. It ends with the test.
func (p *Place) Registry(tb testing.TB, port int, user, password string) string {
	tb.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	dir, err := os.MkdirTemp(p.Dir, "registry") //nolint:usetesting // a place may see no other folder
	if err != nil {
		tb.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	config := fmt.Sprintf(registryConfig, filepath.Join(dir, "data"), address)
	if user != "" {
		hash, err := exec.CommandContext(tb.Context(), "htpasswd", "-nbB", user, password).Output()
		if err != nil {
			tb.Fatal(err)
		}
		passwords := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(passwords, []byte(strings.TrimSpace(string(hash))+"\n"), 0o600); err != nil {
			tb.Fatal(err)
		}
		config += fmt.Sprintf(registryAuth, passwords)
	}
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	args := p.Enter(program, "serve", path)
	cmd := exec.CommandContext(context.Background(), args[0], args[1:]...)
	ended, err := start(cmd)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	p.awaitPort(tb, address)
	return address
}

// awaitPort waits until something listens at an address in the place.
func (p *Place) awaitPort(tb testing.TB, address string) {
	tb.Helper()
	for range 200 {
		if conn, err := p.dial(context.Background(), plugintest.Local("registry"), "tcp", address); err == nil {
			_ = conn.Close()
			return
		}
		<-time.After(pollEvery)
	}
	tb.Fatalf("nothing listens at %s", address)
}

// Push pushes Image under another name, after a login when one is given, and
// forgets that name on the engine.
func (e *Engine) Push(tb testing.TB, name string, login *plugins.Auth) {
	tb.Helper()
	push(tb, e.Docker, name, login)
}

// PushOther pushes another image under name.
func (e *Engine) PushOther(tb testing.TB, name string) {
	tb.Helper()
	pushOther(tb, e.Docker, name)
}

// A program runs an engine's command line client and returns what it wrote to
// standard output.
type program func(stdin io.Reader, args ...string) (string, error)

func push(tb testing.TB, run program, name string, login *plugins.Auth) {
	tb.Helper()
	must := func(args ...string) {
		tb.Helper()
		if _, err := run(nil, args...); err != nil {
			tb.Fatal(err)
		}
	}
	registry, _, _ := strings.Cut(name, "/")
	if login != nil {
		if _, err := run(strings.NewReader(login.Password), "login", "-u", login.Username, "--password-stdin", registry); err != nil {
			tb.Fatal(err)
		}
		defer must("logout", registry)
	}
	must("tag", Image, name)
	must("push", "-q", name)
	must("rmi", name)
}

func pushOther(tb testing.TB, run program, name string) {
	tb.Helper()
	id, err := run(nil, "create", Image, "true")
	if err != nil {
		tb.Fatal(err)
	}
	for _, args := range [][]string{{"commit", "--change", "LABEL another=yes", id, name}, {"rm", id}, {"push", "-q", name}, {"rmi", name}} {
		if _, err := run(nil, args...); err != nil {
			tb.Fatal(err)
		}
	}
}
