package enginetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

const registryConfig = `version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: %s}
`

const registryAuth = `auth: {htpasswd: {realm: test, path: %s}}
`

// Registry starts an image registry beside the engine, at a loopback address
// of the engine's own network, and returns that address. With a user it asks
// for a login. It ends with the test.
func (e *Engine) Registry(tb testing.TB, port int, user, password string) string {
	tb.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	dir := tb.TempDir()
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
	args := e.Enter(program, "serve", path)
	cmd := exec.CommandContext(context.Background(), args[0], args[1:]...)
	ended, err := start(cmd)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	e.awaitPort(tb, address)
	return address
}

// awaitPort waits until something listens at an address near the engine.
func (e *Engine) awaitPort(tb testing.TB, address string) {
	tb.Helper()
	h := e.Host("registry")
	for range 200 {
		if conn, err := h.DialContext(context.Background(), "tcp", address); err == nil {
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
	run := func(args ...string) {
		tb.Helper()
		if _, err := e.Docker(nil, args...); err != nil {
			tb.Fatal(err)
		}
	}
	registry, _, _ := strings.Cut(name, "/")
	if login != nil {
		if _, err := e.Docker(strings.NewReader(login.Password), "login", "-u", login.Username, "--password-stdin", registry); err != nil {
			tb.Fatal(err)
		}
		defer run("logout", registry)
	}
	run("tag", Image, name)
	run("push", "-q", name)
	run("rmi", name)
}

// PushOther pushes another image under name.
func (e *Engine) PushOther(tb testing.TB, name string) {
	tb.Helper()
	id, err := e.Docker(nil, "create", Image, "true")
	if err != nil {
		tb.Fatal(err)
	}
	for _, args := range [][]string{{"commit", "--change", "LABEL another=yes", id, name}, {"rm", id}, {"push", "-q", name}, {"rmi", name}} {
		if _, err := e.Docker(nil, args...); err != nil {
			tb.Fatal(err)
		}
	}
}
