package display

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/teal-deploy/teal/orchestrator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 22, 21, 30, 5, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// events are a deployment to two hosts, one of which fails and talks nastily.
func events() []orchestrator.Event {
	return []orchestrator.Event{
		{Time: at(0), Run: "r7", Status: orchestrator.StatusInfo, Text: "deploy shop 42 to 2 hosts"},
		{Time: at(1), Run: "r7", Host: "web1", Step: orchestrator.StepConnect, Status: orchestrator.StatusDone},
		{Time: at(1), Run: "r7", Host: "web1", Step: orchestrator.StepImage, Status: orchestrator.StatusStarted},
		{Time: at(2), Run: "r7", Host: "web1", Step: orchestrator.StepImage, Status: orchestrator.StatusDone, Text: "pulled sha256:ab12"},
		{Time: at(2), Run: "r7", Host: "web1", Step: orchestrator.StepCode, Status: orchestrator.StatusSkipped, Text: "no code"},
		{Time: at(3), Run: "r7", Host: "database-2", Step: orchestrator.StepInstall, Status: orchestrator.StatusOutput, Text: "\x1b]0;owned\x07\u202eevil"},
		{Time: at(3), Run: "r7", Host: "database-2", Step: orchestrator.StepInstall, Status: orchestrator.StatusWarning, Text: "slow", Err: errors.New("9 s")},
		{Time: at(4), Run: "r7", Host: "database-2", Step: orchestrator.StepTest, Status: orchestrator.StatusFailed, Err: errors.New("GET /up: status 503\nreally")},
		{Time: at(5), Run: "r7", Host: "database-2", Step: orchestrator.StepUndo, Status: orchestrator.StatusDone},
		{Time: at(6), Run: "r7", Host: "web1", Step: orchestrator.StepTeardown, Status: orchestrator.StatusDone, Text: "blue is gone"},
	}
}

func result() orchestrator.Result {
	return orchestrator.Result{
		Run: "r7", Command: "deploy", Outcome: orchestrator.OutcomeFailed,
		Release: "20261122-a", Version: "42", Commit: strings.Repeat("0123456789", 4), Digest: "sha256:" + strings.Repeat("ab", 32),
		Started: start, Ended: at(42.25),
		Hosts: []orchestrator.HostResult{
			{
				Host: "web1", State: orchestrator.Done, Serving: "20261122-a", Version: "42", Slot: "green",
				Switch: 3217 * time.Microsecond, SwitchAt: at(5), BlueGone: at(15),
			},
			{
				Host: "database-2", State: orchestrator.Failed, Serving: "20261121-z", Version: "41", Slot: "blue", Step: orchestrator.StepTest,
				Err: errors.New("GET /up: status 503\nreally"), Log: []string{"boot\r\n", "\x1b[2Jpanic: no database"},
			},
			{Host: "web3", State: orchestrator.Unreachable, Step: orchestrator.StepConnect, Err: errors.New("no route to host")},
			{Host: "web4", State: orchestrator.Verified, Serving: "20261122-a", Slot: "blue", Switch: 900 * time.Microsecond, Teardown: "3 connections, at the latest 22:30"},
		},
		Err: errors.New("too many hosts failed: 1, at most 0"),
	}
}

const summaryText = `
deploy: failed in 42.3s, 1 done, 1 failed, 1 unreachable, 1 verified; version 42, release 20261122-a, commit 012345678901, image sha256:abababababab
  too many hosts failed: 1, at most 0

HOST        STATE        SERVING     SLOT   SWITCH  BLUE
web1        done         42          green  3.2ms   gone 21:30:20
database-2  failed       41          blue   -       -
web3        unreachable  -           -      -       -
web4        verified     20261122-a  blue   900µs   3 connections, at the latest 22:30

database-2: failed at test
  GET /up: status 503
  really
  the last lines of green:
  | boot
  | \x1b[2Jpanic: no database

web3: unreachable at connect
  no route to host
`

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	r := NewPlain(&out, Names{Hosts: []string{"web1", "database-2"}})
	for _, e := range events() {
		r.Event(e)
	}
	if err := r.Finish(result()); err != nil {
		t.Fatal(err)
	}
	want := `21:30:05                     deploy shop 42 to 2 hosts
21:30:06 web1       connect  done
21:30:06 web1       image    started
21:30:07 web1       image    pulled sha256:ab12
21:30:07 web1       code     skipped: no code
21:30:08 database-2 install  | \x1b]0;owned\x07\u202eevil
21:30:08 database-2 install  warning: slow: 9 s
21:30:09 database-2 test     failed: GET /up: status 503\nreally
21:30:10 database-2 undo     done
21:30:11 web1       teardown blue is gone
` + summaryText
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	r := NewJSON(&out)
	for _, e := range events()[5:8] {
		r.Event(e)
	}
	if err := r.Finish(result()); err != nil {
		t.Fatal(err)
	}
	want := `{"schema":1,"time":"2026-11-22T21:30:08Z","run":"r7","host":"database-2","step":"install","status":"output","text":"\u001b]0;owned\u0007\u202eevil"}
{"schema":1,"time":"2026-11-22T21:30:08Z","run":"r7","host":"database-2","step":"install","status":"warning","text":"slow","error":"9 s"}
{"schema":1,"time":"2026-11-22T21:30:09Z","run":"r7","host":"database-2","step":"test","status":"failed","error":"GET /up: status 503\nreally"}
{"schema":1,"result":{"run":"r7","command":"deploy","outcome":"failed","code":4,"release":"20261122-a","version":"42","commit":"0123456789012345678901234567890123456789","digest":"sha256:` + strings.Repeat("ab", 32) + `","started":"2026-11-22T21:30:05Z","ended":"2026-11-22T21:30:47.25Z","hosts":[` +
		`{"host":"web1","state":"done","serving":"20261122-a","version":"42","slot":"green","switch_ms":3.217,"switched_at":"2026-11-22T21:30:10Z","blue_gone_at":"2026-11-22T21:30:20Z"},` +
		`{"host":"database-2","state":"failed","serving":"20261121-z","version":"41","slot":"blue","step":"test","error":"GET /up: status 503\nreally","log":["boot\r\n","\u001b[2Jpanic: no database"]},` +
		`{"host":"web3","state":"unreachable","step":"connect","error":"no route to host"},` +
		`{"host":"web4","state":"verified","serving":"20261122-a","slot":"blue","switch_ms":0.9,"teardown":"3 connections, at the latest 22:30"}],` +
		`"error":"too many hosts failed: 1, at most 0"}}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestJSONOfARunWithoutHostsHasAnEmptyList(t *testing.T) {
	var out bytes.Buffer
	if err := NewJSON(&out).Finish(orchestrator.Result{Outcome: orchestrator.OutcomeNothing}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"outcome":"nothing to do","code":0,`) || !strings.Contains(out.String(), `"hosts":[]`) {
		t.Error(out.String())
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünï 漢字 🚀":        "plain ünï 漢字 🚀",
		"a\tb":                  "a  b",
		"\x1b[31mred\x1b[0m":    `\x1b[31mred\x1b[0m`,
		"\u009b31m":             `\x9b31m`,
		"a\rb\nc":               `a\rb\nc`,
		"\xff\xfe":              `\xff\xfe`,
		"\u202etxt.exe":         `\u202etxt.exe`,
		"zero\u200bwidth\ufeff": `zero\u200bwidth\ufeff`,
		"\x7f":                  `\x7f`,
		"":                      "",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanLeavesNothingThatATerminalObeys(f *testing.F) {
	f.Add("\x1b]52;c;aGk=\x07")
	f.Add("\xc2\x9b1A\u2066")
	f.Fuzz(func(t *testing.T, in string) {
		got := clean(in)
		if strings.ContainsFunc(got, unsafe) {
			t.Errorf("clean(%q) = %q", in, got)
		}
		if clean(got) != got {
			t.Errorf("clean(%q) changes when cleaned again", in)
		}
	})
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                               "0s",
		850 * time.Nanosecond:           "1µs",
		850 * time.Microsecond:          "850µs",
		3217 * time.Microsecond:         "3.2ms",
		4120 * time.Millisecond:         "4.1s",
		125 * time.Second:               "2m05s",
		time.Hour + 2*time.Minute:       "1h02m",
		26*time.Hour + 59*time.Second*1: "26h01m",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%d) = %s, want %s", d, got, want)
		}
	}
}

func TestNewChooses(t *testing.T) {
	tests := []struct {
		name string
		json bool
		env  map[string]string
		want string
	}{
		{"json when asked for", true, nil, "*display.jsonLines"},
		{"a board on a terminal", false, map[string]string{"TERM": "xterm"}, "*display.live"},
		{"plain lines in CI", false, map[string]string{"CI": "true"}, "*display.plain"},
		{"plain lines without colours", false, map[string]string{"NO_COLOR": "1"}, "*display.plain"},
		{"plain lines on a dumb terminal", false, map[string]string{"TERM": "dumb"}, "*display.plain"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			terminal := openTerminal(t, 80, 24)
			r := New(Options{Out: terminal.slave, JSON: tt.json, Getenv: func(name string) string { return tt.env[name] }})
			if got := typeName(r); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if err := r.Finish(orchestrator.Result{}); err != nil {
				t.Error(err)
			}
		})
	}
	if got := typeName(New(Options{Out: io.Discard, Getenv: os.Getenv})); got != "*display.plain" {
		t.Errorf("on no terminal: %s", got)
	}
}

func TestSpeaksUTF8(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"LANG": "en_US.UTF-8"}, true},
		{map[string]string{"LANG": "de_DE.utf8"}, true},
		{map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": "C"}, false},
		{map[string]string{"LANG": "C", "LC_CTYPE": "C.UTF-8"}, true},
	} {
		if got := speaksUTF8(func(name string) string { return tt.env[name] }); got != tt.want {
			t.Errorf("%v: %t", tt.env, got)
		}
	}
}

func TestTeeHandsEverythingToAll(t *testing.T) {
	var a, b bytes.Buffer
	full := errors.New("disk full")
	r := Tee(NewJSON(&a), NewPlain(&b, Names{}), NewJSON(failing{full}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, e := range events() {
				r.Event(e)
			}
		})
	}
	wg.Wait()
	if err := r.Finish(result()); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	if n := bytes.Count(a.Bytes(), []byte("\n")); n != 81 {
		t.Errorf("%d lines of JSON, want 81", n)
	}
	if n := bytes.Count(b.Bytes(), []byte("\n")); n != 80+strings.Count(summaryText, "\n") {
		t.Errorf("%d plain lines", n)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestErrorDoesNotRepeatTheHostThatStandsBeforeIt(t *testing.T) {
	err := errors.New("web1: connect: connection refused")
	e := orchestrator.Event{Time: at(1), Host: "web1", Step: orchestrator.StepConnect, Status: orchestrator.StatusFailed, Err: err}
	if got, want := eventText(e), "failed: connect: connection refused"; got != want {
		t.Errorf("event %q, want %q", got, want)
	}
	h := orchestrator.HostResult{Host: "web1", State: orchestrator.Unreachable, Step: orchestrator.StepConnect, Err: err}
	if got, want := failureOf(h, false), "\nweb1: unreachable at connect\n  connect: connection refused\n"; got != want {
		t.Errorf("failure %q, want %q", got, want)
	}
	e.Host = "web10"
	if got, want := eventText(e), "failed: web1: connect: connection refused"; got != want {
		t.Errorf("event of another host %q, want %q", got, want)
	}
}
