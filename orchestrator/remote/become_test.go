package remote_test

import (
	"bytes"
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

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
	"github.com/teal-deploy/teal/plugins"
)

const sudoPassword = "open sesame"

// fakeSudo behaves as sudo does towards its caller: with $SUDO_PASSWORD it
// wants that, asks three times, and takes whatever is on standard input.
const fakeSudo = `#!/bin/sh
ask=yes stdin=no
while :; do
  case $1 in
  -n) ask=never ;;
  -S) stdin=yes ;;
  -k|-H) ;;
  -p) shift ;;
  --) shift; break ;;
  *) break ;;
  esac
  shift
done
echo "sudo $SUDO_PASSWORD: $*" >>"$SUDO_LOG"
if [ -n "$SUDO_PASSWORD" ]; then
  [ $ask = yes ] || { echo 'sudo: a password is required' >&2; exit 1; }
  for i in 1 2 3; do
    IFS= read -r p || { echo 'sudo: no password was provided' >&2; exit 1; }
    [ "$p" = "$SUDO_PASSWORD" ] && { unset SSH_AUTH_SOCK; FAKE_ROOT=yes exec "$@"; }
    echo 'Sorry, try again.' >&2
  done
  echo 'sudo: 3 incorrect password attempts' >&2
  exit 1
fi
unset SSH_AUTH_SOCK
FAKE_ROOT=yes exec "$@"
`

// sudoHost is a host in this process whose programs are those of names and a
// sudo of ours.
func sudoHost(t *testing.T, password string, missing bool) (h inventory.Host, log string) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"sh", "setsid", "dd", "sleep", "cat", "true", "printenv", "ssh-add", "env"} {
		path, err := exec.LookPath(name)
		if err != nil {
			skip(t, "needs "+name)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	program := func(name, text string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("id", "#!/bin/sh\necho 1000\n")
	if !missing {
		program("sudo", fakeSudo)
	}
	log = filepath.Join(t.TempDir(), "log")
	host := remotetest.Start(t, remotetest.Options{Env: map[string]string{
		"PATH": bin, "SUDO_PASSWORD": password, "SUDO_LOG": log,
	}})
	h = host.Inventory("web1")
	h.SSH.Become = "sudo"
	return h, log
}

func TestBecomeWithAndWithoutAPassword(t *testing.T) {
	for name, password := range map[string]string{"without": "", "with": "it's \\ %s :teal:sync:"} {
		t.Run(name, func(t *testing.T) {
			h, log := sudoHost(t, password, false)
			d := testDialer(t)
			asked := 0
			if password != "" {
				d.BecomePassword = func(_ context.Context, host string) (string, error) {
					asked++
					if host != "web1" {
						t.Errorf("asked for %s", host)
					}
					return password, nil
				}
			}
			c := dial(t, d, h)
			for range 3 {
				var out bytes.Buffer
				err := c.Run(t.Context(), &plugins.Command{
					Args: []string{"sh", "-c", `echo "$FAKE_ROOT $A"; cat`}, Become: true,
					Env: map[string]string{"A": "value"}, Stdin: strings.NewReader("in\nput"), Stdout: &out,
				})
				if err != nil || out.String() != "yes value\nin\nput" {
					t.Errorf("%q, %v", out.String(), err)
				}
			}
			err := c.Run(t.Context(), &plugins.Command{Args: []string{"sh", "-c", "exit 9"}, Become: true})
			var exit *plugins.ExitError
			if !errors.As(err, &exit) || exit.Code != 9 {
				t.Errorf("got %v", err)
			}
			if got := output(t, c, "sh", "-c", `echo "<$FAKE_ROOT>"`); got != "<>\n" {
				t.Errorf("without Become: %s", got)
			}
			if password != "" && asked != 1 {
				t.Errorf("asked %d times", asked)
			}
			// One probe, one try of a password, four commands.
			text, _ := os.ReadFile(log)
			if n := strings.Count(string(text), "sudo "+password+": "); n != 5+asked {
				t.Errorf("sudo ran %d times:\n%s", n, text)
			}
		})
	}
}

func TestBecomeKeepsTheAgent(t *testing.T) {
	h, _ := sudoHost(t, "", false)
	file := filepath.Join(t.TempDir(), "key")
	pub := remotetest.WriteKey(t, file, "")
	c := dial(t, testDialer(t), h)
	var out bytes.Buffer
	err := c.RunWithAgent(t.Context(), &plugins.Command{Args: []string{"ssh-add", "-l"}, Become: true, Stdout: &out}, []string{file})
	if err != nil || !strings.Contains(out.String(), fingerprint(pub)) {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestBecomeRefusals(t *testing.T) {
	give := func(password string, err error) func(context.Context, string) (string, error) {
		return func(context.Context, string) (string, error) { return password, err }
	}
	shy := errors.New("operator says nothing")
	tests := map[string]struct {
		missing bool
		ask     func(context.Context, string) (string, error)
		text    string
	}{
		"no sudo":        {true, nil, "the host has no sudo: install it"},
		"nobody to ask":  {false, nil, `sudo wants a password and nobody can be asked (sudo: a password is required): let it be asked for with --ask-become-password, or allow it without one, "deploy ALL=(root) NOPASSWD: ALL"`},
		"wrong password": {false, give("wrong", nil), "sudo refuses: sudo: no password was provided"},
		"no answer":      {false, give("", shy), "operator says nothing"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h, _ := sudoHost(t, sudoPassword, tt.missing)
			d := testDialer(t)
			d.BecomePassword = tt.ask
			c := dial(t, d, h)
			err := c.Run(t.Context(), &plugins.Command{Args: []string{"true"}, Become: true})
			if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), sudoPassword) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// passwordHash is crypt's of sudoPassword.
const passwordHash = "$6$teal$.PuZRRi2v.bwIzoXbm1iZihcFnCR3/mFSjuH4FX6BDASAYmhp7gGhlx1qdPkH0wNfym6JFnkcK1V1tlhfvecz0"

// startHost starts sshd in a mount namespace with an /etc of its own, in which
// there is an ordinary user deploy with a shell and lines of sudoers.
func startHost(t *testing.T, shell, sudoers string) *sshd {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "needs root, for a mount namespace")
	}
	for _, program := range []string{"sudo", "unshare", "/usr/sbin/sshd"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, "needs "+program)
		}
	}
	folder := openFolder(t)
	key := remotetest.WriteKey(t, filepath.Join(folder, "id"), "")
	hostKey := remotetest.WriteKey(t, filepath.Join(folder, "host_key"), "")
	port := freePort(t)
	address := net.JoinHostPort("127.0.0.1", portText(port))
	known := filepath.Join(folder, "known_hosts")
	write(t, known, knownhosts.Line([]string{address}, hostKey)+"\n")
	write(t, filepath.Join(folder, "authorized_keys"), string(ssh.MarshalAuthorizedKey(key)))
	_ = os.Chmod(filepath.Join(folder, "authorized_keys"), 0o644)
	write(t, filepath.Join(folder, "sudoers"), "root ALL=(ALL) ALL\nDefaults env_reset\nDefaults !lecture\n"+sudoers+"\n")
	write(t, filepath.Join(folder, "sshd_config"), fmt.Sprintf(`ListenAddress %s
HostKey %[2]s/host_key
PidFile none
StrictModes no
UsePAM no
AuthorizedKeysFile %[2]s/authorized_keys
Subsystem sftp internal-sftp
`, address, folder))
	home := filepath.Join(folder, "home")
	script := fmt.Sprintf(`set -e
mount --make-rprivate /
cp -a /etc %[1]s/etc
echo 'deploy:x:54321:54321::%[2]s:%[3]s' >>%[1]s/etc/passwd
echo 'deploy:x:54321:' >>%[1]s/etc/group
echo 'deploy:%[4]s:20000:0:99999:7:::' >>%[1]s/etc/shadow
install -m 440 %[1]s/sudoers %[1]s/etc/sudoers
install -d -o 54321 %[2]s
mkdir -p /run/sshd
mount --bind %[1]s/etc /etc
exec /usr/sbin/sshd -D -e -f %[1]s/sshd_config`, folder, home, shell, passwordHash)
	startDaemon(t, address, "unshare", "--mount", "sh", "-c", script)
	return &sshd{port: port, folder: folder, Host: inventory.Host{Name: "web1", Address: "127.0.0.1", SSH: inventory.SSH{
		User: "deploy", Port: port, Become: "sudo",
		Identity: []string{filepath.Join(folder, "id")}, KnownHosts: []string{known},
	}}}
}

// openFolder is a temporary folder that other users can look into.
func openFolder(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, f := range []string{filepath.Dir(folder), folder} {
		if err := os.Chmod(f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestBecomeWithRealSudo(t *testing.T) {
	tests := map[string]struct {
		shell, sudoers, password string
		refusal                  string
	}{
		"free":           {"/bin/bash", "deploy ALL=(root) NOPASSWD: ALL", "", ""},
		"free, pty":      {"/bin/dash", "Defaults use_pty\ndeploy ALL=(root) NOPASSWD: ALL", "", ""},
		"password":       {"/bin/bash", "deploy ALL=(root) ALL", sudoPassword, ""},
		"password, pty":  {"/bin/bash", "Defaults use_pty\ndeploy ALL=(root) ALL", sudoPassword, ""},
		"remembered":     {"/bin/bash", "Defaults timestamp_type=global\ndeploy ALL=(root) ALL", sudoPassword, ""},
		"only a shell":   {"/bin/sh", "deploy ALL=(root) NOPASSWD: /bin/sh, /usr/bin/sh", "", ""},
		"wrong password": {"/bin/bash", "deploy ALL=(root) ALL", "wrong", "sudo refuses: sudo: "},
		"not allowed":    {"/bin/bash", "", sudoPassword, "sudo refuses: deploy is not in the sudoers file"},
		"nobody to ask":  {"/bin/bash", "deploy ALL=(root) ALL", "", "NOPASSWD"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &remote.Dialer{Config: "none"}
			if tt.password != "" {
				d.BecomePassword = func(context.Context, string) (string, error) { return tt.password, nil }
			}
			cable, h := lay(t, startHost(t, tt.shell, tt.sudoers).Host)
			c := dial(t, d, h)
			var out bytes.Buffer
			cmd := &plugins.Command{
				Args: []string{"sh", "-c", `id -u; echo "$A"; cat; exit 3`}, Become: true, Env: map[string]string{"A": "value"},
				Stdin: strings.NewReader("input"), Stdout: &out,
			}
			began := time.Now()
			err := c.Run(t.Context(), cmd)
			if tt.refusal != "" {
				if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), tt.refusal) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took > 6*time.Second {
					t.Errorf("it took %s", took)
				}
				return
			}
			var exit *plugins.ExitError
			if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "0\nvalue\ninput" {
				t.Errorf("%q, %v", out.String(), err)
			}
			if got := output(t, c, "id", "-un"); got != "deploy\n" {
				t.Errorf("without Become: %s", got)
			}
			// The leash holds root's processes too.
			for _, end := range []string{"cancel", "cut"} {
				file := filepath.Join(t.TempDir(), "pids")
				ctx, cancel := context.WithCancel(t.Context())
				errs := start(ctx, c, &plugins.Command{Args: []string{"sh", "-c", family, "teal", file}, Become: true})
				ids := pids(t, file)
				if end == "cut" {
					cable.cut()
				}
				cancel()
				if err := <-errs; !errors.Is(err, plugins.Lost) && !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", end, err)
				}
				gone(t, ids)
			}
		})
	}
}

func TestRootNeedsNoSudo(t *testing.T) {
	if os.Getuid() != 0 {
		skip(t, "needs root")
	}
	h := startSSHD(t)
	h.SSH.Become = "sudo"
	var out bytes.Buffer
	cmd := &plugins.Command{Args: []string{"sh", "-c", "ps -o args= -p $PPID; id -u"}, Become: true, Stdout: &out}
	if err := dial(t, testDialer(t), h.Host).Run(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "sudo") || !strings.HasSuffix(out.String(), "\n0\n") {
		t.Errorf("got %q", out.String())
	}
}

func TestOrdinaryUserWithoutRights(t *testing.T) {
	h := startHost(t, "/bin/bash", "")
	c := dial(t, testDialer(t), h.Host)
	folder := openFolder(t)
	socket := filepath.Join(folder, "engine.sock")
	listenEcho(t, "unix", socket)
	if err := errors.Join(os.Chmod(socket, 0o660), os.Chown(socket, 0, 4)); err != nil { // adm
		t.Fatal(err)
	}
	_, err := c.DialContext(t.Context(), "unix", socket)
	if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "user deploy may not open "+socket+": add it to the group adm, or set become") {
		t.Errorf("socket: %v", err)
	}
	err = c.Upload(t.Context(), filepath.Join(folder, "file"), strings.NewReader("x"), 0o600)
	if !errors.Is(err, plugins.Denied) {
		t.Errorf("upload: %v", err)
	}
	got := output(t, c, "sh", "-c", `command -v sshd`)
	if got != "/usr/sbin/sshd\n" {
		t.Errorf("programs of sbin: %q", got)
	}
}
