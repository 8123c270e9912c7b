package loader_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// builtin returns the Spec of one of the plugins in TestMain, with its
// temporary folders below a folder of the test.
func builtin(t *testing.T, name string) loader.Spec {
	t.Helper()
	spec, err := loader.Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func start(t *testing.T, spec loader.Spec) *loader.Plugin {
	t.Helper()
	p, err := loader.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// scratch makes the folder below which plugins get theirs.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ld") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	return dir
}

// empty checks that plugins have left nothing in dir.
func empty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, _ := strings.Cut(string(b), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

func awaitDead(t *testing.T, pid int) {
	t.Helper()
	for range 100 {
		if !alive(pid) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("process %d lives on", pid)
}

func TestPluginGetsAFewVariablesAndNoStandardInput(t *testing.T) {
	dir := scratch(t)
	t.Setenv("SSH_AUTH_SOCK", "/agent")
	t.Setenv("MY_TOKEN", "secret")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.WriteString(w, "typed by the operator\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	keep := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = keep }()

	info, err := start(t, builtin(t, "full")).Runtime().Probe(t.Context(), plugintest.Local("here"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Name != "" {
		t.Errorf("the plugin read %q from standard input", info.Name)
	}
	if string(info.Settings) != "from the host\n" {
		t.Errorf("the host said %q", info.Settings)
	}
	env := strings.Split(info.Version, "\n")
	for _, v := range env {
		if strings.HasPrefix(v, "SSH_AUTH_SOCK=") || strings.HasPrefix(v, "MY_TOKEN=") {
			t.Errorf("the plugin sees %s", v)
		}
	}
	if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "TMPDIR="+dir+"/teal") }) {
		t.Errorf("no private TMPDIR in %q", env)
	}
}

func TestCloseEndsThePluginAndRemovesItsFolder(t *testing.T) {
	dir := scratch(t)
	p := start(t, builtin(t, "full"))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder's mode is %v, %v", info.Mode(), err)
	}
	pid := p.PID()
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("the plugin is in process group %d, %v: Ctrl-C would reach it", group, err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	awaitDead(t, pid)
	empty(t, dir)
	if err := p.Runtime().Remove(context.Background(), plugintest.Local("here"), "id"); !errors.Is(err, plugins.Unavailable) {
		t.Errorf("a call after Close: %v", err)
	}
}

func TestPluginStartsWhereTemporaryFilesAreTooDeepForASocket(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep", 20))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", deep)
	info, err := start(t, builtin(t, "full")).Runtime().Probe(t.Context(), plugintest.Local("here"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(info.Version, "TMPDIR=/tmp/teal") {
		t.Errorf("no short TMPDIR in %q", info.Version)
	}
}

func TestRuntimeHasTheInterfacesOfThePlugin(t *testing.T) {
	scratch(t)
	for name, want := range map[string]bool{"full": true, "plain": false} {
		p := start(t, builtin(t, name))
		rt := p.Runtime()
		if _, ok := rt.(plugins.Restarter); ok != want {
			t.Errorf("%s is a Restarter: %v", name, ok)
		}
		if slices.Contains(p.Abilities(), "restart") != want {
			t.Errorf("%s can %q", name, p.Abilities())
		}
		if _, ok := rt.(plugins.LogStreamer); ok {
			t.Errorf("%s is a LogStreamer", name)
		}
		if _, err := rt.List(t.Context(), plugintest.Local("here"), nil); !errors.Is(err, plugins.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeadPluginIsUnavailableWithItsLastWordsAndStartedAgain(t *testing.T) {
	scratch(t)
	for name, want := range map[string]string{
		"panic": "plugin full died (exit status 2): panic: the runtime is broken",
		"exit":  "giving up",
	} {
		t.Run(name, func(t *testing.T) {
			rt := start(t, builtin(t, "full")).Runtime()
			began := time.Now()
			_, err := rt.Create(t.Context(), plugintest.Local("web1"), plugins.Spec{Name: name})
			if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is %v", err)
			}
			if err := rt.Remove(t.Context(), plugintest.Local("web1"), "id"); err != nil {
				t.Errorf("the next call: %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestPluginThatKeepsDyingIsGivenUp(t *testing.T) {
	dir := scratch(t)
	p := start(t, builtin(t, "full"))
	h, rt := plugintest.Local("web1"), p.Runtime()
	for i := range 4 {
		if _, err := rt.Create(t.Context(), h, plugins.Spec{}); !errors.Is(err, plugins.Unavailable) {
			t.Errorf("time %d: %v", i+1, err)
		}
	}
	last := p.PID()
	if err := rt.Remove(t.Context(), h, "id"); !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "web1: remove id: plugin full died") {
		t.Errorf("after that: %v", err)
	}
	if p.PID() != last {
		t.Error("it was started once more")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("it has several folders: %v, %v", entries, err)
	}
}

func TestFailedStartSaysWhy(t *testing.T) {
	dir := scratch(t)
	for _, tt := range []struct{ name, want string }{
		{"exits", "it ended before it became a plugin (exit status 3): cannot find my settings"},
		{"panics", "panic: no settings"},
		{"silent", "no answer within 1s: thinking"},
		{"rubbish", `it is no plugin of teal: it printed "hello, world"`},
		{"liar", "it does not answer"},
		{"newer", "it speaks version 99 of the protocol and this teal version 1: update teal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := builtin(t, tt.name)
			if tt.name == "silent" {
				spec.StartTimeout = time.Second
			}
			p, err := loader.Start(t.Context(), spec)
			if err == nil {
				_ = p.Close()
				t.Fatal("it started")
			}
			if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v", err)
			}
			if strings.Count(err.Error(), "\n") > 1 {
				t.Errorf("the error is long: %v", err)
			}
			empty(t, dir)
		})
	}
}

func TestStartIsCancelled(t *testing.T) {
	scratch(t)
	cause := errors.New("Ctrl-C")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(200*time.Millisecond, func() { cancel(cause) })
	if _, err := loader.Start(ctx, builtin(t, "silent")); !errors.Is(err, cause) {
		t.Error(err)
	}
}

func TestProgramIsVerified(t *testing.T) {
	scratch(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(self)
	right := hex.EncodeToString(sum[:])
	cmd := append([]string{path}, builtin(t, "full").Cmd[1:]...)
	for _, tt := range []struct {
		name string
		spec loader.Spec
		mode os.FileMode
		kind plugins.Kind
	}{
		{"right sum", loader.Spec{Cmd: cmd, SHA256: right}, 0o755, ""},
		{"right sum in capitals", loader.Spec{Cmd: cmd, SHA256: strings.ToUpper(right)}, 0o755, ""},
		{"wrong sum", loader.Spec{Cmd: cmd, SHA256: strings.Repeat("0", 64)}, 0o755, plugins.Denied},
		{"part of a sum", loader.Spec{Cmd: cmd, SHA256: right[:8]}, 0o755, plugins.Denied},
		{"writable by the group", loader.Spec{Cmd: cmd}, 0o775, plugins.Denied},
		{"writable by all", loader.Spec{Cmd: cmd, SHA256: right}, 0o757, plugins.Denied},
		{"not executable", loader.Spec{Cmd: cmd}, 0o644, plugins.NotFound},
		{"missing", loader.Spec{Cmd: []string{path + "-missing"}}, 0o755, plugins.NotFound},
		{"no program", loader.Spec{}, 0o755, plugins.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			tt.spec.Name = "mine"
			p, err := loader.Start(t.Context(), tt.spec)
			if plugins.KindOf(err) != tt.kind {
				t.Errorf("the error is %v", err)
			}
			if err == nil {
				_ = p.Close()
			} else if !strings.Contains(err.Error(), "start plugin mine") {
				t.Errorf("the error does not name the plugin: %v", err)
			}
		})
	}
}

func TestPluginDiesWithTeal(t *testing.T) {
	scratch(t)
	spec := builtin(t, "core")
	core := exec.Command(spec.Cmd[0], spec.Cmd[1:]...)
	out, err := core.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := core.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = core.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, aerr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || aerr != nil || !alive(pid) {
		t.Fatalf("no plugin: %q, %v", line, err)
	}
	if err := core.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitDead(t, pid)
}

func TestChildOfAPluginDoesNotHoldUpClose(t *testing.T) {
	scratch(t)
	for _, name := range []string{"parent", "detaching parent"} {
		t.Run(name, func(t *testing.T) {
			p := start(t, builtin(t, name))
			began := time.Now()
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestWhatAPluginWritesIsLoggedAndNoSecretIs(t *testing.T) {
	scratch(t)
	var log syncBuffer
	spec := builtin(t, "full")
	spec.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p := start(t, spec)
	rt := p.Runtime()
	if _, err := rt.Probe(t.Context(), plugintest.Local("here")); err != nil {
		t.Fatal(err)
	}
	if err := rt.Exec(t.Context(), plugintest.Local("here"), "id", &plugins.Command{Args: []string{"true"}, Env: map[string]string{"A": "hunter2"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Pull(t.Context(), plugintest.Local("here"), plugins.PullRequest{Auth: &plugins.Auth{Password: "hunter2"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Create(t.Context(), plugintest.Local("here"), plugins.Spec{Env: map[string]string{"A": "hunter2"}}); err == nil {
		t.Fatal("it did not panic")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	got := log.String()
	for _, want := range []string{"a line of the log package", "a line of standard error", "a line of standard output", "panic: the runtime is broken", "plugin=full"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the log:\n%s", want, got)
		}
	}
	if strings.Contains(got, "hunter2") {
		t.Errorf("a secret is in the log:\n%s", got)
	}
}

func TestFloodedLogHoldsUpNobody(t *testing.T) {
	scratch(t)
	spec := builtin(t, "flood")
	var lines atomic.Int64
	spec.Log = slog.New(slog.NewTextHandler(countLines{&lines}, nil))
	p := start(t, spec)
	began := time.Now()
	if err := p.Runtime().Remove(t.Context(), plugintest.Local("web1"), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Runtime().List(t.Context(), plugintest.Local("web1"), nil); !errors.Is(err, plugins.Denied) {
		t.Errorf("the next call: %v", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	if lines.Load() == 0 {
		t.Error("nothing is in the log")
	}
}

// countLines is a log that is only counted.
type countLines struct{ n *atomic.Int64 }

func (c countLines) Write(p []byte) (int, error) {
	c.n.Add(1)
	return len(p), nil
}

func TestCloseEndsACallThatHangs(t *testing.T) {
	scratch(t)
	p := start(t, builtin(t, "full"))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	time.AfterFunc(time.Second, func() { _ = p.Close() }) // what an impatient operator does
	began := time.Now()
	err := p.Runtime().Stop(ctx, plugintest.Local("web1"), "c1", time.Second)
	if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "web1: stop c1: plugin full was ended in the middle of a call") || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestBuiltinRequested(t *testing.T) {
	for _, tt := range []struct {
		args []string
		name string
		ok   bool
	}{
		{nil, "", false},
		{[]string{"deploy"}, "", false},
		{[]string{"plugin", "list", "docker"}, "", false},
		{builtin(t, "docker").Cmd[1:], "docker", true},
		{append(builtin(t, "docker").Cmd[1:], "more"), "", false},
	} {
		if name, ok := loader.BuiltinRequested(tt.args); name != tt.name || ok != tt.ok {
			t.Errorf("%q: %q, %v", tt.args, name, ok)
		}
	}
}
