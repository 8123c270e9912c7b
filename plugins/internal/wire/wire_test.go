package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns a connection, in memory, to a server with what register
// adds.
func connect(t *testing.T, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	s := grpc.NewServer(ServerOptions()...)
	register(s)
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(s.Stop)
	opts := append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:///memory", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// across returns rt as it is on the other side of the wire, in one process.
func across(t *testing.T, rt plugins.Runtime) *Client {
	t.Helper()
	lent := newHosts("test")
	back := connect(t, func(s *grpc.Server) { RegisterHostsServiceServer(s, lent) })
	there := connect(t, func(s *grpc.Server) {
		RegisterRuntimeServiceServer(s, newServer(rt, func(uint32) (grpc.ClientConnInterface, error) { return back, nil }))
	})
	c := newClient("test", there, lent, 1, func() error { return errors.New("its last words") })
	if err := c.Configure(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// funcs is a runtime made of functions; those that are nil are not called.
type funcs struct {
	probe  func(context.Context, plugins.Host) (plugins.Info, error)
	pull   func(context.Context, plugins.Host, plugins.PullRequest) (plugins.Image, error)
	create func(context.Context, plugins.Host, plugins.Spec) (plugins.Container, error)
	exec   func(context.Context, plugins.Host, string, *plugins.Command) error
	list   func(context.Context, plugins.Host, map[string]string) ([]plugins.Container, error)
	stop   func(context.Context, plugins.Host, string, time.Duration) error
	remove func(context.Context, plugins.Host, string) error
}

func (f funcs) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	return f.probe(ctx, h)
}

func (f funcs) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	return f.pull(ctx, h, req)
}

func (f funcs) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	return f.create(ctx, h, spec)
}

func (f funcs) Exec(ctx context.Context, h plugins.Host, id string, cmd *plugins.Command) error {
	return f.exec(ctx, h, id, cmd)
}

func (f funcs) List(ctx context.Context, h plugins.Host, labels map[string]string) ([]plugins.Container, error) {
	return f.list(ctx, h, labels)
}

func (f funcs) Stop(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return f.stop(ctx, h, id, grace)
}

func (f funcs) Remove(ctx context.Context, h plugins.Host, id string) error {
	return f.remove(ctx, h, id)
}

// The optional interfaces of funcs, one type each.
type (
	restarter struct{}
	policier  struct{}
	logger    struct{}
	locals    struct{}
)

func (restarter) Restart(_ context.Context, _ plugins.Host, id string, grace time.Duration) error {
	return fmt.Errorf("restart %s %v", id, grace)
}

func (policier) SetRestartPolicy(_ context.Context, _ plugins.Host, id string, p plugins.RestartPolicy) error {
	return fmt.Errorf("policy %s %s", id, p)
}

func (logger) Logs(_ context.Context, _ plugins.Host, id string, lines int, w io.Writer) error {
	if _, err := io.WriteString(w, strings.Repeat("x", lines)); err != nil {
		return err
	}
	if id == "" {
		return plugins.NotFound
	}
	return nil
}

func (locals) LocalCommands(_ context.Context, _ plugins.Host, id string, grace time.Duration) (plugins.LocalCommands, error) {
	return plugins.LocalCommands{PID: []string{"p", id}, Stop: []string{"s", grace.String()}, Remove: []string{"r"}, Port: 65535}, nil
}

func TestRuntimeHasExactlyTheOptionalInterfacesOfThePlugin(t *testing.T) {
	type (
		runtime = plugins.Runtime
		none    struct{ runtime }
		one     struct {
			runtime
			logger
		}
		two struct {
			runtime
			restarter
			locals
		}
		three struct {
			runtime
			restarter
			policier
			logger
		}
		all struct {
			runtime
			restarter
			policier
			logger
			locals
		}
	)
	for _, rt := range []runtime{none{}, one{}, two{}, three{}, all{}} {
		t.Run(fmt.Sprintf("%T", rt), func(t *testing.T) {
			if diff := cmp.Diff(abilities(rt), abilities(across(t, rt).Runtime())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryCombinationOfAbilitiesIsTold(t *testing.T) {
	for set := range 16 {
		want := []bool{set&1 != 0, set&2 != 0, set&4 != 0, set&8 != 0}
		c := &Client{caps: &Capabilities{Restart: want[0], SetRestartPolicy: want[1], Logs: want[2], LocalCommands: want[3]}}
		if diff := cmp.Diff(want, abilities(c.Runtime())); diff != "" {
			t.Errorf("set %04b: %s", set, diff)
		}
	}
}

func abilities(rt plugins.Runtime) []bool {
	_, restart := rt.(plugins.Restarter)
	_, policy := rt.(plugins.RestartPolicySetter)
	_, logs := rt.(plugins.LogStreamer)
	_, local := rt.(plugins.LocalRemover)
	return []bool{restart, policy, logs, local}
}

func TestOptionalCalls(t *testing.T) {
	c := across(t, struct {
		plugins.Runtime
		restarter
		policier
		logger
		locals
	}{})
	h := plugintest.Local("web1")
	if err := c.Restart(t.Context(), h, "a", time.Second); err == nil || err.Error() != "restart a 1s" {
		t.Errorf("Restart: %v", err)
	}
	if err := c.SetRestartPolicy(t.Context(), h, "a", plugins.RestartAlways); err == nil || err.Error() != "policy a always" {
		t.Errorf("SetRestartPolicy: %v", err)
	}
	var out bytes.Buffer
	if err := c.Logs(t.Context(), h, "a", 200_000, &out); err != nil || out.Len() != 200_000 {
		t.Errorf("Logs: %d bytes, %v", out.Len(), err)
	}
	if err := c.Logs(t.Context(), h, "", 1, &out); !errors.Is(err, plugins.NotFound) {
		t.Errorf("Logs that fail: %v", err)
	}
	got, err := c.LocalCommands(t.Context(), h, "a", 2*time.Second)
	if diff := cmp.Diff(plugins.LocalCommands{PID: []string{"p", "a"}, Stop: []string{"s", "2s"}, Remove: []string{"r"}, Port: 65535}, got); diff != "" || err != nil {
		t.Errorf("LocalCommands: %v %s", err, diff)
	}
}

func TestCallThatThePluginLacksIsUnsupported(t *testing.T) {
	c := across(t, funcs{})
	h := plugintest.Local("web1")
	_, local := c.LocalCommands(t.Context(), h, "a", 0)
	for name, err := range map[string]error{
		"Restart":          c.Restart(t.Context(), h, "a", 0),
		"SetRestartPolicy": c.SetRestartPolicy(t.Context(), h, "a", plugins.RestartNever),
		"Logs":             c.Logs(t.Context(), h, "a", 1, io.Discard),
		"LocalCommands":    local,
	} {
		if !errors.Is(err, plugins.Unsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllThatProbeFoundComesAcross(t *testing.T) {
	want := plugins.Info{
		Name: "podman", Version: "4.3.1", Settings: []byte(`{"api":"1.41"}`),
		Warnings: []string{"nothing starts the containers after a reboot", "limits cannot be set"},
	}
	c := across(t, funcs{probe: func(context.Context, plugins.Host) (plugins.Info, error) { return want, nil }})
	got, err := c.Probe(t.Context(), plugintest.Local("web1"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMethodOfALaterProtocolIsUnsupported(t *testing.T) {
	there := connect(t, func(s *grpc.Server) { RegisterRuntimeServiceServer(s, UnimplementedRuntimeServiceServer{}) })
	c := newClient("old", there, newHosts("test"), 1, func() error { return nil })
	if _, err := c.Probe(t.Context(), plugintest.Local("web1")); !errors.Is(err, plugins.Unsupported) {
		t.Error(err)
	}
	if err := c.Configure(t.Context(), nil); !errors.Is(err, plugins.Unsupported) {
		t.Error(err)
	}
}

func TestPullArrivesWholeWithProgress(t *testing.T) {
	want := plugins.PullRequest{Image: "shop:1", Policy: plugins.PullMissing, Auth: &plugins.Auth{Username: "ci", Password: "secret"}}
	var got plugins.PullRequest
	c := across(t, funcs{pull: func(_ context.Context, _ plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
		got = req
		if req.Progress == nil {
			return plugins.Image{}, &plugins.Error{Kind: plugins.Denied}
		}
		_, err := io.WriteString(req.Progress, "1 of 2 layers\n")
		got.Progress = nil
		return plugins.Image{Reference: "shop@sha256:1", Digest: "sha256:1"}, err
	}})
	var lines bytes.Buffer
	req := want
	req.Progress = &lines
	img, err := c.Pull(t.Context(), plugintest.Local("web1"), req)
	if err != nil || img.Reference != "shop@sha256:1" || img.Digest != "sha256:1" || lines.String() != "1 of 2 layers\n" {
		t.Errorf("%+v, %q, %v", img, &lines, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := c.Pull(t.Context(), plugintest.Local("web1"), plugins.PullRequest{}); !errors.Is(err, plugins.Denied) {
		t.Errorf("a refused login: %v", err)
	}
}

func TestMessagesUpToSixteenMiBPass(t *testing.T) {
	c := across(t, funcs{list: func(_ context.Context, _ plugins.Host, labels map[string]string) ([]plugins.Container, error) {
		return []plugins.Container{{ID: "a", Labels: labels}}, nil
	}})
	for _, tt := range []struct {
		size int
		kind plugins.Kind
	}{{15 << 20, ""}, {17 << 20, plugins.Invalid}} {
		got, err := c.List(t.Context(), plugintest.Local("web1"), map[string]string{"x": strings.Repeat("y", tt.size)})
		if plugins.KindOf(err) != tt.kind {
			t.Errorf("%d bytes: %v", tt.size, err)
		}
		if err == nil && len(got[0].Labels["x"]) != tt.size {
			t.Errorf("%d bytes came back as %d", tt.size, len(got[0].Labels["x"]))
		}
	}
}

// execOnHost runs Exec's command on the host.
func execOnHost(ctx context.Context, h plugins.Host, _ string, cmd *plugins.Command) error {
	return h.Run(ctx, cmd)
}

func TestCommandStreamsThroughBothServices(t *testing.T) {
	c := across(t, funcs{exec: execOnHost})
	big := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	for _, tt := range []struct {
		name     string
		cmd      plugins.Command
		out, err string
		code     int
	}{
		{"output", plugins.Command{Args: []string{"echo", "a b", "c"}}, "a b c\n", "", 0},
		{"parted streams and a code", plugins.Command{Args: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}}, "out\n", "err\n", 7},
		{"environment", plugins.Command{Args: []string{"sh", "-c", `printf %s "$SECRET"`}, Env: map[string]string{"SECRET": "a\nb"}}, "a\nb", "", 0},
		{"large standard input", plugins.Command{Args: []string{"cat"}, Stdin: bytes.NewReader(big)}, string(big), "", 0},
		{"standard input that nobody reads", plugins.Command{Args: []string{"true"}, Stdin: bytes.NewReader(big)}, "", "", 0},
		{"no standard input", plugins.Command{Args: []string{"cat"}}, "", "", 0},
		{"a signal", plugins.Command{Args: []string{"sh", "-c", "kill -TERM $$"}}, "", "", 143},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			tt.cmd.Stdout, tt.cmd.Stderr = &out, &errs
			err := c.Exec(t.Context(), plugintest.Local("web1"), "id", &tt.cmd)
			if out.String() != tt.out || errs.String() != tt.err {
				t.Errorf("wrote %d bytes and %q", out.Len(), &errs)
			}
			var exit *plugins.ExitError
			if errors.As(err, &exit) != (tt.code != 0) || exit != nil && (exit.Code != tt.code || exit.Host != "web1") {
				t.Errorf("the error is %#v", err)
			}
		})
	}
}

func TestCommandEndsThoughItsInputHasNothingToSay(t *testing.T) {
	c := across(t, funcs{exec: execOnHost})
	r, w := io.Pipe()
	defer w.Close()
	if err := c.Exec(t.Context(), plugintest.Local("web1"), "id", &plugins.Command{Args: []string{"true"}, Stdin: r}); err != nil {
		t.Error(err)
	}
}

type brokenReader struct{ error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.error }

func TestCommandIsCancelledWhenAStreamOfTheCallerFails(t *testing.T) {
	ended := make(chan error, 1)
	c := across(t, funcs{exec: func(ctx context.Context, h plugins.Host, _ string, cmd *plugins.Command) error {
		err := h.Run(ctx, cmd)
		ended <- ctx.Err()
		return err
	}})
	cause := errors.New("disk full")
	r, w := io.Pipe()
	_ = r.CloseWithError(cause)
	for name, cmd := range map[string]*plugins.Command{
		"input":  {Args: []string{"cat"}, Stdin: brokenReader{cause}},
		"output": {Args: []string{"sh", "-c", "echo x; exec sleep 60"}, Stdout: w},
	} {
		err := c.Exec(t.Context(), plugintest.Local("web1"), "id", cmd)
		if !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
		if got := <-ended; !errors.Is(got, context.Canceled) {
			t.Errorf("%s: in the plugin the context says %v", name, got)
		}
	}
}

func TestCancelledCallCleansUpBeforeItReturns(t *testing.T) {
	var cleaned atomic.Bool
	began := make(chan struct{})
	c := across(t, funcs{create: func(ctx context.Context, h plugins.Host, _ plugins.Spec) (plugins.Container, error) {
		close(began)
		<-ctx.Done()
		_, err := plugins.Output(context.WithoutCancel(ctx), h, "sleep", "0.1")
		cleaned.Store(err == nil)
		return plugins.Container{}, ctx.Err()
	}})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the operator pressed Ctrl-C")
	go func() {
		<-began
		cancel(cause)
	}()
	if _, err := c.Create(ctx, plugintest.Local("web1"), plugins.Spec{}); !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
	if !cleaned.Load() {
		t.Error("the host was taken away while the plugin cleaned up")
	}
}

func TestPluginThatDoesNotCleanUpIsCutOff(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	c := across(t, funcs{create: func(_ context.Context, h plugins.Host, _ plugins.Spec) (plugins.Container, error) {
		<-release
		return plugins.Container{}, nil
	}})
	c.grace = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Create(ctx, plugintest.Local("web1"), plugins.Spec{})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "plugin test did not clean up in time") {
		t.Error(err)
	}
}

func TestDeadlineIsKnownInThePluginAndOnTheHost(t *testing.T) {
	host := &recordingHost{Host: plugintest.Local("web1")}
	var left time.Duration
	c := across(t, funcs{stop: func(ctx context.Context, h plugins.Host, _ string, _ time.Duration) error {
		if d, ok := ctx.Deadline(); ok {
			left = time.Until(d)
		}
		_, err := plugins.Output(ctx, h, "sleep", "60")
		return err
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.Stop(ctx, host, "id", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
	if left <= 0 || left > 300*time.Millisecond || !host.deadline.Load() {
		t.Errorf("the plugin had %v left, the host knew of a deadline: %v", left, host.deadline.Load())
	}
}

// A recordingHost notes whether a command came with a deadline.
type recordingHost struct {
	plugins.Host
	deadline atomic.Bool
}

func (h *recordingHost) Run(ctx context.Context, cmd *plugins.Command) error {
	_, ok := ctx.Deadline()
	h.deadline.Store(ok)
	return h.Host.Run(ctx, cmd)
}

func TestHandleIsWorthlessAfterItsCall(t *testing.T) {
	var kept plugins.Host
	var conn net.Conn
	echo := echoServer(t)
	c := across(t, funcs{
		stop: func(ctx context.Context, h plugins.Host, _ string, _ time.Duration) (err error) {
			kept = h
			conn, err = h.DialContext(ctx, "tcp", echo)
			return err
		},
		remove: func(ctx context.Context, _ plugins.Host, _ string) error {
			_, err := plugins.Output(ctx, kept, "true")
			return err
		},
	})
	h := plugintest.Local("web1")
	if err := c.Stop(t.Context(), h, "id", 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), h, "id"); !errors.Is(err, plugins.Denied) {
		t.Errorf("a kept host can be used: %v", err)
	}
	if _, err := kept.DialContext(t.Context(), "tcp", echo); !errors.Is(err, plugins.Denied) {
		t.Errorf("a kept host can be dialled: %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived its call")
	}
	forged := &host{client: kept.(*host).client, handle: "guessed", name: "web1"}
	if err := forged.Run(t.Context(), &plugins.Command{Args: []string{"true"}}); !errors.Is(err, plugins.Denied) {
		t.Errorf("a guessed handle: %v", err)
	}
}

func TestSpecAndContainerArriveWhole(t *testing.T) {
	want := fullSpec()
	container := plugins.Container{
		ID: "id", Name: "n", Image: "i", Labels: map[string]string{"a": "b"}, Status: plugins.StatusExited,
		Health: plugins.HealthUnhealthy, PID: 1 << 22, ExitCode: 137, Created: time.Unix(1, 2).UTC(),
	}
	var got plugins.Spec
	c := across(t, funcs{create: func(_ context.Context, _ plugins.Host, spec plugins.Spec) (plugins.Container, error) {
		got = spec
		return container, nil
	}})
	made, err := c.Create(t.Context(), plugintest.Local("web1"), want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(sameAddress)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(container, made); diff != "" {
		t.Error(diff)
	}
}

func TestDiedPluginIsUnavailableWithItsLastWords(t *testing.T) {
	lis := bufconn.Listen(1 << 10)
	s := grpc.NewServer()
	RegisterRuntimeServiceServer(s, newServer(funcs{probe: func(ctx context.Context, _ plugins.Host) (plugins.Info, error) {
		go s.Stop()
		<-ctx.Done()
		return plugins.Info{}, nil
	}}, nil))
	go func() { _ = s.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := newClient("test", conn, newHosts("test"), 1, func() error { return errors.New("plugin test died: panic: oh") })
	for _, when := range []string{"in a call", "before a call"} {
		_, err = c.Probe(t.Context(), plugintest.Local("web1"))
		if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "plugin test died: panic: oh") {
			t.Errorf("%s: %v", when, err)
		}
	}
}

func echoServer(t *testing.T) (address string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return lis.Addr().String()
}

func TestDialledConnectionBehavesAsASocket(t *testing.T) {
	echo := echoServer(t)
	check := func(ctx context.Context, h plugins.Host) error {
		conn, err := h.DialContext(ctx, "tcp", echo)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("a read with nothing to read: %w", err)
		}
		if err := conn.SetDeadline(time.Time{}); err != nil {
			return err
		}
		big := bytes.Repeat([]byte("abcdefgh"), 1<<18)
		go func() {
			_, _ = conn.Write(big)
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, big) {
			return fmt.Errorf("%d bytes came back as %d: %w", len(big), len(got), err)
		}
		_, err = h.DialContext(ctx, "tcp", "127.0.0.1:1")
		if !errors.Is(err, plugins.Unavailable) {
			return fmt.Errorf("a port where nobody listens: %w", err)
		}
		return nil
	}
	c := across(t, funcs{remove: func(ctx context.Context, h plugins.Host, _ string) error { return check(ctx, h) }})
	if err := c.Remove(t.Context(), plugintest.Local("web1"), ""); err != nil {
		t.Error(err)
	}
}

func TestWhatWasWrittenBeforeCloseArrives(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := lis.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(conn)
		got <- b
	}()
	big := bytes.Repeat([]byte("x"), 1<<20)
	done := make(chan struct{})
	c := across(t, funcs{remove: func(ctx context.Context, h plugins.Host, _ string) error {
		conn, err := h.DialContext(ctx, "tcp", lis.Addr().String())
		if err != nil {
			return err
		}
		if _, err := conn.Write(big); err != nil {
			return err
		}
		err = conn.Close()
		<-done
		return err
	}})
	go func() {
		if b := <-got; len(b) != len(big) {
			t.Errorf("%d bytes of %d arrived", len(b), len(big))
		}
		close(done)
	}()
	if err := c.Remove(t.Context(), plugintest.Local("web1"), ""); err != nil {
		t.Error(err)
	}
}

// TestEveryCapabilityHasAName notices one that was added to the protocol alone.
func TestEveryCapabilityHasAName(t *testing.T) {
	fields := (&Capabilities{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Kind() != protoreflect.BoolKind {
			continue
		}
		caps := &Capabilities{}
		caps.ProtoReflect().Set(field, protoreflect.ValueOfBool(true))
		if names := caps.Names(); len(names) != 1 {
			t.Errorf("%s is told as %q", field.Name(), names)
		}
	}
	if names := (&Capabilities{}).Names(); len(names) != 0 {
		t.Errorf("none is told as %q", names)
	}
}

type versioned struct{ plugins.Runtime }

func (versioned) Version() string { return "1.2.3" }

func TestPluginTellsItsVersion(t *testing.T) {
	if got := across(t, versioned{}).Capabilities().GetVersion(); got != "1.2.3" {
		t.Errorf("it says %q", got)
	}
	if got := across(t, struct{ plugins.Runtime }{}).Capabilities().GetVersion(); got != "" {
		t.Errorf("a program without a version says %q", got)
	}
}
