// Package gate limits how many do something at a time, for each name on its
// own.
package gate

import (
	"context"
	"sync"
)

// A Set is a set of gates. The zero value is ready for use.
type Set struct {
	mu sync.Mutex
	m  map[string]chan struct{}
}

// Enter waits for one of n places under name and returns the function that
// leaves it. The error is the cause of ctx's end.
func (g *Set) Enter(ctx context.Context, name string, n int) (leave func(), err error) {
	g.mu.Lock()
	if g.m == nil {
		g.m = make(map[string]chan struct{})
	}
	gate := g.m[name]
	if gate == nil {
		gate = make(chan struct{}, n)
		g.m[name] = gate
	}
	g.mu.Unlock()
	select {
	case gate <- struct{}{}:
		return func() { <-gate }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
