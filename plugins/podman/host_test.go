package podman_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/podman"
)

// A host is one as the tests change it, by commands of root's.
type host struct {
	*enginetest.Login
	t *testing.T
	p *enginetest.Podman
}

func newHost(t *testing.T, p *enginetest.Podman, user string) *host {
	h := &host{Login: p.Host("web1", user), t: t, p: p}
	h.Env = enginetest.Session(user)
	return h
}

// root runs a script as root.
func (h *host) root(script string, args ...string) string {
	h.t.Helper()
	out, err := plugins.Output(context.Background(), h.p.Host("web1", ""), append([]string{"sh", "-c", script, "sh"}, args...)...)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// systemd makes it look as if systemd ran, with a systemctl that says whether
// podman-restart.service is enabled.
func (h *host) systemd(restart string) {
	h.t.Helper()
	h.root(`mkdir -p /run/systemd/system /run/bin && printf '#!/bin/sh\necho %s\n' "$1" >/run/bin/systemctl && chmod 755 /run/bin/systemctl`, restart)
	h.Env = append(h.Env, "PATH=/run/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	h.t.Cleanup(func() { h.root("rm -r /run/systemd /run/bin") })
}

func (h *host) linger() {
	h.root("mkdir -p /var/lib/systemd/linger; touch /var/lib/systemd/linger/" + enginetest.User)
	h.t.Cleanup(func() { h.root("rm -r /var/lib/systemd/linger") })
}

// without hides a program or a file's content.
func (h *host) without(path string) {
	h.t.Helper()
	h.root(`mount --bind /dev/null "$1"`, path)
	h.t.Cleanup(func() { h.root(`umount "$1"`, path) })
}

func TestHostThatIsUnfitIsRefusedWithTheCure(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	for _, tt := range []struct {
		name   string
		user   string
		change func(*host)
		kind   plugins.Kind
		want   []string
	}{
		{"no podman", "", func(h *host) { h.Env = append(h.Env, "PATH="+p.PathWithout(t, "podman")) }, plugins.Unavailable, []string{"install the package podman"}},
		{
			"no subordinate ids", enginetest.User, func(h *host) { h.without("/etc/subuid") }, plugins.Denied,
			[]string{"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 deploy", "podman system migrate"},
		},
		{
			"no subordinate groups", enginetest.User, func(h *host) { h.without("/etc/subgid") }, plugins.Denied,
			[]string{"--add-subgids"},
		},
		{"no newuidmap", enginetest.User, func(h *host) { h.without("/usr/bin/newuidmap") }, plugins.Unavailable, []string{"install the package uidmap"}},
		{"no linger", enginetest.User, func(h *host) { h.systemd("enabled") }, plugins.Denied, []string{"loginctl enable-linger deploy"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, p, tt.user)
			tt.change(h)
			_, err := podman.New().Probe(t.Context(), h)
			if plugins.KindOf(err) != tt.kind {
				t.Errorf("kind %q: %v", plugins.KindOf(err), err)
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestProbeWarnsOfWhatARebootWouldEnd(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	limits := "limits of memory and processors"
	if p.Unified() {
		limits = ""
	}
	for _, tt := range []struct {
		name   string
		user   string
		change func(*host)
		want   []string // each begins a warning
	}{
		{"no systemd", "", func(*host) {}, []string{"nothing starts the containers after a reboot, because there is no systemd", "an image's own health check"}},
		{"root, not enabled", "", func(h *host) { h.systemd("disabled") }, []string{"nothing starts the containers after a reboot: systemctl enable podman-restart.service"}},
		{"root, enabled", "", func(h *host) { h.systemd("enabled") }, nil},
		{
			"rootless, not enabled", enginetest.User, func(h *host) { h.systemd("disabled"); h.linger() },
			[]string{"nothing starts the containers after a reboot: systemctl --user enable podman-restart.service", limits},
		},
		{"rootless, enabled", enginetest.User, func(h *host) { h.systemd("enabled"); h.linger() }, []string{limits}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, p, tt.user)
			tt.change(h)
			info, err := podman.New().Probe(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			if info.Name != "podman" || info.Version == "" {
				t.Errorf("%+v", info)
			}
			want := slices.DeleteFunc(tt.want, func(s string) bool { return s == "" })
			same := slices.EqualFunc(want, info.Warnings, func(want, got string) bool { return strings.HasPrefix(got, want) })
			if !same {
				t.Errorf("%q, want %q", info.Warnings, want)
			}
		})
	}
}

// traces are what services that teal starts could leave behind.
func (h *host) traces() string {
	return h.root(`ls -d /run/teal-* /run/user/*/teal-* /tmp/teal-* 2>/dev/null; for p in /proc/[0-9]*; do
		case $(tr '\0' ' ' <"$p/cmdline") in "/usr/bin/podman system service"*teal-*) echo "$p" ;; esac
	done 2>/dev/null; exit 0`)
}

func TestServiceIsGoneWithItsOperation(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	for user, bridged := range map[string]bool{"": true, enginetest.User: false} {
		h := newHost(t, p, user)
		h.NoUnix = bridged
		rt := podman.New()
		c, err := rt.Create(t.Context(), h, sleeper(t, rt, h))
		if err != nil {
			t.Fatal(err)
		}
		if got := h.traces(); got != "" {
			t.Errorf("user %q: left behind: %s", user, got)
		}
		var out bytes.Buffer
		if err := rt.Exec(t.Context(), h, c.ID, &plugins.Command{Args: []string{"echo", "up"}, Stdout: &out}); err != nil || out.String() != "up\n" {
			t.Errorf("user %q: %q, %v", user, &out, err)
		}
	}
}

// sleeper describes a container that sleeps and ends when asked, and removes
// it after the test.
func sleeper(t *testing.T, rt plugins.Runtime, h plugins.Host) plugins.Spec {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	img, err := rt.Pull(t.Context(), h, plugins.PullRequest{Image: enginetest.Image, Policy: plugins.PullNever})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, rt, h, name) })
	return plugins.Spec{
		Name: name, Image: img.Reference, Labels: map[string]string{"test": name}, Restart: plugins.RestartAlways,
		Command: []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"},
	}
}

func TestServiceIsGoneWithItsConnection(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	h := newHost(t, p, enginetest.User)
	rt := podman.New()
	c, err := rt.Create(t.Context(), h, sleeper(t, rt, h))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cut := context.WithCancelCause(t.Context())
	cause := errors.New("the cable was cut")
	err = rt.Exec(ctx, h, c.ID, &plugins.Command{
		Args: []string{"sh", "-c", "echo up; sleep 500"}, Stdout: onWrite(func() { cut(cause) }),
	})
	if !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
	if got := h.traces(); got != "" {
		t.Errorf("left behind: %s", got)
	}
	cs, err := rt.List(t.Context(), h, c.Labels)
	if err != nil || len(cs) != 1 || cs[0].PID != c.PID {
		t.Errorf("the container is %+v, %v, before %+v", cs, err, c)
	}
}

type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

func TestSocketThatNobodyServesIsPassedOver(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	h := newHost(t, p, enginetest.User)
	end := p.Serve(t, enginetest.User)
	rt := podman.New()
	for _, serves := range []bool{true, false} {
		if !serves {
			end()
		}
		info, err := rt.Probe(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(info.Settings), "a service started for each operation"); got == serves {
			t.Errorf("served %v: %s", serves, info.Settings)
		}
	}
}

// A session without XDG_RUNTIME_DIR must see what one with it made.
func TestSessionWithoutARuntimeFolderSeesTheSameContainers(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	with, without := newHost(t, p, enginetest.User), newHost(t, p, enginetest.User)
	without.Env = nil
	rt := podman.New()
	c, err := rt.Create(t.Context(), with, sleeper(t, rt, with))
	if err != nil {
		t.Fatal(err)
	}
	cs, err := podman.New().List(t.Context(), without, c.Labels)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]plugins.Container{c}, cs); diff != "" {
		t.Error(diff)
	}
	cmds, err := rt.LocalCommands(t.Context(), without, c.ID, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	checkLocal(t, without, c, cmds)
}

// Where neither systemd nor the operator makes one, Podman has its own place.
func TestUserWithoutARuntimeFolderIsServed(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	h := newHost(t, p, "bare")
	home := h.root(`
		echo "bare:x:4343:4343::$1/bare:/bin/sh" >>/etc/passwd
		echo "bare:x:4343:" >>/etc/group
		echo "bare:200000:65536" | tee -a /etc/subuid >>/etc/subgid
		mkdir -p "$1/bare" && chown 4343:4343 "$1/bare" && echo "$1/bare"`, p.Dir)
	h.Env = []string{"HOME=" + home}
	archive, err := p.Podman("", nil, "save", enginetest.Image)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context(), &plugins.Command{Args: []string{"podman", "load"}, Stdin: strings.NewReader(archive)}); err != nil {
		t.Fatal(err)
	}
	rt := podman.New()
	c, err := rt.Create(t.Context(), h, sleeper(t, rt, h))
	if err != nil {
		t.Fatal(err)
	}
	cmds, err := rt.LocalCommands(t.Context(), h, c.ID, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	checkLocal(t, h, c, cmds)
	if got := h.traces(); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

// checkLocal runs the commands, each twice, as teal's teardown may.
func checkLocal(t *testing.T, h plugins.Host, c plugins.Container, cmds plugins.LocalCommands) {
	t.Helper()
	pid := func() string {
		out, _ := plugins.Output(t.Context(), h, cmds.PID...) // may fail once there is none
		return strings.TrimSpace(string(out))
	}
	if got := pid(); got != fmt.Sprint(c.PID) {
		t.Errorf("the process id is %q, not %d", got, c.PID)
	}
	if _, err := plugins.Output(t.Context(), h, cmds.Remove...); err == nil {
		t.Error("a container that runs was removed")
	}
	for _, argv := range [][]string{cmds.Stop, cmds.Stop, cmds.Remove, cmds.Remove, cmds.Stop} {
		if _, err := plugins.Output(t.Context(), h, argv...); err != nil {
			t.Errorf("%q: %v", argv, err)
		}
	}
	if got := pid(); got != "" {
		t.Errorf("the process id of a container that is gone is %q", got)
	}
}

func TestRootsSocketIsReachedWithBecomeWhenItIsNamed(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	p.Serve(t, "")
	const socket = "/run/podman/podman.sock"
	h := newHost(t, p, enginetest.User)
	h.Sudo = true
	rt := podman.New(socket)
	c, err := rt.Create(t.Context(), h, sleeper(t, rt, h))
	if err != nil {
		t.Fatal(err)
	}
	cmds, err := rt.LocalCommands(t.Context(), h, c.ID, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	checkLocal(t, h, c, cmds)
	_, err = podman.New(socket).Probe(t.Context(), newHost(t, p, enginetest.User))
	if !errors.Is(err, plugins.Denied) || !strings.Contains(err.Error(), "set become") || strings.Contains(err.Error(), "usermod") {
		t.Errorf("without become: %v", err)
	}
}

func TestLocalCommandsAreOnlyGivenForAContainerThatTheProgramKnows(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	h := newHost(t, p, enginetest.User)
	_, err := podman.New().LocalCommands(t.Context(), h, "no-such-container", time.Second)
	if !errors.Is(err, plugins.Unsupported) || !strings.Contains(err.Error(), "does not know the container") {
		t.Error(err)
	}
}

func TestContainerComesBackAfterItDiedAndNoServiceRuns(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	for _, user := range []string{"", enginetest.User} {
		t.Run("user "+user, func(t *testing.T) {
			h := newHost(t, p, user)
			rt := podman.New()
			c, err := rt.Create(t.Context(), h, sleeper(t, rt, h))
			if err != nil {
				t.Fatal(err)
			}
			h.root(`kill -KILL "$1"`, fmt.Sprint(c.PID))
			for range 100 {
				cs, err := rt.List(t.Context(), h, c.Labels)
				if err != nil || len(cs) != 1 {
					t.Fatalf("%+v, %v", cs, err)
				}
				if cs[0].Status == plugins.StatusRunning && cs[0].PID != c.PID {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Error("it did not come back")
		})
	}
}

func TestContainerIsGivenTimeToEndWhenNothingWasSaid(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	h := newHost(t, p, "")
	rt := podman.New()
	c, err := rt.Create(t.Context(), h, sleeper(t, rt, h))
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Podman("", nil, "inspect", "-f", "{{.Config.StopTimeout}} {{.HostConfig.RestartPolicy.Name}}", c.ID)
	if err != nil || got != "10 always" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRestartPolicyCannotBeChanged(t *testing.T) {
	var rt plugins.Runtime = podman.New()
	if _, ok := rt.(plugins.RestartPolicySetter); ok {
		t.Error("the runtime says that it can")
	}
}
