package fault

import (
	"bytes"
	"strings"
	"sync"
)

// Lines hands on what is written to it, a whole line at a time: a log that is
// searched for secrets must not get one in two pieces. It may be used by
// several goroutines.
type Lines struct {
	Emit func(line string)

	mu  sync.Mutex
	buf []byte
}

// Write never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		line, rest, found := bytes.Cut(p, []byte("\n"))
		if !found {
			break
		}
		l.emit(append(l.buf, line...))
		l.buf, p = l.buf[:0], rest
	}
	if l.buf = append(l.buf, p...); len(l.buf) > tailSize {
		l.emit([]byte("(a long line)"))
		l.buf = l.buf[:0]
	}
	return n, nil
}

// Flush hands on what is left of a last line without an end.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf) > 0 {
		l.emit(l.buf)
		l.buf = nil
	}
}

func (l *Lines) emit(line []byte) { l.Emit(strings.TrimRight(string(line), "\r")) }
