package shell

import (
	"errors"
	"io"
	"strconv"
	"sync"
)

// maxFrame bounds a frame, and what is read ahead. A frame costs a process on
// the host, so it should hold all that there is.
const maxFrame = 256 << 10

// errOver says that nobody wants the rest of an input.
var errOver = errors.New("the command is over")

// Pump writes the input to w, in the frames that pumpScript takes apart,
// and then the end. It returns the error of the reader; one of w only says that
// the command is over.
func (b *Input) Pump(w io.Writer) error {
	for {
		data, err := b.next()
		if len(data) > 0 {
			frame := append(strconv.AppendInt(nil, int64(len(data)), 10), '\n')
			if _, err := w.Write(append(frame, data...)); err != nil {
				return nil //nolint:nilerr // see above
			}
		}
		switch {
		case errors.Is(err, errOver):
			return nil
		case errors.Is(err, io.EOF):
			_, _ = io.WriteString(w, "0\n")
			return nil
		case err != nil:
			return err
		}
	}
}

// An Input carries a reader to the host. It gathers what the reader gives while
// the last frame is on its way.
type Input struct {
	mu      sync.Mutex
	changed sync.Cond
	data    []byte
	err     error
	stopped bool
}

// NewInput returns an Input that reads r to its end, or until Stop.
func NewInput(r io.Reader) *Input {
	b := new(Input)
	b.changed.L = &b.mu
	go b.fill(r)
	return b
}

// fill reads r to its end, or until nobody wants it.
func (b *Input) fill(r io.Reader) {
	buf := make([]byte, maxFrame)
	for {
		n, err := r.Read(buf)
		b.mu.Lock()
		for len(b.data) > 0 && len(b.data)+n > maxFrame && !b.stopped {
			b.changed.Wait()
		}
		b.data = append(b.data, buf[:n]...)
		b.err = err
		stopped := b.stopped
		b.changed.Broadcast()
		b.mu.Unlock()
		if err != nil || stopped {
			return
		}
	}
}

// next waits for data, the reader's error or Stop, and takes what there is.
func (b *Input) next() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 && b.err == nil && !b.stopped {
		b.changed.Wait()
	}
	if b.stopped {
		return nil, errOver
	}
	data := b.data
	b.data = nil
	b.changed.Broadcast()
	return data, b.err
}

// Stop makes Pump and the reading end, the reading after the read that it may be in.
func (b *Input) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.changed.Broadcast()
}
