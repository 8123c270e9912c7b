package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins/loader"
)

// A desk is an operator's, with an app file, an inventory and a plugin; below
// it is the home of the one host, which a real sshd serves.
type desk struct {
	t    *testing.T
	dir  string
	tmp  string // TMPDIR of teal
	peak int64  // of the last deployment: the memory that it had at once, in KiB
}

const faultApp = `
app = "shop"
hosts = "web1"
runtime = "mine"

[container]
secrets = { TOKEN = { env = "TOKEN" } }

[install]
run = ["echo installed"]
timeout = "5s"

[test]
interval = "100ms"
successes = 1
stable = "0s"
checks = [{ exec = ["true"] }]

[drain]
delay = "0s"
`

// newDesk makes a desk, like another one where there is one.
func newDesk(t *testing.T, like *desk) (*desk, error) {
	dir, err := os.MkdirTemp("", "ft") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &desk{t: t, dir: dir, tmp: filepath.Join(dir, "tmp")}
	if like != nil {
		for _, name := range []string{"home", "keys", "lib"} {
			if out, err := exec.Command("cp", "-a", filepath.Join(like.dir, name), dir).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("%w: %s", err, out)
			}
		}
	} else {
		err = errors.Join(os.Mkdir(filepath.Join(dir, "home"), 0o700), os.Mkdir(filepath.Join(dir, "keys"), 0o700),
			os.Mkdir(filepath.Join(dir, "lib"), 0o755),
			keygen("-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "keys", "host")),
			keygen("-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "keys", "id")))
	}
	return d, errors.Join(err,
		os.MkdirAll(filepath.Join(dir, ".teal", "plugins"), 0o755),
		os.Mkdir(d.tmp, 0o700),
		d.inventory(9)) // where nobody listens
}

// app writes the app file. Only a plugin that hangs has little time for a call.
func (d *desk) app(tr trouble) error {
	text := faultApp
	if tr.what == "hang" {
		text += "[plugins.mine]\ntimeout = \"5s\"\n"
	}
	return os.WriteFile(filepath.Join(d.dir, "teal.toml"), []byte(text), 0o600)
}

func (d *desk) inventory(port int) error {
	key, err := os.ReadFile(filepath.Join(d.dir, "keys", "host.pub"))
	if err != nil {
		return err
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	known := filepath.Join(d.dir, "keys", "known_hosts")
	return errors.Join(
		os.WriteFile(known, fmt.Appendf(nil, "[127.0.0.1]:%d %s", port, key), 0o600),
		os.WriteFile(filepath.Join(d.dir, "inventory.toml"), fmt.Appendf(nil,
			"[hosts.web1]\naddress = \"127.0.0.1\"\nssh = { port = %d, user = %q, identity = [%q], known_hosts = [%q] }\n",
			port, me.Username, filepath.Join(d.dir, "keys", "id"), known), 0o600))
}

// serve starts the host's sshd, which ends with the test. It sees a /var/lib of
// its own, where the host keeps its record.
func (d *desk) serve() error {
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where it puts its unprivileged half
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	keys, config := filepath.Join(d.dir, "keys"), filepath.Join(d.dir, "keys", "sshd_config")
	err = os.WriteFile(config, fmt.Appendf(nil, strings.Join([]string{
		"Port %d", "ListenAddress 127.0.0.1", "HostKey %[2]s/host", "AuthorizedKeysFile %[2]s/id.pub",
		"PidFile none", "StrictModes no", "UsePAM no", "PermitRootLogin prohibit-password",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "SetEnv HOME=%[3]s", "",
	}, "\n"), port, keys, filepath.Join(d.dir, "home")), 0o600)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	const inside = `mount --bind "$1" /var/lib && exec "$2" -D -e -f "$3"`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", inside, "sh", filepath.Join(d.dir, "lib"), sshdProgram, config)
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := listens(fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		return fmt.Errorf("%w: %s", err, said.String())
	}
	return d.inventory(port)
}

// plugin puts the plugin in its place, in that of the one before, and agrees to
// it.
func (d *desk) plugin(tr trouble, protocol string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text := tr.grpc
	suffix := ""
	if protocol == "exec" {
		text, suffix = tr.exec, ".exec"
	}
	noted := fmt.Sprintf("%s %s %s %q %q", self, faultWord, protocol, tr.call, tr.what)
	switch {
	case tr.call != "":
		text = "#!/bin/sh\nexec " + noted + "\n"
	case !strings.HasPrefix(text, "#!") && !strings.HasPrefix(text, "\x7f"):
		text = "#!/bin/sh\n" + strings.ReplaceAll(text, "$SELF", noted) + "\n"
	}
	folder := filepath.Join(d.dir, ".teal", "plugins")
	if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o755)); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(text))
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "teal-runtime-mine"+suffix), []byte(text), cmp.Or(tr.mode, 0o755)),
		loader.Accept(d.dir, loader.Found{Name: "mine", SHA256: hex.EncodeToString(sum[:])}, ""),
	)
}

// command is a deployment that has not begun.
func (d *desk) command(version string, more ...string) (cmd *exec.Cmd, out *bytes.Buffer, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	out = new(bytes.Buffer)
	cmd = exec.Command(self)
	cmd.Args = append([]string{"teal", "deploy", "--yes", "--version", version}, more...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, out, out
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "TMPDIR=" + d.tmp, "TEAL_BY=operator@desk", "TOKEN=" + secret,
		"GORACE=atexit_sleep_ms=0", "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}
	return cmd, out, nil
}

// deploy deploys a version and returns what the user sees and the exit code.
func (d *desk) deploy(version string, more ...string) (said string, code int, err error) {
	cmd, out, err := d.command(version, more...)
	if err != nil {
		return "", 0, err
	}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		d.peak = usage.Maxrss
	}
	return out.String(), code, err
}

// killed deploys a version and kills teal as soon as the plugin says on
// the host that it has begun.
func (d *desk) killed(version string) (said string, err error) {
	cmd, out, err := d.command(version)
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	err = eventually(20*time.Second, func() error {
		_, err := os.Stat(filepath.Join(d.dir, "home", "began"))
		return err
	})
	err = errors.Join(err, cmd.Process.Kill())
	_ = cmd.Wait()
	return out.String(), err
}

// versions checks which containers the host has.
func (d *desk) versions(want ...string) error {
	notes, err := filepath.Glob(filepath.Join(d.dir, "home", "notes", "*"))
	got := []string{}
	for _, name := range notes {
		text, rerr := os.ReadFile(name)
		var n note
		err = errors.Join(err, rerr, json.Unmarshal(text, &n))
		got = append(got, n.Version)
	}
	slices.Sort(got)
	if diff := gocmp.Diff(want, got); diff != "" {
		err = errors.Join(err, errors.New("versions on the host: "+diff))
	}
	return err
}

// nothingLeft waits until no process and no file is left of a run. All of them
// were told of TMPDIR.
func (d *desk) nothingLeft() error {
	return eventually(5*time.Second, func() error {
		files, err := os.ReadDir(d.tmp)
		if err != nil || len(files) > 0 {
			return fmt.Errorf("left in TMPDIR: %v, %w", files, err)
		}
		processes, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		for _, p := range processes {
			line, _ := os.ReadFile(filepath.Join(p, "cmdline")) // it may have ended since
			env, _ := os.ReadFile(filepath.Join(p, "environ"))
			if bytes.Contains(line, []byte(d.tmp)) || bytes.Contains(env, []byte(d.tmp)) {
				return fmt.Errorf("process %s is left: %q", filepath.Base(p), line)
			}
		}
		return nil
	})
}

// shown makes what the user saw comparable.
func (d *desk) shown(said string) string {
	var kept strings.Builder
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "time=") { // of --verbose
			kept.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
	}
	said = strings.ReplaceAll(kept.String(), d.dir, "$DIR")
	said = strings.ReplaceAll(said, runtime.GOOS+" on "+runtime.GOARCH, "$OS on $MACHINE")
	for _, r := range []struct{ expr, with string }{
		{`\b\d\d:\d\d:\d\d\b`, "TIME"},
		{`\b\d{8}-\d{6}-[0-9a-f]{6}\b`, "RUN"},
		{`\bin [0-9.]+(µs|ms|s)\b`, "in SECONDS"},
		{`\b[0-9.]+(µs|ms|s) after`, "SECONDS after"},
		{`[0-9.]+(ms|µs) `, "MS "},
	} {
		said = regexp.MustCompile(r.expr).ReplaceAllString(said, r.with)
	}
	return said
}

// eventually repeats f until it returns nil, or the time is over.
func eventually(limit time.Duration, f func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if err := f(); err == nil || time.Now().After(end) {
			return err
		}
	}
}
