package fault

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLinesAreWholeHoweverTheyAreWritten(t *testing.T) {
	const text = "one\r\ntwo\n\nthree, which has no end"
	want := []string{"one", "two", "", "three, which has no end"}
	for size := 1; size <= len(text); size++ {
		var got []string
		l := &Lines{Emit: func(line string) { got = append(got, line) }}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if _, err := io.WriteString(l, rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		l.Flush()
		l.Flush()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in pieces of %d: %s", size, diff)
		}
	}
}

func TestEndlessLineIsNotKept(t *testing.T) {
	var got []string
	l := &Lines{Emit: func(line string) { got = append(got, line) }}
	for range 3 * tailSize / 1000 {
		_, _ = io.WriteString(l, strings.Repeat("x", 1000))
	}
	if len(got) != 2 || got[0] != "(a long line)" {
		t.Errorf("%d lines, %.20q", len(got), got)
	}
	if cap(l.buf) > 2*tailSize {
		t.Errorf("it keeps %d bytes", cap(l.buf))
	}
}
