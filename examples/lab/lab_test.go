//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
)

// argStart makes the test program start a lab in the folder that follows and
// end, or wait to be killed.
const argStart = "lab-test-start"

func TestMain(m *testing.M) {
	if lab.Init(os.Args[1:]) {
		return
	}
	if len(os.Args) == 4 && os.Args[1] == argStart {
		detached := os.Args[3] == "detached"
		_, err := lab.Start(context.Background(), lab.Config{Dir: os.Args[2], Hosts: 1, Services: true, Detached: detached})
		fmt.Println("started:", err)
		if !detached {
			_, _ = io.Copy(io.Discard, os.Stdin)
		}
		return
	}
	if err := parallel(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// need skips a test on a machine that cannot have a lab.
func need(t *testing.T, c lab.Config) {
	t.Helper()
	missing := strings.Join(lab.Missing(c), "\n")
	if missing == "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

// start waits until there is room for a lab and starts it.
func start(t *testing.T, c lab.Config) *lab.Lab {
	t.Helper()
	need(t, c)
	takeLab(t, c)
	return powerOn(t, c)
}

// powerOn starts a lab that there is room for, and stops it when the test ends.
func powerOn(t *testing.T, c lab.Config) *lab.Lab {
	t.Helper()
	c.Dir = t.TempDir()
	l, err := lab.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, l) })
	return l
}

func stop(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// must returns what a command wrote, without the space around it.
func must(t *testing.T) func(out string, err error) string {
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
}

// get asks until there is an answer of release, for at most ten seconds.
func get(t *testing.T, url string) int {
	t.Helper()
	client := &http.Client{Timeout: time.Second}
	for deadline := time.Now().Add(10 * time.Second); ; {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			return resp.StatusCode
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestHostsAreWhatADeploymentExpects(t *testing.T) {
	t.Parallel()
	l := start(t, lab.Config{Hosts: 2, Engine: lab.Docker, Services: true})
	h1, h2 := l.Host(1), l.Host(2)
	ctx := t.Context()

	t.Run("the login user has sudo and the engine", func(t *testing.T) {
		got := must(t)(h1.SSH(ctx, `whoami; hostname; sudo -n id -u; docker version --format '{{.Server.Version}}' | cut -c 1-2; cat ~/.bashrc 2>&1 | wc -l`))
		if want := "deploy\nh1\n0\n20\n1"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("root may log in with the key", func(t *testing.T) {
		cmd := exec.CommandContext(ctx, "ssh", "-F", filepath.Join(l.Dir(), "ssh_config"), "-l", "root", "h2", "id -u")
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "0" {
			t.Errorf("%s, %v", out, err)
		}
	})
	t.Run("hosts know each other and nobody else", func(t *testing.T) {
		got := must(t)(h1.SSH(ctx, `getent hosts h2 services | awk '{print $1}'; ip route | grep -c default`+" || true"))
		if want := h2.Addr.String() + "\n" + l.Services().Addr.String() + "\n0"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("nothing of the machine's nginx is inherited", func(t *testing.T) {
		got := must(t)(h1.Exec(ctx, "sh", "-c", "ls /etc/nginx/conf.d /etc/nginx/sites-enabled /var/lib/teal 2>/dev/null; nginx -t 2>&1 | grep -c successful"))
		if want := "/etc/nginx/conf.d:\n\n/etc/nginx/sites-enabled:\n1"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("two hosts are two", func(t *testing.T) {
		const who = "cat /proc/sys/kernel/random/boot_id /etc/machine-id; docker info --format '{{.ID}}'; ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key"
		one, two := must(t)(h1.Exec(ctx, "sh", "-c", who)), must(t)(h2.Exec(ctx, "sh", "-c", who))
		for line := range strings.SplitSeq(one, "\n") {
			if strings.Contains(two, line) {
				t.Errorf("both have %q", line)
			}
		}
	})
	t.Run("images, containers, published ports", func(t *testing.T) { testContainers(t, l) })
	t.Run("a cut cable", func(t *testing.T) { testCut(t, h2) })
	t.Run("a power loss", func(t *testing.T) { testReboot(t, l) })
	t.Run("code over a forwarded agent", func(t *testing.T) { testCode(t, l) })
}

// testContainers runs the shop on both hosts and leaves it running.
func testContainers(t *testing.T, l *lab.Lab) {
	ctx := t.Context()
	image, err := l.PushImage(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range l.Hosts() {
		must(t)(h.SSH(ctx, "docker run --detach --name shop --restart always --memory 64m --publish 8080:8080 "+image))
		url := fmt.Sprintf("http://%s:8080/up", h.Addr)
		if code := get(t, url); code != http.StatusServiceUnavailable {
			t.Errorf("%s: %s answers %d, want 503 of a shop that is not installed", h, url, code)
		}
		must(t)(h.SSH(ctx, "docker exec shop sh -c 'echo hello >/srv/app/file; ls -l /bin/awk'"))
	}
	if digests := must(t)(l.Host(2).SSH(ctx, "docker image ls --digests --format '{{.Digest}}'")); !strings.HasPrefix(digests, "sha256:") {
		t.Errorf("digest %q, want one from the registry", digests)
	}
}

func testCut(t *testing.T, h *lab.Host) {
	ctx := t.Context()
	addr := netip.AddrPortFrom(h.Addr, 22).String()
	if err := h.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	if c, err := (&net.Dialer{Timeout: 300 * time.Millisecond}).DialContext(ctx, "tcp", addr); err == nil {
		_ = c.Close()
		t.Error("a host without a cable takes connections")
	}
	if h.Connected() || !h.Running() {
		t.Errorf("connected %t, running %t; want false, true", h.Connected(), h.Running())
	}
	must(t)(h.Exec(ctx, "true"))
	if err := h.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	must(t)(h.SSH(ctx, "true"))
}

func testReboot(t *testing.T, l *lab.Lab) {
	ctx, h := t.Context(), l.Host(1)
	const leave = "echo kept >~/file; sudo touch /run/volatile /etc/kept; cat /proc/sys/kernel/random/boot_id"
	before := must(t)(h.SSH(ctx, leave))
	if err := h.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	got := must(t)(h.SSH(ctx, "cat ~/file; ls /etc/kept; ls /run/volatile 2>/dev/null; cat /proc/sys/kernel/random/boot_id"))
	if !strings.HasPrefix(got, "kept\n/etc/kept\n") || strings.Contains(got, "volatile") || strings.Contains(got, before) {
		t.Errorf("after the restart: %q, boot id before: %q", got, before)
	}
	if code := get(t, fmt.Sprintf("http://%s:8080/up", h.Addr)); code != http.StatusServiceUnavailable {
		t.Errorf("the container answers %d, want 503", code)
	}
	if got := must(t)(h.SSH(ctx, "docker exec shop cat /srv/app/file")); got != "hello" {
		t.Errorf("the container's file has %q, want hello", got)
	}
}

func testCode(t *testing.T, l *lab.Lab) {
	ctx := t.Context()
	first, err := l.PublishRelease(ctx, "1", nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.PublishRelease(ctx, "2", func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "mode"), []byte("never-up\n"), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "ssh", "-F", filepath.Join(l.Dir(), "ssh_config"), "-A", "h2", "--",
		"git clone --quiet "+l.RepositoryURL("shop")+" code && cd code && git rev-parse v1 HEAD && cat release mode")
	cmd.Env = append(os.Environ(), l.Env()...)
	out, err := cmd.CombinedOutput()
	if want := first + "\n" + second + "\n2\nnever-up\n"; err != nil || string(out) != want {
		t.Errorf("got %q, error %v; want %q", out, err, want)
	}
}

func TestCableStaysOutOverARestart(t *testing.T) {
	t.Parallel()
	l := start(t, lab.Config{Hosts: 1})
	h := l.Host(1)
	if err := h.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.Running() || h.PID() != 0 {
		t.Error("a stopped host runs")
	}
	if _, err := h.Exec(t.Context(), "true"); err == nil || !strings.Contains(err.Error(), "no power") {
		t.Errorf("a command on a stopped host: %v", err)
	}
	for range 2 { // the second changes nothing
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := h.Ready(ctx); err == nil {
		t.Error("a host without a cable is ready")
	}
	if err := h.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPasswordsAreAskedFor(t *testing.T) {
	t.Parallel()
	l := start(t, lab.Config{
		Hosts: 1, Engine: lab.Docker, Services: true,
		SudoPassword: "open sesame", RegistryUser: "ci", RegistryPassword: "secret",
	})
	ctx, h := t.Context(), l.Host(1)
	if out, err := h.SSH(ctx, "sudo -n id -u"); err == nil {
		t.Errorf("sudo without a password gave %q", out)
	}
	if got := must(t)(h.SSH(ctx, "echo 'open sesame' | sudo -S -p '' id -u")); got != "0" {
		t.Errorf("sudo with the password gave %q", got)
	}
	if code := get(t, fmt.Sprintf("http://%s/v2/", l.Registry())); code != http.StatusUnauthorized {
		t.Errorf("the registry answers %d without a password, want 401", code)
	}
	image, err := l.PushImage(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := h.SSH(ctx, "docker pull "+image); err == nil {
		t.Errorf("pulled without a password: %s", out)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	c := lab.Config{Hosts: 2, Engine: lab.Docker, Services: true, Prefix: "gone"}
	need(t, c)
	takeLab(t, c)
	before := traces(t, "gone")
	c.Dir = filepath.Join(t.TempDir(), "lab")
	l, err := lab.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if during := traces(t, "gone"); during == before {
		t.Error("a running lab leaves no traces: this test sees nothing")
	}
	pid := l.Host(1).PID()
	for range 2 { // the second finds nothing to do
		stop(t, l)
	}
	if after := traces(t, "gone"); after != before {
		t.Errorf("left over:\n%s", after)
	}
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder: %v, want none", err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root", pid)); !os.IsNotExist(err) {
		t.Errorf("process 1 of h1: %v, want none", err)
	}
	if err := lab.Down(t.Context(), c.Dir); err != nil {
		t.Errorf("down where nothing is: %v", err)
	}
}

// traces lists what a lab with this prefix has on the machine outside its folder.
func traces(t *testing.T, prefix string) string {
	t.Helper()
	var all []string
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, prefix) {
			all = append(all, "link "+l.Name)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + prefix + "*", "/sys/fs/cgroup/*/" + prefix + "*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "upperdir=") && strings.Contains(line, "TestStopLeavesNothing") {
			all = append(all, line)
		}
	}
	return strings.Join(all, "\n")
}

// inOtherProcess starts a lab from another process, which stays until it is
// killed, unless the lab is detached.
func inOtherProcess(t *testing.T, kind string) (string, *exec.Cmd) {
	t.Helper()
	c := lab.Config{Hosts: 1, Services: true}
	need(t, c)
	takeLab(t, c)
	dir := filepath.Join(t.TempDir(), "lab")
	cmd := exec.CommandContext(t.Context(), os.Args[0], argStart, dir, kind)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	said := make([]byte, 200)
	n, err := out.Read(said)
	if err != nil || string(said[:n]) != "started: <nil>\n" {
		t.Fatalf("%s, %v", said[:n], err)
	}
	return dir, cmd
}

func TestDetachedLabIsOpenedAndStoppedByAnotherProcess(t *testing.T) {
	t.Parallel()
	dir, cmd := inOtherProcess(t, "detached")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	l, err := lab.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := l.Lookup("h1")
	if got := must(t)(h.SSH(t.Context(), "hostname")); got != "h1" {
		t.Errorf("h1 says %q", got)
	}
	if err := h.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, err := lab.Open(dir); err != nil || again.Host(1).PID() != h.PID() {
		t.Errorf("after a restart the lab is not what its folder says: %v", err)
	}
	add := exec.CommandContext(t.Context(), "ssh-add", "-l")
	add.Env = append(os.Environ(), l.Env()...)
	if out, err := add.CombinedOutput(); err != nil {
		t.Errorf("the agent: %v: %s", err, out)
	}
	if err := lab.Down(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if h.Running() {
		t.Error("the host runs after Down")
	}
}

func TestHostsEndWithTheProcessThatStartedThem(t *testing.T) {
	t.Parallel()
	dir, cmd := inOtherProcess(t, "attached")
	l, err := lab.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !l.Host(1).Running() {
		t.Fatal("the host does not run")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for deadline := time.Now().Add(5 * time.Second); l.Host(1).Running() || l.Services().Running(); {
		if time.Now().After(deadline) {
			t.Fatal("the hosts live on")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	need(t, lab.Config{})
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		config lab.Config
		want   string
	}{
		{"a relative folder", lab.Config{Dir: "lab"}, "not absolute"},
		{"a folder in use", lab.Config{Dir: full}, "not empty"},
		{"too many hosts", lab.Config{Dir: t.TempDir(), Hosts: 201}, "0 to 200"},
		{"an engine that is none", lab.Config{Dir: t.TempDir(), Engine: "podmann"}, "unknown engine"},
		{"an engine of one host that is none", lab.Config{Dir: t.TempDir(), Hosts: 1, Engines: []string{"podmann"}}, "unknown engine"},
		{"more engines than hosts", lab.Config{Dir: t.TempDir(), Hosts: 1, Engines: []string{lab.Docker, lab.Podman}}, "2 engines for 1 hosts"},
		{"too many load balancers", lab.Config{Dir: t.TempDir(), Balancers: 41}, "0 to 40"},
		{"fewer than none", lab.Config{Dir: t.TempDir(), Balancers: -1}, "-1 load balancers"},
		{"load balancers of nothing", lab.Config{Dir: t.TempDir(), Balancers: 2, Proxy: lab.NoProxy}, "no proxy for them"},
		{"a proxy that is none", lab.Config{Dir: t.TempDir(), Proxy: "caddy"}, "unknown proxy"},
		{"a prefix that names no link", lab.Config{Dir: t.TempDir(), Prefix: "Lab-1"}, "lower-case"},
		{"a network that is too small", lab.Config{Dir: t.TempDir(), Net: netip.MustParsePrefix("10.46.0.0/28")}, "256 addresses"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := lab.Start(t.Context(), tt.config)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(full, "precious")); err != nil {
		t.Error("a refused start has removed a file")
	}
}

func TestStartThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	need(t, lab.Config{})
	takeLab(t, lab.Config{Hosts: 1}) // the others have no time to begin
	dir := filepath.Join(t.TempDir(), "lab")
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := lab.Start(ctx, lab.Config{Dir: dir, Hosts: 8, Prefix: "late"}); err == nil {
		t.Fatal("a start without time succeeded")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder: %v, want none", err)
	}
	if left := traces(t, "late"); left != "" {
		t.Errorf("left over:\n%s", left)
	}
}

func TestTwoLabsDoNotTouchEachOther(t *testing.T) {
	t.Parallel()
	need(t, lab.Config{})
	takeLab(t, lab.Config{Hosts: 2})
	labs := make(chan *lab.Lab, 2)
	for range 2 {
		dir := t.TempDir()
		go func() {
			l, err := lab.Start(t.Context(), lab.Config{Dir: dir, Hosts: 1})
			if err != nil {
				t.Error(err)
			}
			labs <- l
		}()
	}
	a, b := <-labs, <-labs
	if a == nil || b == nil {
		t.FailNow()
	}
	if a.Network() == b.Network() {
		t.Errorf("both labs are in %s", a.Network())
	}
	stop(t, a)
	if got := must(t)(b.Host(1).SSH(t.Context(), "hostname")); got != "h1" {
		t.Errorf("the other lab's host says %q", got)
	}
	stop(t, b)
}
