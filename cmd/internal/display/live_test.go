package display

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/teal-deploy/teal/orchestrator"
)

func typeName(v any) string { return fmt.Sprintf("%T", v) }

// A terminal is a pseudo-terminal whose output is collected.
type terminal struct {
	master, slave *os.File
	mu            sync.Mutex
	out           bytes.Buffer
	ended         chan struct{}
	once          sync.Once
}

func openTerminal(t *testing.T, width, height uint16) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("no pseudo-terminal: %v", err)
	}
	var number int
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ctl error
	if err := raw.Control(func(fd uintptr) {
		ctl = errors.Join(
			unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0),
			unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}),
		)
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		number, ctl = n, errors.Join(ctl, err)
	}); err != nil || ctl != nil {
		t.Fatal(err, ctl)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{master: master, slave: slave, ended: make(chan struct{})}
	go func() {
		defer close(term.ended)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			term.mu.Lock()
			term.out.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { term.close(t) })
	return term
}

// close returns all that was written.
func (term *terminal) close(t *testing.T) string {
	t.Helper()
	term.once.Do(func() {
		_ = term.slave.Close()
		<-term.ended // the master reads to the end
		_ = term.master.Close()
	})
	return term.text()
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.String()
}

// waitFor waits until the terminal has been sent text, without its colours.
func (term *terminal) waitFor(t *testing.T, text string) {
	t.Helper()
	for range 200 {
		if strings.Contains(ansi.Strip(term.text()), text) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%q was never shown:\n%q", text, term.text())
}

func (term *terminal) settings(t *testing.T) *unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(term.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLiveShowsTheBoardAndThenTheSummary(t *testing.T) {
	term := openTerminal(t, 100, 24)
	before := term.settings(t)
	r := NewLive(term.slave, "deploy shop", Names{Hosts: []string{"web1", "database-2"}}, true)
	for _, e := range events() {
		r.Event(e)
	}
	term.waitFor(t, "deploy shop  1 failed, 1 done")
	term.waitFor(t, "21:30:09 database-2 test     failed: GET /up: status 503")
	if diff := cmp.Diff(before, term.settings(t)); diff != "" {
		t.Errorf("the terminal's settings changed, Ctrl-C may be lost:\n%s", diff)
	}
	late := orchestrator.Event{Time: at(7), Host: "web1", Step: orchestrator.StepTeardown, Status: orchestrator.StatusWarning, Text: "at the last moment"}
	r.Event(late)
	if err := r.Finish(result()); err != nil {
		t.Fatal(err)
	}
	all := term.close(t)
	shown := strings.ReplaceAll(ansi.Strip(all), "\r\n", "\n")
	if !strings.HasSuffix(shown, summaryText) {
		t.Errorf("the summary is not the end:\n%s", shown)
	}
	if !strings.Contains(shown, "at the last moment") {
		t.Error("a late warning was not shown")
	}
	for _, sequence := range []string{"\x1b]0;", "\x1b[2Jpanic", "\u202e", "$p", "\x1b[c", "\x1b[?2004h", "\x1b[?1049h"} {
		if strings.Contains(all, sequence) {
			t.Errorf("the terminal was sent %q", sequence)
		}
	}
	if strings.LastIndex(all, "\x1b[?25h") < strings.LastIndex(all, "\x1b[?25l") {
		t.Error("the cursor stays hidden")
	}
}

func TestLiveTakesAsManyLinesAboveAsFit(t *testing.T) {
	l := &live{above: []string{"one", "two", strings.Repeat("long ", 10), "four", strings.Repeat("x", 100), "six"}}
	var got [][]string
	for len(l.above) > 0 {
		got = append(got, l.take(20))
	}
	want := [][]string{
		{"one", "two"},
		{"long long long long ", "long long long long ", "long long "},
		{"four"},
		{strings.Repeat("x", 20), strings.Repeat("x", 20), strings.Repeat("x", 20)},
		{"six"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if l.above = []string{"x"}; l.take(0) != nil || len(l.above) != 1 {
		t.Error("lines were taken before the width was known")
	}
}

func TestLiveNeverWaitsForItsTerminal(t *testing.T) {
	term := openTerminal(t, 80, 24)
	r := NewLive(term.slave, "deploy shop", Names{}, true)
	start := time.Now()
	var wg sync.WaitGroup
	for h := range 50 {
		wg.Go(func() {
			for i := range 200 {
				r.Event(orchestrator.Event{Host: fmt.Sprint(h), Step: orchestrator.StepInstall, Status: orchestrator.StatusOutput, Text: fmt.Sprint(i)})
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("10,000 events took %s", took)
	}
	if err := r.Finish(orchestrator.Result{Command: "deploy", Outcome: orchestrator.OutcomeAborted}); err != nil {
		t.Error(err)
	}
}

func TestLiveDrawsNothingWhileItIsPaused(t *testing.T) {
	term := openTerminal(t, 100, 24)
	live := NewLive(term.slave, "deploy shop", Names{Hosts: []string{"web1"}}, true)
	r := Tee(NewPlain(&bytes.Buffer{}, Names{}), live) // of which one has nothing to pause
	started := func(step orchestrator.Step) orchestrator.Event {
		return orchestrator.Event{Time: at(1), Host: "web1", Step: step, Status: orchestrator.StatusStarted}
	}
	asked := func(question string, meanwhile func()) {
		t.Helper()
		resume := Pause(r)
		if _, err := fmt.Fprint(term.slave, question); err != nil {
			t.Fatal(err)
		}
		term.waitFor(t, question)
		before := term.text()
		if !strings.HasSuffix(before, question) || strings.LastIndex(before, "\x1b[?25h") < strings.LastIndex(before, "\x1b[?25l") {
			t.Errorf("the terminal was not given back: %q", before)
		}
		meanwhile()
		time.Sleep(3 * refresh)
		if got := strings.TrimPrefix(term.text(), before); got != "" {
			t.Errorf("while it was paused the terminal got %q", got)
		}
		resume()
	}

	asked("Before the first event? ", func() {})
	r.Event(started(orchestrator.StepConnect))
	term.waitFor(t, "deploy shop  1 running")
	asked("Passphrase: ", func() {
		r.Event(orchestrator.Event{Time: at(2), Host: "web1", Step: orchestrator.StepConnect, Status: orchestrator.StatusWarning, Text: "kept for later"})
		r.Event(started(orchestrator.StepImage))
	})
	term.waitFor(t, "kept for later")
	term.waitFor(t, "deploy shop  1 running")

	resume := Pause(r)
	if err := r.Finish(result()); err != nil {
		t.Fatal(err)
	}
	resume() // after the end, as when the run was told to end meanwhile
	r.Event(started(orchestrator.StepTest))
	all := term.close(t)
	if !strings.HasSuffix(strings.ReplaceAll(ansi.Strip(all), "\r\n", "\n"), summaryText) {
		t.Errorf("the summary is not the end:\n%s", all)
	}
	if strings.LastIndex(all, "\x1b[?25h") < strings.LastIndex(all, "\x1b[?25l") {
		t.Error("the cursor stays hidden")
	}
}

func TestLiveWithoutEventsIsTheSummary(t *testing.T) {
	term := openTerminal(t, 100, 24)
	r := NewLive(term.slave, "deploy shop", Names{Hosts: []string{"web1"}}, true)
	if err := r.Finish(result()); err != nil {
		t.Fatal(err)
	}
	if got := strings.ReplaceAll(ansi.Strip(term.close(t)), "\r\n", "\n"); got != summaryText {
		t.Error(cmp.Diff(summaryText, got))
	}
}

func TestSummaryLeavesMistakesToTheCaller(t *testing.T) {
	var out bytes.Buffer
	err := Summary(&out, orchestrator.Result{Command: "deploy", Outcome: orchestrator.OutcomeUsage, Err: errors.New("no such app")})
	if err != nil || out.Len() > 0 {
		t.Errorf("%v, %q", err, out.String())
	}
}
