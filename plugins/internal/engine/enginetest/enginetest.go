// Package enginetest runs engines for tests, away from the machine's own: in
// network, mount and process namespaces that it makes, with their data below a
// temporary folder. Killing one process ends all of it, containers included.
//
// A Docker Engine needs root, dockerd, busybox and the docker client. Podman
// needs root, runc, conmon and busybox, and for the user that it also serves
// newuidmap and slirp4netns; that user exists in the namespaces alone.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// Image is an image with the tools of busybox, among them sh and httpd, that
// every engine has from the start.
const Image = "teal.test/busybox:1"

// An Engine is a running Docker Engine.
type Engine struct {
	*Place
	Socket string // below Dir
}

// Require returns the engine that start made, or skips the test when there
// cannot be one; where CI is "true" it fails instead.
func Require(tb testing.TB, start func() (*Engine, error)) *Engine {
	tb.Helper()
	require(tb, missing("a Docker Engine", "dockerd", "docker", "busybox", "unshare", "nsenter", "ip", "tar"))
	e, err := start()
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func require(tb testing.TB, missing string) {
	tb.Helper()
	if missing == "" {
		return
	}
	if os.Getenv("CI") == "true" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
}

// missing says why there cannot be an engine here.
func missing(engine string, programs ...string) string {
	if os.Getuid() != 0 {
		return engine + " of the test's own needs root"
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			return err.Error()
		}
	}
	return ""
}

// daemon starts the engine: $1 is its folder, $2 the cgroup of its containers.
const daemon = `set -e
ip link set lo up
mount -t tmpfs tmpfs /run
echo '{}' >"$1/daemon.json"
exec dockerd --config-file "$1/daemon.json" --data-root "$1/data" --exec-root /run/docker \
	--pidfile /run/docker.pid -H "unix://$1/docker.sock" --group root --cgroup-parent "$2"`

// Start starts an engine and imports Image.
func Start() (*Engine, error) {
	place, err := newPlace("engine", func(dir, cgroup string) []string {
		return []string{
			"unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
			"sh", "-c", daemon, "sh", dir, "/" + cgroup,
		}
	})
	if err != nil {
		return nil, err
	}
	e := &Engine{Place: place, Socket: filepath.Join(place.Dir, "docker.sock")}
	err = place.await(func() error {
		_, err := e.Docker(nil, "version")
		return err
	})
	if err != nil {
		return nil, err
	}
	tar, err := place.image()
	if err != nil {
		return nil, err
	}
	_, err = e.Docker(bytes.NewReader(tar), "import", "--change", "LABEL of.image=yes", "-", Image)
	return e, err
}

// image returns the files of Image as an archive.
func (p *Place) image() ([]byte, error) {
	root := filepath.Join(p.Dir, "root", "bin")
	if err := os.MkdirAll(root, 0o755); err != nil { //nolint:gosec // part of an image
		return nil, err
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(root, "busybox"), program, 0o755); err != nil { //nolint:gosec // a program
		return nil, err
	}
	for _, name := range []string{"sh", "cat", "echo", "env", "sleep", "httpd", "kill", "ls", "touch", "ps", "true", "false", "wc", "head", "yes"} {
		if err := os.Symlink("busybox", filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return exec.CommandContext(context.Background(), "tar", "-C", filepath.Dir(root), "-c", ".").Output()
}

// Docker runs the docker client against the engine and returns what it wrote
// to standard output.
func (e *Engine) Docker(stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(context.Background(), "docker", append([]string{"-H", "unix://" + e.Socket}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+filepath.Join(e.Dir, "config"))
	cmd.Stdin = stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("docker %v: %w: %s", args, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), err
}

// PathWithout returns a PATH in which a program is not found.
func (p *Place) PathWithout(tb testing.TB, names ...string) string {
	tb.Helper()
	dir, err := os.MkdirTemp(p.Dir, "path") //nolint:usetesting // a place may see no other folder
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // programs for all users
		tb.Fatal(err)
	}
	for _, name := range []string{"sh", "id", "test", "sed", "env", "curl", "docker", "sudo", "sleep", "cat", "kill"} {
		path, err := exec.LookPath(name)
		if err != nil || slices.Contains(names, name) {
			continue
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// Host returns the engine's surroundings as a host, seen by root.
func (e *Engine) Host(name string) plugins.Host {
	return &Host{Host: plugintest.Local(name), Engine: e}
}

// A Host runs commands and makes connections where the engine runs.
type Host struct {
	plugins.Host
	Engine  *Engine
	User    string // runs commands without become; empty: root
	NoUnix  bool   // sockets are not forwarded, as some SSH servers have it
	Path    string // PATH of commands; empty: as it is
	NoSudo  bool   // become is not set up: it means the login user
	Forward bool   // sockets are forwarded though User is not root
	Dialled func(network, address string)
}

// Run implements plugins.Host.
func (h *Host) Run(ctx context.Context, cmd *plugins.Command) error {
	inner := *cmd
	args := cmd.Args
	if h.Path != "" {
		args = append([]string{"/usr/bin/env", "PATH=" + h.Path}, args...)
	}
	if h.User != "" && (!cmd.Become || h.NoSudo) {
		args = append([]string{"/usr/bin/setpriv", "--reuid", h.User, "--regid", "nogroup", "--clear-groups"}, args...)
	}
	inner.Args = h.Engine.Enter(args...)
	err := h.Host.Run(ctx, &inner)
	if exit, ok := errors.AsType[*plugins.ExitError](err); ok {
		exit.Args = cmd.Args
	}
	return err
}

// DialContext implements plugins.Host.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if h.Dialled != nil {
		h.Dialled(network, address)
	}
	if network == "unix" && (h.NoUnix || h.User != "" && !h.Forward) {
		return nil, &plugins.Error{Op: "dial " + address, Host: h.String(), Kind: plugins.Denied, Err: errors.New("open failed")}
	}
	return h.Engine.dial(ctx, h.Host, network, address)
}
