package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/teal-deploy/teal/plugins"
)

// errTooMany ends a run when more hosts failed than its limits allow.
var errTooMany = errors.New("more hosts failed than the rollout allows")

// dropped counts the hosts that the run has lost, whatever became of them.
type dropped struct {
	mu          sync.Mutex
	failed      int
	unreachable int // also those of which it is not known what they serve
}

// drop notes that a step failed on a host. ctx is what the step was given: it
// knows whether the connection was lost before the step found out.
func (r *run) drop(ctx context.Context, h *hostRun, step Step, err error) {
	if cause := context.Cause(ctx); errors.Is(cause, plugins.Lost) {
		err = cause
	}
	lost := errors.Is(err, plugins.Lost)
	switch {
	case lost && h.onGreen():
		// The switch is confirmed and written down. What is left the host
		// does by itself.
		h.step, h.err = step, r.redact.err(err)
		r.warn(h, step, h.plan.To.Version+" serves; the host goes on without teal", err)
	case h.onGreen(): // it serves green until it has gone back
		r.note(h, h.state, step, err)
	case lost:
		r.note(h, Unreachable, step, err)
	default:
		r.note(h, Failed, step, err)
	}
}

// onGreen reports whether the host serves what this run switched it to.
func (h *hostRun) onGreen() bool {
	return h.state == Switched || h.state == Verified || h.state == Done
}

// note takes a host out of the run, in the state in which it is.
func (r *run) note(h *hostRun, state HostState, step Step, err error) {
	h.state, h.step, h.err = state, step, r.redact.err(err)
	r.dropped.mu.Lock()
	if state == Unreachable || state == Unknown {
		r.dropped.unreachable++
	} else {
		r.dropped.failed++
	}
	r.dropped.mu.Unlock()
	r.emit(Event{Host: h.inv.Name, Step: step, Status: StatusFailed, Err: err})
}

// tooMany returns an error when more hosts are lost to the run than its
// rollout allows, counted over the whole run, or all of them.
func (r *run) tooMany() error {
	r.dropped.mu.Lock()
	failed, unreachable := r.dropped.failed, r.dropped.unreachable
	r.dropped.mu.Unlock()
	n := len(r.hosts)
	mayFail, mayBeUnreachable := r.rollout.MaxFailed.Of(n), r.rollout.MaxUnreachable.Of(n)
	switch {
	case failed > mayFail:
		return fmt.Errorf("%w: %d of %d, max_failed is %d", errTooMany, failed, n, mayFail)
	case unreachable > mayBeUnreachable:
		return fmt.Errorf("%w: %d of %d are unreachable, max_unreachable is %d", errTooMany, unreachable, n, mayBeUnreachable)
	case failed+unreachable >= n:
		return fmt.Errorf("%w: no host is left", errTooMany)
	}
	return nil
}
