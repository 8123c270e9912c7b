package execruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// program writes a script that notes each request in the folder that it
// returns, and says what body prints.
func program(t *testing.T, body string) (p Program, dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "program")
	script := "#!/bin/sh\ncd " + dir + "\nread -r request\nprintf '%s\\n' \"$request\" >>requests\n" +
		`case $request in *'"call":"describe"'*) [ -e describe ] || { echo '{"result":{"calls":["restart","restart-policy","logs","local-commands"],"settings":true}}'; exit; } ;; esac` + "\n" + body + "\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return Program{Name: "mine", Path: "/bin/sh", Argv: []string{"sh", path}, Env: os.Environ()}, dir
}

func open(t *testing.T, p Program) plugins.Runtime {
	t.Helper()
	rt, _, err := New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// lastRequest is what the program read last.
func lastRequest(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "requests"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

func TestRequestsAndResults(t *testing.T) {
	ctx, h := t.Context(), plugintest.Local("web1")
	created := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	const c1 = `{"id":"c1","name":"shop","image":"shop@1","labels":{"a":"b"},"status":"exited","pid":7,"exit_code":3,"created":"2026-01-02T15:04:05Z"}`
	want := plugins.Container{
		ID: "c1", Name: "shop", Image: "shop@1", Labels: map[string]string{"a": "b"},
		Status: plugins.StatusExited, PID: 7, ExitCode: 3, Created: created,
	}
	for _, tt := range []struct {
		name, request, answer string
		call                  func(plugins.Runtime) (any, error)
		want                  any
	}{
		{
			"probe", `{"version":1,"call":"probe","host":"web1","settings":{"level":2}}`, `{"result":{"name":"mine","version":"7","warnings":["it is slow"]}}`,
			func(rt plugins.Runtime) (any, error) { return rt.Probe(ctx, h) },
			plugins.Info{Name: "mine", Version: "7", Warnings: []string{"it is slow"}},
		},
		{
			"pull", `{"version":1,"call":"pull","host":"web1","settings":{"level":2},"image":"shop:1","policy":"always","auth":{"username":"ci","password":"p"}}`,
			`{"result":{"reference":"shop@1","digest":"sha256:1"}}`,
			func(rt plugins.Runtime) (any, error) {
				return rt.Pull(ctx, h, plugins.PullRequest{Image: "shop:1", Policy: plugins.PullAlways, Auth: &plugins.Auth{Username: "ci", Password: "p"}})
			},
			plugins.Image{Reference: "shop@1", Digest: "sha256:1"},
		},
		{
			"create", `{"version":1,"call":"create","host":"web1","settings":{"level":2},"spec":{"name":"shop","image":"shop@1","command":["web"],"env":{"A":"b"},` +
				`"labels":{"c":"d"},"mounts":[{"source":"/s","target":"/t","read_only":true}],"port":8080,"publish":"127.0.0.1:21001","memory":1,"cpus":0.5,"stop_grace":1.5,"restart":"no"}}`,
			`{"result":` + c1 + `}`,
			func(rt plugins.Runtime) (any, error) {
				return rt.Create(ctx, h, plugins.Spec{
					Name: "shop", Image: "shop@1", Command: []string{"web"}, Env: map[string]string{"A": "b"}, Labels: map[string]string{"c": "d"},
					Mounts: []plugins.Mount{{Source: "/s", Target: "/t", ReadOnly: true}}, Port: 8080, Publish: netip.MustParseAddrPort("127.0.0.1:21001"),
					Memory: 1, CPUs: 0.5, StopGrace: 1500 * time.Millisecond, Restart: plugins.RestartNever,
				})
			}, want,
		},
		{
			"list", `{"version":1,"call":"list","host":"web1","settings":{"level":2},"labels":{"a":"b"}}`, `{"result":{"containers":[` + c1 + `]}}`,
			func(rt plugins.Runtime) (any, error) { return rt.List(ctx, h, map[string]string{"a": "b"}) },
			[]plugins.Container{want},
		},
		{
			"stop", `{"version":1,"call":"stop","host":"web1","settings":{"level":2},"id":"c1","grace":10}`, `{"result":{}}`,
			func(rt plugins.Runtime) (any, error) { return nil, rt.Stop(ctx, h, "c1", 10*time.Second) }, nil,
		},
		{
			"restart", `{"version":1,"call":"restart","host":"web1","settings":{"level":2},"id":"c1","grace":10}`, `{"result":{}}`,
			func(rt plugins.Runtime) (any, error) {
				return nil, rt.(plugins.Restarter).Restart(ctx, h, "c1", 10*time.Second)
			}, nil,
		},
		{
			"remove", `{"version":1,"call":"remove","host":"web1","settings":{"level":2},"id":"c1"}`, `{"result":{}}`,
			func(rt plugins.Runtime) (any, error) { return nil, rt.Remove(ctx, h, "c1") }, nil,
		},
		{
			"restart policy", `{"version":1,"call":"restart-policy","host":"web1","settings":{"level":2},"id":"c1","restart":"always"}`, `{"result":{}}`,
			func(rt plugins.Runtime) (any, error) {
				return nil, rt.(plugins.RestartPolicySetter).SetRestartPolicy(ctx, h, "c1", plugins.RestartAlways)
			}, nil,
		},
		{
			"local commands", `{"version":1,"call":"local-commands","host":"web1","settings":{"level":2},"id":"c1","grace":1}`,
			`{"result":{"pid":["p"],"stop":["s","1"],"remove":["r"],"port":9}}`,
			func(rt plugins.Runtime) (any, error) {
				return rt.(plugins.LocalRemover).LocalCommands(ctx, h, "c1", time.Second)
			},
			plugins.LocalCommands{PID: []string{"p"}, Stop: []string{"s", "1"}, Remove: []string{"r"}, Port: 9},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, dir := program(t, "echo '"+tt.answer+"'")
			p.Settings = map[string]any{"level": 2}
			got, err := tt.call(open(t, p))
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v, %s", err, diff)
			}
			if diff := cmp.Diff(tt.request, lastRequest(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestProgramRunsCommandsOnTheHost(t *testing.T) {
	p, dir := program(t, `
echo '{"run":["sh","-c","cat; echo $A; echo oh >&2; exit 3"],"env":{"A":"b"},"stdin":"in "}'
read -r answer; printf '%s' "$answer" >answer
echo '{"run":["true"]}'
read -r answer; printf '%s' "$answer" >>answer
echo '{"result":{}}'`)
	if err := open(t, p).Remove(t.Context(), plugintest.Local("web1"), "c1"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "answer"))
	want := `{"code":3,"stdout":"in b\n","stderr":"oh\n"}{"code":0,"stdout":"","stderr":""}`
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
}

// stream is a program that runs on the host what it is told to run in the
// container.
const stream = `
echo '{"stream":["sh","-c","cat; echo problem >&2; exit 3"]}'
read -r answer
printf '{"result":%s}\n' "$answer"`

func TestExecHasTheStreamsOfTheCall(t *testing.T) {
	p, _ := program(t, stream)
	big := bytes.Repeat([]byte{0, 0xff, '\n', 'x'}, 1<<18)
	var out, errs bytes.Buffer
	err := open(t, p).Exec(t.Context(), plugintest.Local("web1"), "c1", &plugins.Command{
		Args: []string{"own", "args"}, Stdin: bytes.NewReader(big), Stdout: &out, Stderr: &errs,
	})
	want := &plugins.ExitError{Host: "web1", Args: []string{"own", "args"}, Code: 3, Stderr: []byte("problem\n")}
	var got *plugins.ExitError
	if !errors.As(err, &got) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(out.Bytes(), big) || errs.String() != "problem\n" {
		t.Errorf("%d bytes of output, errors %q", out.Len(), &errs)
	}
}

func TestLogsAreStreamed(t *testing.T) {
	p, dir := program(t, `echo '{"stream":["echo","one"]}'; read -r answer; echo '{"result":{}}'`)
	var out bytes.Buffer
	if err := open(t, p).(plugins.LogStreamer).Logs(t.Context(), plugintest.Local("web1"), "c1", 5, &out); err != nil || out.String() != "one\n" {
		t.Errorf("%q, %v", &out, err)
	}
	if got := lastRequest(t, dir); !strings.HasSuffix(got, `"id":"c1","lines":5}`) {
		t.Error(got)
	}
}

func TestAbilitiesAreThoseThatTheProgramTells(t *testing.T) {
	p, dir := program(t, `echo '{"result":{"calls":["logs"]}}'`)
	if err := os.WriteFile(filepath.Join(dir, "describe"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rt := open(t, p)
	if _, ok := rt.(plugins.LogStreamer); !ok {
		t.Error("it is no LogStreamer")
	}
	if _, ok := rt.(plugins.Restarter); ok {
		t.Error("it is a Restarter")
	}
	p.Settings = map[string]any{"level": 1}
	if _, _, err := New(t.Context(), p); err == nil || err.Error() != "settings: the plugin mine takes none" {
		t.Error(err)
	}
	for body, want := range map[string]string{
		`echo '{"result":{"calls":["fly"]}}'`:                                     `describe: there is no optional call "fly"`,
		`echo '{"error":{"setting":["opt","level"],"message":"it is too high"}}'`: "setting opt.level: it is too high",
		`echo '{"run":["true"]}'`:                                                 "describe: plugin mine asked for a command in the call describe, which has no host (--verbose shows all that it writes)",
		`echo '{"result":{"protocol":2}}'`:                                        "describe: it speaks version 2 of the protocol and this teal version 1: update teal, or take the plugin's release for this one",
	} {
		p, dir := program(t, body)
		if err := os.WriteFile(filepath.Join(dir, "describe"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := New(t.Context(), p); err == nil || err.Error() != want {
			t.Errorf("the error is %v, not %s", err, want)
		}
	}
}

func TestWhatGoesWrongIsToldInOneLine(t *testing.T) {
	for _, tt := range []struct {
		body, want string
		kind       plugins.Kind
	}{
		{`echo '{"error":{"kind":"not found","message":"no c1"}}'`, "web1: remove c1: no c1", plugins.NotFound},
		{`echo '{"error":{"message":"just so"}}'`, "web1: remove c1: just so", ""},
		{`echo one >&2; echo 'cannot go on' >&2; exit 4`, "web1: remove c1: plugin mine ended without a result (exit status 4): one; cannot go on", plugins.Unavailable},
		{`kill -KILL $$`, "web1: remove c1: plugin mine ended without a result (signal: killed)", plugins.Unavailable},
		{`echo hello`, `web1: remove c1: plugin mine wrote "hello\n", which is no line of the protocol`, plugins.Unavailable},
		{`echo '{}'; cat >/dev/null`, "web1: remove c1: plugin mine wrote a line that is not one of run, stream, result and error", plugins.Unavailable},
		{`echo '{"run":["a"],"stream":["b"]}'`, "web1: remove c1: plugin mine wrote a line that is not one of run, stream, result and error", plugins.Unavailable},
		{`head -c 17000000 /dev/zero`, "web1: remove c1: plugin mine wrote a line of more than 16 MiB", plugins.Unavailable},
		{`echo '{"run":["head","-c","17000000","/dev/zero"]}'; read -r answer`, "web1: remove c1: plugin mine ran a command that printed more than 16 MiB: it should stream it", plugins.Unavailable},
	} {
		p, _ := program(t, tt.body)
		err := open(t, p).Remove(t.Context(), plugintest.Local("web1"), "c1")
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(tt.want, "web1: remove c1: ")) || plugins.KindOf(err) != tt.kind {
			t.Errorf("the error is %v, not %s", err, tt.want)
		}
	}
	p, _ := program(t, `echo '{"result":{"containers":7}}'`)
	if _, err := open(t, p).List(t.Context(), plugintest.Local("web1"), nil); !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "gave a result that is none") {
		t.Error(err)
	}
	p.Argv[1] += "-missing"
	if _, _, err := New(t.Context(), p); !errors.Is(err, plugins.Unavailable) {
		t.Error(err)
	}
	p.Path = "/no/such/shell"
	if _, _, err := New(t.Context(), p); err == nil || !strings.Contains(err.Error(), "plugin mine does not start") {
		t.Error(err)
	}
}

func TestCancelledCallEndsTheProgramAndItsChildren(t *testing.T) {
	for name, body := range map[string]string{
		"that waits":              `sleep 60 & wait`,
		"that does not listen":    `trap '' TERM; sleep 60 & while :; do sleep 1; done`,
		"that waits for the host": `echo '{"run":["sleep","60"]}'; read -r answer`,
	} {
		body = "echo waiting >&2; " + body
		t.Run(name, func(t *testing.T) {
			p, _ := program(t, body)
			rt := open(t, p)
			cause := errors.New("Ctrl-C")
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(500*time.Millisecond, func() { cancel(cause) })
			began := time.Now()
			err := rt.Remove(ctx, plugintest.Local("web1"), "c1")
			if late, ok := errors.AsType[*CancelledError](err); !ok || late.Said != "waiting" || late.Error() != "Ctrl-C" || !errors.Is(err, cause) {
				t.Errorf("%v, %+v", err, late)
			}
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestProgramThatStaysAfterItsResultIsEnded(t *testing.T) {
	p, _ := program(t, `echo '{"result":{}}'; sleep 60`)
	began := time.Now()
	if err := open(t, p).Remove(t.Context(), plugintest.Local("web1"), "c1"); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestProgramIsVerifiedBeforeEachCall(t *testing.T) {
	p, _ := program(t, `echo '{"result":{}}'`)
	changed := errors.New("it has changed")
	var trust error
	p.Verify = func() error { return trust }
	rt := open(t, p)
	trust = changed
	if err := rt.Remove(t.Context(), plugintest.Local("web1"), "c1"); !errors.Is(err, changed) {
		t.Error(err)
	}
}

func TestStandardErrorIsTheLog(t *testing.T) {
	p, _ := program(t, `echo 'a line' >&2; echo '{"result":{}}'`)
	var lines []string
	p.Log = func(l string) { lines = append(lines, l) }
	if err := open(t, p).Remove(t.Context(), plugintest.Local("web1"), "c1"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a line"}, lines); diff != "" {
		t.Error(diff)
	}
}

// A field that is added to the contract must be added to the protocol.
func TestNoFieldOfASpecIsForgotten(t *testing.T) {
	text, err := json.Marshal(specOf(plugins.Spec{}))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if text, err = json.Marshal(plugins.Spec{}); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for name := range all {
		found := false
		for field := range got {
			found = found || strings.EqualFold(strings.ReplaceAll(field, "_", ""), name)
		}
		if !found {
			t.Errorf("Spec.%s is not in the protocol", name)
		}
	}
}
