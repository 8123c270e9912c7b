package shell

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestPumpWritesFramesAndTheEnd(t *testing.T) {
	broken := errors.New("broken")
	long := strings.Repeat("x", 3*maxFrame)
	tests := map[string]struct {
		r   io.Reader
		out string // "": several frames
		err error
	}{
		"nothing":        {strings.NewReader(""), "0\n", nil},
		"one frame":      {strings.NewReader("a\n\x00"), "3\na\n\x000\n", nil},
		"data with EOF":  {iotest.DataErrReader(strings.NewReader("ab")), "2\nab0\n", nil},
		"broken at once": {iotest.ErrReader(broken), "", broken},
		"broken later":   {io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(broken)), "2\nab", broken},
		"long":           {strings.NewReader(long), "", nil},
		"byte by byte":   {iotest.OneByteReader(strings.NewReader(long)), "", nil},
	}
	for name, tt := range tests {
		var out bytes.Buffer
		err := NewInput(tt.r).Pump(&out)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", name, err)
		}
		if tt.out != "" && out.String() != tt.out {
			t.Errorf("%s: %.100q", name, out.String())
		}
		if tt.out == "" && tt.err == nil && unframe(t, &out) != long {
			t.Errorf("%s: it is not what went in", name)
		}
	}
}

// unframe takes frames apart and expects that they are not too long.
func unframe(t *testing.T, r *bytes.Buffer) string {
	t.Helper()
	var all strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal("no end")
		}
		n := 0
		for _, c := range strings.TrimSuffix(line, "\n") {
			n = 10*n + int(c-'0')
		}
		if n > maxFrame {
			t.Errorf("a frame of %d bytes", n)
		}
		if n == 0 {
			return all.String()
		}
		all.Write(r.Next(n))
	}
}

func TestStopEndsAPumpThatWaits(t *testing.T) {
	r, w := io.Pipe()
	in := NewInput(r)
	done := make(chan error, 1)
	go func() { done <- in.Pump(io.Discard) }()
	in.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = w.Close() // the reading ends now
}

func TestPumpEndsWithItsWriter(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	if err := NewInput(strings.NewReader("text")).Pump(w); err != nil {
		t.Errorf("got %v", err)
	}
}
