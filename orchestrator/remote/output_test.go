package remote

import (
	"bytes"
	"testing"
)

func TestTailKeepsTheEnd(t *testing.T) {
	var all bytes.Buffer
	tail := new(tail)
	for i := range 500 {
		p := bytes.Repeat([]byte{byte(i)}, 997)
		_, _ = tail.Write(p)
		all.Write(p)
	}
	if !bytes.Equal(tail.bytes(), all.Bytes()[all.Len()-tailSize:]) {
		t.Error("it is another end")
	}
}
