package tomlfile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Problem is one thing that is wrong with a file. Its texts hold no control
// characters.
type Problem struct {
	File    string `json:"file,omitempty"`    // "" when there is no file, as for command-line flags
	Line    int    `json:"line,omitempty"`    // from 1; 0 when the problem has no place, as something missing
	Column  int    `json:"column,omitempty"`  // from 1, in characters
	Key     string `json:"key,omitempty"`     // dotted, with indexes: test.checks[1].status
	Message string `json:"message"`           // what is wrong
	Hint    string `json:"hint,omitempty"`    // what to do, may be empty
	Snippet string `json:"snippet,omitempty"` // the line and, below it, carets; may be empty
}

// String returns the problem as it is shown to people, over several lines.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(clean(p.File) + ":")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
		}
		b.WriteByte(' ')
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	if p.Snippet != "" {
		b.WriteString("\n" + p.Snippet)
	}
	if p.Hint != "" {
		b.WriteString("\n  hint: " + p.Hint)
	}
	return b.String()
}

// Problems are all that is wrong with a file. A nil Problems is not a nil
// error: use Err.
type Problems []Problem

// Error returns all problems, one below the other.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err returns the problems in the order of the file, each once, or nil when
// there are none. Those without a place come last.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps.sorted()
}

func (ps Problems) sorted() Problems {
	out := slices.Clone(ps)
	line := func(p Problem) int {
		if p.Line == 0 {
			return math.MaxInt
		}
		return p.Line
	}
	slices.SortStableFunc(out, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(line(a), line(b)), cmp.Compare(a.Column, b.Column))
	})
	seen := make(map[Problem]bool, len(out))
	return slices.DeleteFunc(out, func(p Problem) bool {
		again := seen[p]
		seen[p] = true
		return again
	})
}

// A Fault is an error with advice. A converter or an expansion that returns
// one has the advice shown as the problem's hint.
type Fault struct {
	Message string
	Hint    string
}

func (f *Fault) Error() string { return f.Message }

// Hint returns the advice of the Fault in err's chain, or "".
func Hint(err error) string {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f.Hint
	}
	return ""
}

// clean replaces what could change a terminal: control characters, line ends,
// direction marks and broken encoding.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		if r == '\t' {
			return ' '
		}
		return utf8.RuneError
	}, s)
}

// snippetWidth is how much of a line is shown, in characters.
const snippetWidth = 100

// snippet shows a line with carets below the width characters from column on.
func snippet(line string, number, column, width int) string {
	runes := []rune(clean(strings.TrimRight(line, " \t\r")))
	from := 0
	if column > snippetWidth*3/4 {
		from = min(column-snippetWidth/2, len(runes))
	}
	to := min(from+snippetWidth, len(runes))
	text, caret := string(runes[from:to]), column-1-from
	if from > 0 {
		text, caret = "…"+text, caret+1
	}
	if to < len(runes) {
		text += "…"
	}
	width = max(1, min(width, to-column+1))
	gutter := fmt.Sprintf("%5d | ", number)
	return gutter + text + "\n" +
		strings.Repeat(" ", len(gutter)-2) + "| " +
		strings.Repeat(" ", max(0, caret)) + strings.Repeat("^", width)
}
