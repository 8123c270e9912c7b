package loader

import (
	"strings"
	"sync"
)

const (
	tailSize  = 64 << 10 // bytes; the traces of a panic are long
	tailLines = 5
)

// A tail keeps the end of what a plugin wrote to standard error.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String returns why a plugin ended as far as it said: the line of a panic,
// else the last lines.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var last []string
	for line := range strings.Lines(string(t.buf)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
		if line != "" {
			last = append(last, line)
		}
	}
	return strings.Join(last[max(0, len(last)-tailLines):], "; ")
}
