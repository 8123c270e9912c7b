package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/engine"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// engines is the engine that the tests of this package share.
type engines struct {
	once sync.Once
	e    *enginetest.Engine
	err  error
}

func (s *engines) start() (*enginetest.Engine, error) {
	s.once.Do(func() { s.e, s.err = enginetest.Start() })
	return s.e, s.err
}

var shared engines

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.e != nil {
		shared.e.Close()
	}
	os.Exit(code)
}

// docker returns a runtime that looks at the given sockets.
func docker(sockets ...string) *engine.Engine {
	return &engine.Engine{Name: "docker", Component: "Engine", Program: "docker", Sockets: sockets, Start: "systemctl start docker", Group: "docker"}
}

// host returns a host with the engine's surroundings to be changed.
func host(e *enginetest.Engine, name string) *enginetest.Host {
	return &enginetest.Host{Host: plugintest.Local(name), Engine: e}
}

// sleeper describes a container that sleeps, and removes it after the test.
func sleeper(t *testing.T, e *enginetest.Engine, name string) plugins.Spec {
	t.Cleanup(func() {
		if err := docker(e.Socket).Remove(context.Background(), e.Host("web1"), name); err != nil {
			t.Error(err)
		}
	})
	return plugins.Spec{Name: name, Image: enginetest.Image, Command: []string{"sleep", "1000"}, Labels: map[string]string{"test": name}}
}

func TestErrorSaysWhatKeepsTealFromTheEngine(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	dead := filepath.Join(e.Dir, "dead.sock")
	lis, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	lis.(*net.UnixListener).SetUnlinkOnClose(false)
	lis.Close()
	for _, tt := range []struct {
		name   string
		host   func(*enginetest.Host)
		socket string
		kind   plugins.Kind
		want   []string
	}{
		{
			"no engine", nil, "/no/such.sock", plugins.Unavailable,
			[]string{"no engine listens at /no/such.sock", "systemctl start docker"},
		},
		{
			"neither engine nor program", func(h *enginetest.Host) { h.Path = e.PathWithout(t, "docker") }, "/no/such.sock", plugins.Unavailable,
			[]string{"the program docker is not there either"},
		},
		{
			"an engine that does not run", nil, dead, plugins.Unavailable,
			[]string{"does not answer", "systemctl start docker"},
		},
		{
			"no rights and no become", func(h *enginetest.Host) { h.User, h.NoSudo = "nobody", true }, e.Socket, plugins.Denied,
			[]string{"user nobody (groups nogroup) may not open " + e.Socket, "set become", "usermod -aG docker nobody"},
		},
		{
			"no forwarding and no program", func(h *enginetest.Host) { h.NoUnix, h.Path = true, e.PathWithout(t, "docker") }, e.Socket, plugins.Unavailable,
			[]string{"refuses to forward a socket", "AllowStreamLocalForwarding", "the program docker"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := host(e, "web1")
			if tt.host != nil {
				tt.host(h)
			}
			_, err := docker(tt.socket).Probe(t.Context(), h)
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

func TestAnotherKindOfEngineIsRefused(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	rt := docker(e.Socket)
	rt.Name, rt.Component = "podman", "Podman Engine"
	_, err := rt.Probe(t.Context(), e.Host("web1"))
	if !errors.Is(err, plugins.Unsupported) || !strings.Contains(err.Error(), "is no podman but Engine 20.") {
		t.Error(err)
	}
}

func TestRouteIsFoundAndRemembered(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	for _, tt := range []struct {
		name string
		host func(*enginetest.Host)
		want engine.Route
	}{
		{"forwarded", func(*enginetest.Host) {}, engine.Route{Socket: e.Socket}},
		{"bridged", func(h *enginetest.Host) { h.NoUnix = true }, engine.Route{Socket: e.Socket, Bridge: true}},
		{"bridged with become", func(h *enginetest.Host) { h.User = "nobody" }, engine.Route{Socket: e.Socket, Bridge: true, Become: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := host(e, "web1")
			tt.host(h)
			var dials atomic.Int32
			h.Dialled = func(string, string) { dials.Add(1) }
			rt := docker(e.Socket)
			for range 3 {
				got, err := rt.Route(t.Context(), h)
				if err != nil || got.Socket != tt.want.Socket || got.Bridge != tt.want.Bridge || got.Become != tt.want.Become {
					t.Errorf("%+v, %v", got, err)
				}
			}
			if n := dials.Load(); tt.want.Bridge && n != 1 || !tt.want.Bridge && n != 3 {
				t.Errorf("%d attempts to forward", n)
			}
		})
	}
}

func TestRouteThatStopsWorkingIsReplaced(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	h := host(e, "web1")
	rt := docker(e.Socket)
	for _, forwarding := range []bool{true, false, true} {
		h.NoUnix = !forwarding
		if _, err := rt.Probe(t.Context(), h); err != nil {
			t.Errorf("forwarding %v: %v", forwarding, err)
		}
	}
}

// A countingHost counts the connections and commands that are open.
type countingHost struct {
	plugins.Host
	open, most atomic.Int32
}

func (h *countingHost) add(n int32) {
	now := h.open.Add(n)
	for {
		most := h.most.Load()
		if now <= most || h.most.CompareAndSwap(most, now) {
			return
		}
	}
}

func (h *countingHost) Run(ctx context.Context, cmd *plugins.Command) error {
	h.add(1)
	defer h.add(-1)
	return h.Host.Run(ctx, cmd)
}

func (h *countingHost) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := h.Host.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	h.add(1)
	return &countedConn{Conn: conn, host: h}, nil
}

type countedConn struct {
	net.Conn
	host *countingHost
	once sync.Once
}

func (c *countedConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.host.add(-1) })
	return c.Conn.Close()
}

func TestNoConnectionOutlivesItsOperation(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	for _, bridged := range []bool{false, true} {
		inner := host(e, "web1")
		inner.NoUnix = bridged
		h := &countingHost{Host: inner}
		rt := docker(e.Socket)
		if _, err := rt.Probe(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		c, err := rt.Create(t.Context(), h, sleeper(t, e, fmt.Sprintf("outlive-%v", bridged)))
		if err != nil {
			t.Fatal(err)
		}
		h.most.Store(0)
		var g errgroup.Group
		for range 8 {
			g.Go(func() error {
				var out bytes.Buffer
				err := rt.Exec(t.Context(), h, c.ID, &plugins.Command{Args: []string{"cat"}, Stdin: strings.NewReader("x"), Stdout: &out})
				if err == nil && out.String() != "x" {
					err = fmt.Errorf("it wrote %q", &out)
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if n := h.open.Load(); n != 0 {
			t.Errorf("bridged %v: %d connections are left", bridged, n)
		}
		if n := h.most.Load(); bridged && n > 4 {
			t.Errorf("%d bridges at a time", n)
		}
	}
}

func TestPullFromARegistry(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	login := &plugins.Auth{Username: "ci", Password: "s3cret"}
	open := e.Registry(t, 5001, "", "")
	closed := e.Registry(t, 5002, login.Username, login.Password)
	e.Push(t, open+"/shop:1", nil)
	e.Push(t, closed+"/shop:1", login)
	rt, h := docker(e.Socket), e.Host("web1")
	for _, tt := range []struct {
		name string
		req  plugins.PullRequest
		kind plugins.Kind
	}{
		{"never, before", plugins.PullRequest{Image: open + "/shop:1", Policy: plugins.PullNever}, plugins.NotFound},
		{"missing", plugins.PullRequest{Image: open + "/shop:1", Policy: plugins.PullMissing}, ""},
		{"never, after", plugins.PullRequest{Image: open + "/shop:1", Policy: plugins.PullNever}, ""},
		{"always", plugins.PullRequest{Image: open + "/shop:1", Policy: plugins.PullAlways}, ""},
		{"no such tag", plugins.PullRequest{Image: open + "/shop:9", Policy: plugins.PullAlways}, plugins.NotFound},
		{"no such repository", plugins.PullRequest{Image: open + "/nothing:1", Policy: plugins.PullMissing}, plugins.NotFound},
		{"no registry", plugins.PullRequest{Image: "127.0.0.1:5999/shop:1", Policy: plugins.PullAlways}, plugins.Unavailable},
		{"no login", plugins.PullRequest{Image: closed + "/shop:1", Policy: plugins.PullAlways}, plugins.Denied},
		{"wrong login", plugins.PullRequest{Image: closed + "/shop:1", Policy: plugins.PullAlways, Auth: &plugins.Auth{Username: "ci", Password: "wrong"}}, plugins.Denied},
		{"login", plugins.PullRequest{Image: closed + "/shop:1", Policy: plugins.PullAlways, Auth: login}, ""},
	} {
		img, err := rt.Pull(t.Context(), h, tt.req)
		if plugins.KindOf(err) != tt.kind || (err != nil) != (tt.kind != "") {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wrong") {
				t.Errorf("%s: the password is in the error", tt.name)
			}
			continue
		}
		repository, _, _ := strings.Cut(strings.ReplaceAll(tt.req.Image, ":1", ""), "@")
		if img.Reference != repository+"@"+img.Digest && !strings.HasPrefix(img.Reference, strings.TrimSuffix(tt.req.Image, ":1")+"@sha256:") {
			t.Errorf("%s: %+v", tt.name, img)
		}
		pinned, err := rt.Pull(t.Context(), h, plugins.PullRequest{Image: img.Reference, Policy: plugins.PullAlways, Auth: tt.req.Auth})
		if err != nil || pinned != img {
			t.Errorf("%s, pinned: %+v, %v", tt.name, pinned, err)
		}
	}
}

func TestMovedTagMeansWhatTheRegistrySays(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	reg := e.Registry(t, 5003, "", "")
	name := reg + "/moved:1"
	e.Push(t, name, nil)
	rt, h := docker(e.Socket), e.Host("web1")
	var lines bytes.Buffer
	pull := func(policy plugins.PullPolicy) plugins.Image {
		t.Helper()
		img, err := rt.Pull(t.Context(), h, plugins.PullRequest{Image: name, Policy: policy, Progress: &lines})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	first := pull(plugins.PullAlways)
	e.PushOther(t, name)
	if _, err := e.Docker(nil, "tag", first.Reference, name); err != nil { // the host still has the old one
		t.Fatal(err)
	}
	if got := pull(plugins.PullMissing); got != first {
		t.Errorf("missing: %+v, not %+v", got, first)
	}
	second := pull(plugins.PullAlways)
	if second.Digest == first.Digest {
		t.Errorf("always: still %+v", second)
	}
	if got := lines.String(); !strings.HasSuffix(got, "1 of 1 layers\n") {
		t.Errorf("progress is %q", got)
	}
	c, err := rt.Create(t.Context(), h, plugins.Spec{Name: "moved", Image: first.Reference, Command: []string{"sleep", "100"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Image != first.Reference {
		t.Errorf("the container's image is %s", c.Image)
	}
	if err := rt.Remove(t.Context(), h, c.ID); err != nil {
		t.Error(err)
	}
}

func TestErrorNamesWhoHoldsThePort(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	rt, h := docker(e.Socket), e.Host("web1")
	first := sleeper(t, e, "holder")
	first.Port, first.Publish = 80, netip.MustParseAddrPort("127.0.0.1:21001")
	if _, err := rt.Create(t.Context(), h, first); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan error, 1)
	go func() {
		listening <- h.Run(ctx, &plugins.Command{Args: []string{"busybox", "httpd", "-f", "-p", "127.0.0.1:21002", "-h", "/"}})
	}()
	defer func() { cancel(); <-listening }()
	for range 100 { // ss sees the listener without connecting to it
		if out, _ := plugins.Output(ctx, h, "ss", "-Hltn", "sport = :21002"); len(out) > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for port, holder := range map[string]string{"21001": "the container holder", "21002": "busybox (process "} {
		spec := sleeper(t, e, "wants-"+port)
		spec.Port, spec.Publish = 80, netip.MustParseAddrPort("127.0.0.1:"+port)
		_, err := rt.Create(t.Context(), h, spec)
		if !errors.Is(err, plugins.Conflict) || !strings.Contains(err.Error(), "127.0.0.1:"+port+" is taken by "+holder) {
			t.Errorf("port %s: %v", port, err)
		}
		if cs, err := rt.List(t.Context(), h, spec.Labels); err != nil || len(cs) != 0 {
			t.Errorf("left behind: %+v, %v", cs, err)
		}
	}
}

func TestCancelledCreateLeavesNothingBehind(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	rt, h := docker(e.Socket), e.Host("web1")
	for i := range 12 {
		spec := sleeper(t, e, fmt.Sprintf("cancelled-%d", i))
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*15*time.Millisecond)
		_, err := rt.Create(ctx, h, spec)
		cancel()
		cs, lerr := rt.List(t.Context(), h, spec.Labels)
		if lerr != nil {
			t.Fatal(lerr)
		}
		if err != nil && len(cs) == 1 && cs[0].Status != plugins.StatusRunning {
			t.Errorf("after %d ms (%v): %+v", i*15, err, cs)
		}
	}
}

func TestLimitsAndPolicyReachTheEngine(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	rt, h := docker(e.Socket), e.Host("web1")
	spec := sleeper(t, e, "limits")
	spec.Memory, spec.CPUs, spec.StopGrace, spec.Restart = 64<<20, 0.5, 3*time.Second, plugins.RestartAlways
	if _, err := rt.Create(t.Context(), h, spec); err != nil {
		t.Fatal(err)
	}
	got, err := e.Docker(nil, "inspect", "-f",
		"{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.Config.StopTimeout}} {{.HostConfig.RestartPolicy.Name}} {{.Path}}", "limits")
	if want := "67108864 500000000 3 always sleep"; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

func TestCommandIsKilledWithoutRightsOnTheHost(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	// The login user is in the engine's group, and has no more rights.
	h := host(e, "web1")
	h.User, h.NoSudo, h.Forward = "nobody", true, true
	rt := docker(e.Socket)
	c, err := rt.Create(t.Context(), h, sleeper(t, e, "unkillable"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("Ctrl-C")
	err = rt.Exec(ctx, h, c.ID, &plugins.Command{
		Args: []string{"sh", "-c", "echo up; sleep 500 & wait"}, Stdout: cancelOnWrite{func() { cancel(cause) }},
	})
	if !errors.Is(err, cause) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
	var out bytes.Buffer
	if err := rt.Exec(t.Context(), h, c.ID, &plugins.Command{Args: []string{"ps"}, Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "sleep 500") {
		t.Errorf("it goes on: %s", &out)
	}
}

type cancelOnWrite struct{ cancel func() }

func (c cancelOnWrite) Write(p []byte) (int, error) {
	c.cancel()
	return len(p), nil
}

func TestExecInAStoppedContainerIsUnavailable(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	rt, h := docker(e.Socket), e.Host("web1")
	c, err := rt.Create(t.Context(), h, sleeper(t, e, "stopped"))
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Stop(t.Context(), h, c.ID, 0); err != nil {
		t.Fatal(err)
	}
	err = rt.Exec(t.Context(), h, c.ID, &plugins.Command{Args: []string{"true"}})
	if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "is not running") {
		t.Error(err)
	}
}
