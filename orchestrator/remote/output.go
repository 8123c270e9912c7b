package remote

import (
	"bytes"
	"io"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// tailSize is how much of a command's standard error an ExitError keeps.
const tailSize = 64 << 10

// A tail keeps the last 64 KiB of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailSize {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.buf[max(0, len(t.buf)-tailSize):])
}

// A sink passes output on to the caller's writer until it is shut. Two streams
// may share one.
type sink struct {
	mu   sync.Mutex
	w    io.Writer
	shut bool
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return len(p), nil
	}
	return s.w.Write(p)
}

// close waits for the write that is under way. Later ones go nowhere.
func (s *sink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
}

// sinks returns where the two streams of a command go.
func sinks(stdout, stderr io.Writer) (out, err *sink) {
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	out = &sink{w: stdout}
	if same(stdout, stderr) {
		return out, out
	}
	return out, &sink{w: stderr}
}

// same reports whether a and b are one writer; not all types can be compared.
func same(a, b io.Writer) bool {
	return reflect.TypeOf(a).Comparable() && a == b
}

// A stream copies one output of a command and knows for how long there has
// been nothing to copy.
type stream struct {
	idleSince atomic.Int64 // Unix nanoseconds; 0 while the caller takes what came
}

// copy returns the caller's error; the end of the output is none.
func (s *stream) copy(w io.Writer, r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		s.idleSince.Store(time.Now().UnixNano())
		n, err := r.Read(buf)
		s.idleSince.Store(0)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			s.idleSince.Store(1)
			return nil //nolint:nilerr // io.EOF: a channel knows no other
		}
	}
}

// idle reports whether nothing has come for d, or nothing will.
func (s *stream) idle(d time.Duration) bool {
	since := s.idleSince.Load()
	return since != 0 && time.Since(time.Unix(0, since)) >= d
}
