//go:build linux

package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/examples/lab"
)

// TestAdHocNeedsNoFile deploys to a bare server with flags alone, with what
// OpenSSH knows of it: its name, its login and its host key.
func TestAdHocNeedsNoFile(t *testing.T) {
	t.Parallel()
	program, err := buildTeal()
	if err != nil {
		t.Fatal(err)
	}
	on := engines(t)[0]
	l := start(t, lab.Config{Hosts: 1, Engine: on.engine, Services: true})
	image, err := l.PushImage(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	include := "Include " + filepath.Join(l.Dir(), "ssh_config") + "\n"
	if err := os.WriteFile(filepath.Join(home, ".ssh", "config"), []byte(include), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fleet{Lab: l, t: t, teal: program, state: t.TempDir()}
	teal := func(args ...string) ended {
		cmd := f.command(t.Context(), args[0])
		cmd.Args = append(cmd.Args[:1], args...)
		// OpenSSH itself takes the home from the user database, so teal is left
		// to read the configuration alone, as it does where there is no ssh.
		cmd.Env = append(cmd.Env, "HOME="+home, "PATH=/nowhere")
		return f.finish(cmd, nil)
	}
	deploy := func(image, page string) ended {
		return teal(
			"deploy", "--json", "--yes", "--on", "root@h1:22", "--app", "hello", "--runtime", on.runtime, "--image", image, "--port", "8080",
			"--http", "/"+page, "--proxy", "nginx", "--listen", "80", "--version", page,
			"--", "/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/bin",
		)
	}
	first := f.must(deploy(image, "busybox"))
	if h := first.result.Hosts[0]; h.State != "done" || h.Version != "busybox" {
		t.Errorf("host is %s, serves %s", h.State, h.Version)
	}
	if code := get(t, "http://"+l.Host(1).Addr.String()+"/busybox"); code != 200 {
		t.Errorf("the public listener answers %d", code)
	}
	status := f.must(teal("status", "--json", "--on", "root@h1:22", "--app", "hello", "--runtime", on.runtime))
	if !strings.Contains(status.stdout, `"live":"green"`) {
		t.Errorf("status by the app's name: %s", status.stdout)
	}
	bad := deploy(l.Registry().String()+"/none:1", "busybox")
	f.want(bad, 4)
	if !strings.Contains(bad.result.Error, "no such image") {
		t.Errorf("error is %q", bad.result.Error)
	}
}
