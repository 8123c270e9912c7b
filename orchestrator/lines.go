package orchestrator

import (
	"bytes"
	"strings"
	"sync"
)

// A lineWriter emits what is written to it as output events, a line each.
type lineWriter struct {
	emit func(string)
	mu   sync.Mutex
	buf  []byte
	last []string // the last logLines lines
}

// maxLine bounds a line that never ends, such as a progress bar.
const maxLine = 8 << 10

func (r *run) lines(h *hostRun, step Step) *lineWriter {
	return &lineWriter{emit: func(line string) {
		r.emit(Event{Host: h.inv.Name, Step: step, Status: StatusOutput, Text: line})
	}}
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	for {
		line, rest, found := bytes.Cut(w.buf, []byte("\n"))
		if !found && len(w.buf) > maxLine {
			line, rest, found = w.buf[:maxLine], w.buf[maxLine:], true
		}
		if !found {
			return len(p), nil
		}
		w.take(string(line))
		w.buf = rest
	}
}

// flush emits what is left of a last line without an end.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.take(string(w.buf))
	w.buf = nil
}

func (w *lineWriter) take(line string) {
	if line = strings.TrimRight(line, "\r \t"); line == "" {
		return
	}
	w.last = append(w.last, line)
	w.last = w.last[max(len(w.last)-logLines, 0):]
	w.emit(line)
}
