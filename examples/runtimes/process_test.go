package runtimes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// freePort returns a port of loopback that is free, and so is the next one.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.MustParseAddrPort(first.Addr().String())
		second, err := net.Listen("tcp", netip.AddrPortFrom(addr.Addr(), addr.Port()+1).String())
		_ = first.Close()
		if err == nil {
			_ = second.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	panic("unreachable")
}

// need skips a test, or fails it in CI, when a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// state gives the runtime's containers a folder of the test.
func state(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", dir)
	return dir
}

func TestProcess(t *testing.T) {
	need(t, "setsid", "busybox")
	program := build(t, "process")
	t.Run("deployment", func(t *testing.T) { processIsDeployed(t, program) })
	t.Run("crash", func(t *testing.T) { processIsStartedAgain(t, program) })
	t.Run("systemd", func(t *testing.T) { processInAUnit(t, program) })
	t.Run("settings", func(t *testing.T) { processSettings(t, program) })
	t.Run("nonsense", func(t *testing.T) { processRefusesNonsense(t, program) })
}

// release makes the folder of a release's code.
func release(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte(version), 0o600); err != nil {
		t.Fatal(err)
	}
	server := "#!/bin/sh\n" + `echo "serving $(cat version) for $WHO"; exec busybox httpd -f -p "127.0.0.1:$PORT"` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "serve"), []byte(server), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// spec is what teal asks for: the code where the app file wants to see it.
func spec(name, code string, publish netip.AddrPort) plugins.Spec {
	return plugins.Spec{
		Name: name, Image: "none", Command: []string{"./serve"}, Env: map[string]string{"WHO": "you & 'me'"},
		Labels: map[string]string{"teal.app": "shop"}, Mounts: []plugins.Mount{{Source: code, Target: "/srv/app"}},
		Port: 8080, Publish: publish, Restart: plugins.RestartNever,
	}
}

// processIsDeployed goes through what a deployment does with two slots.
func processIsDeployed(t *testing.T, program string) {
	state(t)
	ctx, h := t.Context(), plugintest.Local("web1")
	rt := start(t, loader.Spec{Name: "process", Cmd: []string{program}, Settings: map[string]any{"supervisor": "setsid"}}).Runtime()
	var slots [2]plugins.Container
	var ports [2]netip.AddrPort
	for i, version := range []string{"one", "two"} {
		ports[i] = freePort(t)
		code := release(t, version)
		c, err := rt.Create(ctx, h, spec("shop-"+version, code, ports[i]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = rt.Remove(context.Background(), h, c.ID) })
		slots[i] = c
		// An install line, as teal runs it in the folder of the code.
		install := []string{"sh", "-c", `cd -- "$1" && exec sh -c "$2"`, "teal", "/srv/app", `pwd >where; echo "$PORT" >port`}
		if err := rt.Exec(ctx, h, c.ID, &plugins.Command{Args: install}); err != nil {
			t.Error(err)
		}
		if err := rt.(plugins.Restarter).Restart(ctx, h, c.ID, time.Second); err != nil {
			t.Fatal(err)
		}
		if got, want := get(t, ports[i], "/where"), code+"\n"; got != want {
			t.Errorf("%s was installed in %q, not %q", version, got, want)
		}
		if got, want := get(t, ports[i], "/port"), fmt.Sprintln(ports[i].Port()); got != want {
			t.Errorf("PORT was %q, not %q", got, want)
		}
		var log bytes.Buffer
		if err := rt.(plugins.LogStreamer).Logs(ctx, h, c.ID, 1, &log); err != nil || log.String() != "serving "+version+" for you & 'me'\n" {
			t.Errorf("the log is %q, %v", &log, err)
		}
	}
	if one, two := get(t, ports[0], "/version"), get(t, ports[1], "/version"); one != "one" || two != "two" {
		t.Errorf("they serve %q and %q", one, two)
	}
	// The teardown of blue, by the host alone.
	cmds, err := rt.(plugins.LocalRemover).LocalCommands(ctx, h, slots[0].ID, time.Second)
	if err != nil || cmds.Port != ports[0].Port() {
		t.Errorf("connections are counted at port %d, %v", cmds.Port, err)
	}
	for _, args := range [][]string{cmds.Stop, cmds.Remove} {
		if out, err := plugins.Output(ctx, h, args...); err != nil {
			t.Errorf("%s: %v", out, err)
		}
	}
	left, err := rt.List(ctx, h, map[string]string{"teal.app": "shop"})
	if err != nil || len(left) != 1 || left[0].ID != slots[1].ID || left[0].Status != plugins.StatusRunning {
		t.Errorf("afterwards: %+v, %v", left, err)
	}
}

// get returns a body, as soon as somebody answers.
func get(t *testing.T, at netip.AddrPort, path string) string {
	t.Helper()
	for range 100 {
		out, err := exec.Command("busybox", "wget", "-q", "-O", "-", "http://"+at.String()+path).Output()
		if err == nil {
			return string(out)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("nobody answers at %v", at)
	return ""
}

// processIsStartedAgain kills a process with a child, and then the supervisor.
func processIsStartedAgain(t *testing.T, program string) {
	state(t)
	ctx, h := t.Context(), plugintest.Local("web1")
	rt := start(t, loader.Spec{Name: "process", Cmd: []string{program}, Settings: map[string]any{"supervisor": "setsid"}}).Runtime()
	c, err := rt.Create(ctx, h, plugins.Spec{
		Name: "tree", Image: "none", Restart: plugins.RestartAlways, Command: []string{"sh", "-c", "sleep 1000 & echo $!; wait"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rt.Remove(context.Background(), h, c.ID); err != nil {
			t.Error(err)
		}
	}()
	child := eventually(t, "the child's id", func() string {
		var log bytes.Buffer
		if err := rt.(plugins.LogStreamer).Logs(ctx, h, c.ID, 1, &log); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(log.String())
	})
	if _, err := plugins.Output(ctx, h, "kill", "-KILL", fmt.Sprint(c.PID)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another process", func() string {
		cs, err := rt.List(ctx, h, nil)
		if err != nil || len(cs) != 1 {
			t.Fatalf("%+v, %v", cs, err)
		}
		if cs[0].Status == plugins.StatusRunning && cs[0].PID != c.PID {
			return "yes"
		}
		return ""
	})
	if stat, err := os.ReadFile("/proc/" + child + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("the child of the process that died lives on: %s", stat)
	}
}

// eventually returns what f returns once that is something.
func eventually(t *testing.T, what string, f func() string) string {
	t.Helper()
	for range 100 {
		if got := f(); got != "" {
			return got
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("no %s", what)
	panic("unreachable")
}

// systemctl notes what it is told and does the little that is asked of it.
const systemctl = `#!/bin/sh
echo "$*" >>"$0.noted"
verb=$1
[ "$verb" != --quiet ] || verb=$2
case $verb in
enable) : >"$0.enabled" ;;
disable) rm "$0.enabled" ;;
is-enabled) [ -e "$0.enabled" ] ;;
start) eval "exec setsid env -i PATH='$PATH' $(sed -n 's/^ExecStart=//p' "${0%/*}/teal-process/shop-unit/$2")" >/dev/null 2>&1 & ;;
esac
`

// processInAUnit has a systemctl of its own in PATH.
func processInAUnit(t *testing.T, program string) {
	dir := state(t)
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(systemctl), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	ctx, h := t.Context(), plugintest.Local("web1")
	rt := start(t, loader.Spec{Name: "process", Cmd: []string{program}, Settings: map[string]any{"supervisor": "systemd"}}).Runtime()
	s := spec("shop-unit", release(t, "one"), freePort(t))
	s.Memory, s.CPUs = 64<<20, 0.5
	c, err := rt.Create(ctx, h, s)
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, s.Publish, "/version"); got != "one" {
		t.Errorf("it serves %q", got)
	}
	home := filepath.Join(dir, "teal-process", "shop-unit")
	unit, err := os.ReadFile(filepath.Join(home, "teal-process-shop-unit.service"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"[Service]", `Environment="HOME=` + os.Getenv("HOME") + `"`,
		`ExecStart=/bin/sh "` + home + `/process.sh" supervise "` + home + `"`, "Restart=on-failure",
		"MemoryMax=67108864", "CPUQuota=50%", "[Install]", "WantedBy=multi-user.target", "",
	}, "\n")
	if diff := cmp.Diff(want, string(unit)); diff != "" {
		t.Error(diff)
	}
	// The host starts with it what shall always run, and that alone.
	for _, policy := range []plugins.RestartPolicy{plugins.RestartAlways, plugins.RestartNever} {
		if err := rt.(plugins.RestartPolicySetter).SetRestartPolicy(ctx, h, c.ID, policy); err != nil {
			t.Error(err)
		}
	}
	if err := rt.Remove(ctx, h, c.ID); err != nil {
		t.Error(err)
	}
	noted, err := os.ReadFile(filepath.Join(dir, "systemctl.noted"))
	if err != nil {
		t.Fatal(err)
	}
	path := home + "/teal-process-shop-unit.service"
	want = strings.Join([]string{
		"--quiet is-enabled teal-process-shop-unit.service", "--quiet link " + path, "start teal-process-shop-unit.service",
		"--quiet enable " + path,
		"--quiet is-enabled teal-process-shop-unit.service", "--quiet disable teal-process-shop-unit.service",
		"--quiet disable teal-process-shop-unit.service", "",
	}, "\n")
	if diff := cmp.Diff(want, string(noted)); diff != "" {
		t.Error(diff)
	}
}

func processSettings(t *testing.T, program string) {
	_, err := loader.Start(t.Context(), loader.Spec{Name: "process", Cmd: []string{program}, Settings: map[string]any{"supervisor": "init"}})
	if err == nil || err.Error() != `start plugin process: setting supervisor: "init" is neither systemd nor setsid` {
		t.Error(err)
	}
}

func processRefusesNonsense(t *testing.T, program string) {
	dir := state(t)
	rt := start(t, loader.Spec{Name: "process", Cmd: []string{program}}).Runtime()
	h := plugintest.Local("web1")
	for _, tt := range []struct {
		change func(*plugins.Spec)
		kind   plugins.Kind
		want   string
	}{
		{func(s *plugins.Spec) { s.Name = "../x" }, plugins.Invalid, `web1: create ../x: "../x" is no name for a container`},
		{func(s *plugins.Spec) { s.Command = nil }, plugins.Invalid, "web1: create shop: there is no command: set container.command"},
		{func(s *plugins.Spec) { s.Env = map[string]string{"A;B": ""} }, plugins.Invalid, `web1: create shop: "A;B" is no name for a variable`},
		{func(s *plugins.Spec) { s.Mounts[0].Target = "/a\tb" }, plugins.Invalid, `cannot be mounted at "/a\tb"`},
		{func(s *plugins.Spec) { s.Mounts[0].Source = "../up" }, plugins.Invalid, `"../up" cannot be mounted`},
		{func(s *plugins.Spec) { s.Command = []string{"no-such"} }, plugins.Invalid, "web1: create shop: the command is no program: set -- 'no-such'"},
	} {
		s := spec("shop", dir, freePort(t))
		tt.change(&s)
		if _, err := rt.Create(t.Context(), h, s); !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("the error is %v, not %s", err, tt.want)
		}
	}
	if left, err := rt.List(t.Context(), h, nil); err != nil || len(left) > 0 {
		t.Errorf("left behind: %+v, %v", left, err)
	}
}
