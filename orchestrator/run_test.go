package orchestrator

import (
	"testing"
)

func TestWorld(t *testing.T) {
	w := newWorld(t, 2)
	t.Log(explain(w.must("1")))
	w.consistent("1")
	w.must("2")
	w.consistent("2")
	t.Log(w.hosts[0].calls)
	t.Log(w.hosts[1].calls)
}
