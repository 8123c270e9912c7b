package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// The user of a Podman's place that is not root.
const (
	User = "deploy"
	uid  = 4242
)

const runtimeDir = "/run/user/4242"

// Session returns what an SSH server sets for a user's sessions, beside what
// it sets for all.
func Session(user string) []string {
	if user == "" {
		return nil
	}
	return []string{"XDG_RUNTIME_DIR=" + runtimeDir}
}

// Podman is a place with Podman, for root and for User. No service of it runs
// until Serve.
type Podman struct{ *Place }

// RequirePodman returns what start made, or skips the test when there cannot
// be Podman; where CI is "true" it fails instead.
func RequirePodman(tb testing.TB, start func() (*Podman, error)) *Podman {
	tb.Helper()
	require(tb, missing("Podman", "podman", "conmon", "newuidmap", "slirp4netns", "busybox", "unshare", "nsenter", "ip", "tar", "setpriv"))
	p, err := start()
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// confine moves the shell into a new control group $1 and then becomes the
// rest of its arguments.
const confine = `set -e
for top in /sys/fs/cgroup /sys/fs/cgroup/*; do
	[ -e "$top/cgroup.procs" ] || continue
	mkdir -p "$top/$1"
	for f in cpuset.cpus cpuset.mems; do
		if [ -e "$top/$f" ] && ! [ -e "$top/cgroup.controllers" ]; then cat "$top/$f" >"$top/$1/$f"; fi
	done
	echo $$ >"$top/$1/cgroup.procs"
done
shift
exec "$@"`

// join moves the shell into the control group $1 and then becomes the rest of
// its arguments.
const join = `for dir in "/sys/fs/cgroup/$1" "/sys/fs/cgroup/$1/init" /sys/fs/cgroup/*/"$1"; do
	if [ -e "$dir/cgroup.procs" ]; then echo $$ >"$dir/cgroup.procs"; fi
done 2>/dev/null
shift
exec "$@"`

// furnish makes the place what Podman's own host would be: $1 is its folder,
// $2 the user, $3 the user's number. It leaves a first process that buries
// the dead.
const furnish = `set -e
mount --make-rprivate /
ip link set lo up
hierarchies=$(grep -E '^cgroup2? ' /proc/mounts)
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup # one hierarchy cannot be mounted over itself
echo "$hierarchies" | while read -r kind dir type options rest; do
	options=$(echo "$options" | sed -E 's/(^|,)(rw|ro|nosuid|nodev|noexec|relatime|xattr|clone_children|nsdelegate|memory_recursiveprot|release_agent=[^,]*)//g; s/^,//')
	case $options in name=*) options=none,$options ;; esac
	mkdir -p "$dir"
	mount -t "$type" ${options:+-o "$options"} "$kind" "$dir"
done
mkdir -p "$1/storage" "$1/etc" "$1/home"
for f in passwd group shadow subuid subgid; do cp -p "/etc/$f" "$1/etc/"; done
echo "$2:x:$3:$3::$1/home:/bin/sh" >>"$1/etc/passwd"
echo "$2:x:$3:" >>"$1/etc/group"
echo "$2:*:19000:0:99999:7:::" >>"$1/etc/shadow"
echo "$2:100000:65536" >>"$1/etc/subuid"
echo "$2:100000:65536" >>"$1/etc/subgid"
for f in passwd group shadow subuid subgid; do mount --bind "$1/etc/$f" "/etc/$f"; done
chown "$3:$3" "$1/home"
mount --bind "$1" /mnt
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p "$1"
mount --move /mnt "$1"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p -m 755 /run/user /run/lock
mkdir -m 700 "/run/user/$3"
chown "$3:$3" "/run/user/$3"
mkdir -p /var/lib/containers /var/lib/cni /var/lib/systemd
mount --bind "$1/storage" /var/lib/containers
mount -t tmpfs -o mode=755 tmpfs /var/lib/cni
mount -t tmpfs -o mode=755 tmpfs /var/lib/systemd
mkdir -p /etc/sudoers.d
mount -t tmpfs -o mode=750 tmpfs /etc/sudoers.d
echo "$2 ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/$2
mkdir -p /dev/net
mount -t tmpfs -o mode=755 tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200
mount -t tmpfs -o mode=755 tmpfs /etc/containers
cat >/etc/containers/containers.conf <<'end'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
end
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
for port in 5001 5002 5003 5004; do
	printf '[[registry]]\nlocation = "127.0.0.1:%s"\ninsecure = true\n' "$port"
done >/etc/containers/registries.conf
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then # processes are in the leaves alone
	mkdir /sys/fs/cgroup/init
	echo 0 >/sys/fs/cgroup/init/cgroup.procs
fi
mount --make-rshared /
touch /run/furnished
while :; do
	sleep 1000 &
	wait
done`

// StartPodman makes a place for Podman and imports Image for both users.
func StartPodman() (*Podman, error) {
	place, err := newPlace("podman", func(dir, cgroup string) []string {
		return []string{
			"sh", "-c", confine, "sh", cgroup,
			"unshare", "--net", "--mount", "--pid", "--cgroup", "--ipc", "--fork", "--kill-child", "--mount-proc",
			"sh", "-c", furnish, "sh", dir, User, strconv.Itoa(uid),
		}
	})
	if err != nil {
		return nil, err
	}
	p := &Podman{place}
	if err := place.await(func() error {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/furnished", p.pid))
		return err
	}); err != nil {
		return nil, err
	}
	tar, err := place.image()
	if err != nil {
		return nil, err
	}
	for _, user := range []string{"", User} {
		_, err := p.Podman(user, bytes.NewReader(tar), "import", "--change", "LABEL of.image=yes", "-", Image)
		if err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// Unified reports whether control groups are those of version 2.
func (p *Podman) Unified() bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/root/sys/fs/cgroup/cgroup.controllers", p.pid))
	return err == nil
}

// Podman runs Podman's own client as a user, "" for root, and returns what it
// wrote to standard output.
func (p *Podman) Podman(user string, stdin io.Reader, args ...string) (string, error) {
	words := p.as(user, Session(user), append([]string{"podman"}, args...))
	cmd := exec.CommandContext(context.Background(), words[0], words[1:]...)
	cmd.Stdin = stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("podman %v: %w: %s", args, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), err
}

// as returns a command that runs as a user, as an SSH server would run it: env
// is added to what it sets.
func (p *Place) as(user string, env, args []string) []string {
	home := "/root"
	var become []string
	if user != "" {
		home = filepath.Join(p.Dir, "home")
		become = []string{"/usr/bin/setpriv", "--reuid", user, "--regid", user, "--init-groups"}
	}
	set := []string{"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home}
	words := append(become, set...)
	words = append(words, env...)
	words = p.Enter(append(words, args...)...)
	return append([]string{"sh", "-c", join, "sh", p.cgroup}, words...)
}

// Serve starts a service of Podman for a user, "" for root, at its usual
// socket. It ends with the test, or when the function is called.
func (p *Podman) Serve(tb testing.TB, user string) (end func()) {
	tb.Helper()
	socket := "/run/podman/podman.sock"
	if user != "" {
		socket = runtimeDir + "/podman/podman.sock"
	}
	script := `mkdir -p "${1%/*}" && exec podman system service --time=0 "unix://$1"`
	args := p.as(user, Session(user), []string{"sh", "-c", script, "sh", socket})
	cmd := exec.CommandContext(context.Background(), args[0], args[1:]...)
	ended, err := start(cmd)
	if err != nil {
		tb.Fatal(err)
	}
	end = func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
	tb.Cleanup(end)
	tb.Cleanup(func() { _ = os.Remove(fmt.Sprintf("/proc/%d/root%s", p.pid, socket)) })
	for range 200 {
		if conn, err := p.dial(tb.Context(), plugintest.Local("podman"), "unix", socket); err == nil {
			_ = conn.Close()
			return end
		}
		<-time.After(pollEvery)
	}
	tb.Fatalf("no service listens at %s", socket)
	return nil
}

// Push pushes Image under another name, after a login when one is given, and
// forgets that name in root's storage.
func (p *Podman) Push(tb testing.TB, name string, login *plugins.Auth) {
	tb.Helper()
	push(tb, p.root, name, login)
}

// PushOther pushes another image under name.
func (p *Podman) PushOther(tb testing.TB, name string) {
	tb.Helper()
	pushOther(tb, p.root, name)
}

func (p *Podman) root(stdin io.Reader, args ...string) (string, error) {
	return p.Podman("", stdin, args...)
}

// Host returns the place as a host with an SSH server, seen by a user.
func (p *Podman) Host(name, user string) *Login {
	return &Login{Host: plugintest.Local(name), Place: p.Place, User: user}
}

// A Login runs commands and makes connections in a place as its user does.
type Login struct {
	plugins.Host
	Place  *Place
	User   string   // "": root
	Env    []string // what the SSH server sets besides PATH and HOME
	NoUnix bool     // sockets are not forwarded
	Sudo   bool     // become leads to root
}

// Run implements plugins.Host.
func (l *Login) Run(ctx context.Context, cmd *plugins.Command) error {
	inner := *cmd
	user := l.User
	if cmd.Become && l.Sudo {
		user = ""
	}
	env := l.Env
	for k, v := range cmd.Env {
		env = append(slices.Clip(env), k+"="+v)
	}
	inner.Args = l.Place.as(user, env, cmd.Args)
	err := l.Host.Run(ctx, &inner)
	if exit, ok := errors.AsType[*plugins.ExitError](err); ok {
		exit.Args = cmd.Args
	}
	return err
}

// DialContext implements plugins.Host.
func (l *Login) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "unix" {
		_, err := plugins.Output(ctx, l, "test", "-w", address)
		if l.NoUnix || err != nil {
			return nil, &plugins.Error{Op: "dial " + address, Host: l.String(), Kind: plugins.Denied, Err: errors.New("open failed")}
		}
	}
	return l.Place.dial(ctx, l.Host, network, address)
}
