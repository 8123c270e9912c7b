package display

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// clean makes text from a host safe to print on one line: what a terminal
// would obey, or what would reorder or hide text, is written as an escape.
func clean(text string) string {
	if !strings.ContainsFunc(text, unsafe) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '\t':
			b.WriteString("  ")
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0xa0 && unsafe(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unsafe(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(text[i : i+size])
		}
		i += size
	}
	return b.String()
}

// unsafe reports control characters, marks that change the direction of text,
// line separators, and bytes that are not UTF-8.
func unsafe(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0, r == utf8.RuneError:
		return true
	case r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, r == 0xfeff, r == 0x061c:
		return true
	}
	return false
}

// lines splits text from a host into clean lines without empty ends.
func lines(text string) []string {
	var out []string
	for line := range strings.Lines(strings.Trim(text, "\r\n")) {
		out = append(out, clean(strings.TrimRight(line, "\r\n")))
	}
	return out
}

// Text writes lines that may hold text from hosts, made safe to print.
func Text(w io.Writer, text string) error {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(clean(strings.TrimRight(line, "\r\n")) + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write text: %w", err)
	}
	return nil
}

// fit shortens or pads text to exactly width columns.
func fit(text string, width int) string {
	return pad(ansi.Truncate(text, max(width, 0), "…"), width)
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(width-ansi.StringWidth(text), 0))
}

// duration prints d as people read it: 850µs, 3.2ms, 4.1s, 2m05s, 1h02m.
func duration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}

// A paint is the number of a terminal's basic colour; 0: its own.
type paint int

const (
	red   paint = 31
	green paint = 32
	blue  paint = 34
	teal  paint = 36
	faint paint = 2
	bold  paint = 1
)

// A palette paints text, or does not.
type palette bool

func (p palette) paint(c paint, text string) string {
	if !p || c == 0 || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, text)
}
