package shell

import (
	"bytes"
	"io"
	"sync"
)

// maxNoise is how much of what comes before the mark is kept, at least.
const maxNoise = 64 << 10

// A MarkWriter holds back what comes before the mark and passes on what comes
// after it.
type MarkWriter struct {
	w     io.Writer
	found chan struct{}

	mu    sync.Mutex
	noise []byte // what came before the mark
	seen  bool
}

// NewMarkWriter returns a MarkWriter that writes to w.
func NewMarkWriter(w io.Writer) *MarkWriter {
	return &MarkWriter{w: w, found: make(chan struct{})}
}

func (m *MarkWriter) Write(p []byte) (int, error) {
	output := p
	if !m.seen { // which only Write changes
		output = m.search(p)
	}
	if len(output) == 0 {
		return len(p), nil
	}
	if _, err := m.w.Write(output); err != nil {
		return 0, err
	}
	return len(p), nil
}

// search looks for the mark and returns what comes after it.
func (m *MarkWriter) search(p []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noise = append(m.noise, p...)
	before, after, ok := bytes.Cut(m.noise, []byte(Mark))
	if ok {
		m.noise, m.seen = before, true
		close(m.found)
	} else if len(m.noise) > 2*maxNoise {
		m.noise = append(m.noise[:0], m.noise[len(m.noise)-maxNoise:]...)
	}
	return after
}

// Before returns what came before the mark, and whether the mark came.
func (m *MarkWriter) Before() (noise []byte, seen bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.noise), m.seen
}

// Found is closed at the mark.
func (m *MarkWriter) Found() <-chan struct{} { return m.found }
