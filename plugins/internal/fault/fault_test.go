package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestErrorNamesThePluginAndItsLastWords(t *testing.T) {
	for _, tt := range []struct {
		err  Error
		want string
	}{
		{Error{"mine", "died (signal: killed)", "oh no"}, "plugin mine died (signal: killed): oh no (--verbose shows all that it writes)"},
		{Error{Plugin: "mine", What: "died"}, "plugin mine died (--verbose shows all that it writes)"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%q, not %q", got, tt.want)
		}
	}
}

func TestSkewSaysWhatIsTooOld(t *testing.T) {
	for theirs, want := range map[int]string{
		1: "it speaks version 1 of the protocol and this teal version 2: update the plugin",
		3: "it speaks version 3 of the protocol and this teal version 2: update teal, or take the plugin's release for this one",
	} {
		if got := Skew(theirs, 2).Error(); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestNotStartedSaysWhatIsMissing(t *testing.T) {
	other := errors.New("no memory")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Op: "fork/exec", Path: "/p", Err: syscall.ENOEXEC}, "/p is neither a program for "},
		{&fs.PathError{Op: "fork/exec", Path: "/p", Err: syscall.ENOENT}, "/p is there, but not what it needs to run"},
		{other, "no memory"},
	} {
		if got := NotStarted("/p", tt.err).Error(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%q, not %q", got, tt.want)
		}
	}
}

func TestTailIsWhyAPluginEnded(t *testing.T) {
	for _, tt := range []struct{ name, written, want string }{
		{"nothing", "", ""},
		{"empty lines", "\n \n", ""},
		{"few lines", "one\r\ntwo\n", "one; two"},
		{"many lines", "1\n2\n3\n4\n5\n6\n7", "3; 4; 5; 6; 7"},
		{"panic", "before\npanic: oh\n\ngoroutine 1 [running]:\nmain.main()\n", "panic: oh"},
		{"fatal error", "fatal error: all goroutines are asleep\n\ngoroutine 1", "fatal error: all goroutines are asleep"},
		{"long line", "one\n" + strings.Repeat("x", 501), "one; (a long line)"},
		{"endless line", strings.Repeat("x", 1<<20), "(a long line)"},
		{"no text", "a\xffb", "a\uFFFDb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tail Tail
			for chunk := range strings.SplitSeq(tt.written, "\n") { // in pieces, as programs write
				fmt.Fprint(&tail, chunk)
				fmt.Fprint(&tail, "\n")
			}
			if got := tail.String(); got != tt.want {
				t.Errorf("%q, not %q", got, tt.want)
			}
		})
	}
}

func TestTailOfAFloodIsWholeLinesAndSmall(t *testing.T) {
	var tail Tail
	for i := range 100_000 {
		fmt.Fprintf(&tail, "line %06d\n", i)
	}
	if got := tail.Lines(2); len(got) != 2 || got[0] != "line 099998" || got[1] != "line 099999" {
		t.Errorf("the last lines are %q", got)
	}
	for _, line := range tail.Lines(1 << 20) {
		if len(line) != len("line 000000") {
			t.Fatalf("part of a line: %q", line)
		}
	}
	if cap(tail.buf) > 4*tailSize {
		t.Errorf("it keeps %d bytes", cap(tail.buf))
	}
}

func TestTailCostsNoCopyALine(t *testing.T) {
	var tail Tail
	line := []byte(strings.Repeat("x", 99) + "\n")
	for range 2 * tailSize / len(line) {
		_, _ = tail.Write(line)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = tail.Write(line) }); n > 0 {
		t.Errorf("%v allocations a line", n)
	}
}
