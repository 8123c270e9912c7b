package fault

import (
	"bytes"
	"strings"
	"sync"
)

const (
	tailSize  = 64 << 10 // bytes; the traces of a panic are long
	tailLines = 5
	// longest is how long a line may be that is shown, in bytes. A longer one
	// is not shown in part: half of a secret would not be recognised later.
	longest = 500
)

// A Tail keeps the end of what is written to it, and no more than that however
// much it is. It may be used by several goroutines.
type Tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-tailSize):]...)
	if len(t.buf) > 2*tailSize { // not each time: whoever floods must not cost a copy a line
		t.buf = append(t.buf[:0], t.end()...)
	}
	return len(p), nil
}

// end is the last tailSize bytes, from the beginning of a line on.
func (t *Tail) end() []byte {
	if len(t.buf) <= tailSize {
		return t.buf
	}
	end := t.buf[len(t.buf)-tailSize:]
	if _, whole, _ := bytes.Cut(end, []byte("\n")); len(whole) > 0 {
		return whole
	}
	return end
}

// Lines returns the last n lines without their ends; fewer where that is all.
func (t *Tail) Lines(n int) []string {
	t.mu.Lock()
	text := string(t.end())
	t.mu.Unlock()
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	return lines[max(0, len(lines)-n):]
}

// String returns why a plugin ended as far as it said, in one line: the line
// of a panic, else the last lines.
func (t *Tail) String() string {
	var last []string
	for _, line := range t.Lines(tailSize) {
		line = strings.TrimSpace(line)
		if len(line) > longest {
			line = "(a long line)"
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return strings.ToValidUTF8(line, "\uFFFD")
		}
		if line != "" {
			last = append(last, line)
		}
	}
	return strings.ToValidUTF8(strings.Join(last[max(0, len(last)-tailLines):], "; "), "\uFFFD")
}
