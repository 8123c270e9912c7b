package docker_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/docker"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// fakeSudo is a sudo that the login user may use without a password: what it
// is given runs as root, by way of a program with the set-user-id bit.
const fakeSudo = `#!/bin/sh
[ "$1" = -n ] || exit 1
shift
exec "${0%/*}/root" "$@"
`

// withSudo returns a PATH with the fake sudo in front.
func withSudo(t *testing.T, e *enginetest.Engine, path string) string {
	t.Helper()
	dir := filepath.Join(e.Dir, "sudo")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	setpriv, err := os.ReadFile("/usr/bin/env") // runs a program with the effective rights that it has
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	if err := os.WriteFile(root, setpriv, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, os.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sudo"), []byte(fakeSudo), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir + ":" + path
}

func TestLocalCommandsFitTheHost(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	usual := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for i, tt := range []struct {
		name string
		path string
		user string
		tool string   // in the commands
		sudo bool     // in the commands
		none bool     // Unsupported
		want []string // in the error
	}{
		{name: "docker", path: usual, tool: "docker"},
		{name: "curl", path: e.PathWithout(t, "docker"), tool: "curl"},
		{name: "docker with sudo", path: withSudo(t, e, usual), user: "nobody", tool: "docker", sudo: true},
		{
			name: "neither", path: e.PathWithout(t, "docker", "curl"), none: true,
			want: []string{"neither docker nor curl", "install one of them"},
		},
		{
			name: "no rights", path: usual, user: "nobody", none: true,
			want: []string{"group docker", "sudo without a password"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &enginetest.Host{Host: plugintest.Local("web1"), Engine: e, Path: tt.path}
			rt := docker.New(e.Socket)
			name := fmt.Sprintf("local-%d", i)
			c, err := rt.Create(t.Context(), e.Host("web1"), plugins.Spec{Name: name, Image: enginetest.Image, Command: []string{"sleep", "1000"}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := rt.Remove(t.Context(), e.Host("web1"), c.ID); err != nil {
					t.Error(err)
				}
			}()
			h.User, h.Forward = tt.user, true // how teal reaches the socket does not matter here
			cmds, err := rt.LocalCommands(t.Context(), h, c.ID, 1500*time.Millisecond)
			if tt.none {
				if !errors.Is(err, plugins.Unsupported) {
					t.Fatal(err)
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in: %v", want, err)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			check(t, h, c, cmds)
			for _, cmd := range [][]string{cmds.PID, cmds.Stop, cmds.Remove} {
				if got := strings.Contains(strings.Join(cmd, " "), "/sudo -n "); got != tt.sudo {
					t.Errorf("sudo %v in %q", got, cmd)
				}
				if !slices.ContainsFunc(cmd, func(w string) bool { return filepath.IsAbs(w) && filepath.Base(w) == tt.tool }) {
					t.Errorf("no path of %s in %q", tt.tool, cmd)
				}
			}
			if !strings.Contains(strings.Join(cmds.Stop, " "), "2") {
				t.Errorf("the grace is not in %q", cmds.Stop)
			}
		})
	}
}

// check runs the commands, each twice, as teal's teardown may.
func check(t *testing.T, h plugins.Host, c plugins.Container, cmds plugins.LocalCommands) {
	t.Helper()
	out, err := plugins.Output(t.Context(), h, cmds.PID...)
	if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(c.PID) {
		t.Errorf("the process id is %q, %v, not %d", got, err, c.PID)
	}
	if _, err := plugins.Output(t.Context(), h, cmds.Remove...); err == nil {
		t.Error("a container that runs was removed")
	}
	for range 2 {
		if _, err := plugins.Output(t.Context(), h, cmds.Stop...); err != nil {
			t.Error(err)
		}
	}
	out, _ = plugins.Output(t.Context(), h, cmds.PID...)
	if got := strings.TrimSpace(string(out)); got != "0" {
		t.Errorf("the process id of a stopped container is %q", got)
	}
	for range 2 {
		if _, err := plugins.Output(t.Context(), h, cmds.Remove...); err != nil {
			t.Error(err)
		}
	}
	if _, err := plugins.Output(t.Context(), h, cmds.Stop...); err != nil {
		t.Errorf("Stop of a container that is gone: %v", err)
	}
	if out, _ := plugins.Output(t.Context(), h, cmds.PID...); strings.TrimSpace(string(out)) != "" {
		t.Errorf("the process id of a container that is gone is %q", out)
	}
}
