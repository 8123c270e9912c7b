package health

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// Used where a field of the test is zero.
const (
	defaultWithin   = 60 * time.Second
	defaultInterval = time.Second
	defaultTimeout  = 5 * time.Second
)

// watchFailures is how many rounds in a row fail before Watch gives up: one
// slow answer must not throw a serving release out.
const watchFailures = 3

// A Subject is the container that is tested and the ways to reach it.
type Subject struct {
	Host      plugins.Host
	Address   netip.AddrPort                                       // of the container's port, on the host; zero for a worker
	Exec      func(ctx context.Context, argv []string) error       // inside the container
	Container func(ctx context.Context) (plugins.Container, error) // as the runtime sees it now

	// Redact takes secrets out of what the app answered before that is
	// shortened for a message: half a secret would not be recognised later.
	// Nil: nothing is taken out.
	Redact func(string) string
}

// An Error says which check failed, why, and how often it was tried. The
// cause stays in the chain: plugins.Lost there means that nothing is known.
type Error struct {
	Check    string        // "GET /up", "tcp 8080", "exec bin/selftest", "engine" or "container"
	Reason   string        // one line
	Attempts int           // rounds made
	Elapsed  time.Duration // since the first round began
	Err      error         // the cause; nil when the test was not failing but too slow

	final   bool // more rounds cannot change it
	unasked bool // the runtime gave no answer: it says nothing of the container
}

func (e *Error) Error() string {
	times := "1 attempt"
	if e.Attempts != 1 {
		times = fmt.Sprintf("%d attempts", e.Attempts)
	}
	return fmt.Sprintf("%s: %s (%s in %s)", e.Check, e.Reason, times, e.Elapsed.Round(100*time.Millisecond))
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Wait tests the subject until it is healthy: every check passed in
// test.Successes rounds in a row and for test.Stable, the container running
// all the while without a restart. It returns an *Error when that has not
// come true within test.Within, or cannot any more; the cause of ctx when ctx
// ended first. Report, unless nil, gets a line whenever there is something new
// to say. Zero durations are one minute, one second between rounds, and five
// seconds for a check; no Successes is one.
func Wait(ctx context.Context, s Subject, test spec.Test, report func(string)) error {
	p := newProber(s, test)
	within, cancel := context.WithTimeout(ctx, p.test.Within)
	defer cancel()
	var k streak
	said := ""
	for {
		err := p.round(within)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && err.final:
			return p.finish(err)
		case err != nil && within.Err() != nil: // what it says is that it was cut short
			k.last = cmp.Or(k.last, err)
			return p.late(k)
		}
		pause, healthy := k.add(err, p.test)
		if healthy {
			return nil
		}
		if line := k.progress(p.test); report != nil && line != said {
			report(line)
			said = line
		}
		if !wait(within, pause) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return p.late(k)
		}
	}
}

// Watch goes on testing a subject that Wait has passed until ctx ends, and
// then returns nil. It returns an *Error as soon as the container has exited,
// was restarted or is gone, and when the checks failed three rounds in a row. A
// runtime that gives no answer is no failure of the container: then the checks
// that do not need it decide.
func Watch(ctx context.Context, s Subject, test spec.Test) error {
	p := newProber(s, test)
	failed := 0
	for {
		err := p.round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the watch is over, and green was healthy
		case err == nil:
			failed = 0
		case err.unasked:
		case err.final || p.restarts > 0:
			return p.finish(err)
		default:
			if failed++; failed == watchFailures {
				return p.finish(err)
			}
		}
		if !wait(ctx, p.test.Interval) {
			return nil
		}
	}
}

// A streak is what the rounds up to now amount to.
type streak struct {
	passed int       // in a row, up to now
	since  time.Time // when the first of them had passed
	failed int       // in all
	last   *Error    // why the newest failed one failed
}

// add counts a round that has just ended. It returns how long to pause before
// the next, and whether no other is needed.
func (k *streak) add(err *Error, t spec.Test) (pause time.Duration, healthy bool) {
	now := time.Now()
	if err != nil {
		// A container that is just starting is asked more often at first.
		pause = min(t.Interval, t.Interval>>3<<min(k.failed, 3))
		k.last, k.passed = err, 0
		k.failed++
		return pause, false
	}
	if k.passed++; k.passed == 1 {
		k.since = now
	}
	rest := k.since.Add(t.Stable).Sub(now)
	if rest > 0 && k.passed+1 >= t.Successes {
		return min(t.Interval, rest), false
	}
	return t.Interval, rest <= 0 && k.passed >= t.Successes
}

// progress says in a line how the subject stands.
func (k *streak) progress(t spec.Test) string {
	if k.passed == 0 {
		return k.last.Check + ": " + k.last.Reason
	}
	line := fmt.Sprintf("passed %d of %s in a row", min(k.passed, t.Successes), count(t.Successes, "time"))
	if t.Stable > 0 {
		line += fmt.Sprintf(", to stay so for %s", t.Stable)
	}
	return line
}

// wait returns false when ctx ended before the pause was over.
func wait(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// withDefaults fills in what the test leaves open.
func withDefaults(t spec.Test) spec.Test {
	t.Within = cmp.Or(t.Within, defaultWithin)
	t.Interval = cmp.Or(t.Interval, defaultInterval)
	t.Timeout = min(cmp.Or(t.Timeout, defaultTimeout), t.Within)
	t.Successes = max(t.Successes, 1)
	return t
}
