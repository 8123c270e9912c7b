package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// A prober makes rounds of checks and remembers the container's process
// between them.
type prober struct {
	subject  Subject
	test     spec.Test
	client   *http.Client
	began    time.Time
	attempts int
	pid      int // of the container when it last ran; 0: not seen running yet
	restarts int
}

func newProber(s Subject, t spec.Test) *prober {
	if s.Redact == nil {
		s.Redact = func(text string) string { return text }
	}
	return &prober{subject: s, test: withDefaults(t), client: newClient(s), began: time.Now()}
}

// finish completes an error with what the rounds so far amount to.
func (p *prober) finish(e *Error) *Error {
	e.Attempts, e.Elapsed = p.attempts, time.Since(p.began)
	if p.restarts > 0 && !strings.Contains(e.Reason, "restarted") {
		e.Reason += fmt.Sprintf("; the container was restarted %s", count(p.restarts, "time"))
	}
	return e
}

// late returns the error for a deadline that is over.
func (p *prober) late(k streak) *Error {
	if k.passed == 0 {
		return p.finish(k.last)
	}
	e := &Error{Check: "test", Reason: k.progress(p.test)}
	if k.last != nil {
		e.Err = k.last.Err
		e.Reason += fmt.Sprintf("; before that %s: %s", k.last.Check, k.last.Reason)
	}
	return p.finish(e)
}

// round looks at the container, then makes every check in the order of the
// app file, and returns the first failure. What the runtime could not be asked
// comes last.
func (p *prober) round(ctx context.Context) *Error {
	p.attempts++
	c, unasked := p.container(ctx)
	if unasked != nil && !unasked.unasked {
		return unasked
	}
	for _, check := range p.test.Checks {
		if unasked != nil && (check.Engine || len(check.Exec) > 0) {
			continue
		}
		switch failure := p.check(ctx, check, c); {
		case failure == nil:
		case failure.unasked:
			unasked = failure
		default:
			return failure
		}
	}
	return unasked
}

// container fails unless the container runs, in the process in which it ran
// the last time. The time limit of a check is about the app: a runtime on a busy
// host has the usual one, however short the app's is.
func (p *prober) container(ctx context.Context) (plugins.Container, *Error) {
	limit := max(p.test.Timeout, defaultTimeout)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := p.subject.Container(limited)
	fail := func(final bool, format string, args ...any) (plugins.Container, *Error) {
		unasked := err != nil && !errors.Is(err, plugins.NotFound) && !errors.Is(err, plugins.Lost)
		return c, &Error{Check: "container", Reason: fmt.Sprintf(format, args...), Err: err, final: final, unasked: unasked}
	}
	switch {
	case errors.Is(err, plugins.NotFound):
		return fail(true, "it is gone")
	case errors.Is(err, plugins.Lost), errors.Is(err, plugins.Invalid):
		return fail(true, "%v", err)
	case err != nil && limited.Err() != nil:
		return fail(false, "the runtime gave no answer within %s", limit)
	case err != nil:
		return fail(false, "%v", err)
	case c.Status == plugins.StatusExited:
		return fail(true, "it exited with code %d", c.ExitCode)
	case c.Status != plugins.StatusRunning:
		return fail(false, "it does not run")
	}
	before := p.pid
	p.pid = c.PID
	if before != 0 && before != c.PID {
		p.restarts++
		return fail(false, "it was restarted %s", count(p.restarts, "time"))
	}
	return c, nil
}

// check makes one check under its own time limit.
func (p *prober) check(ctx context.Context, check spec.Check, c plugins.Container) *Error {
	limited, cancel := context.WithTimeout(ctx, p.test.Timeout)
	defer cancel()
	name, err := "", error(nil)
	switch {
	case check.HTTP != "":
		name, err = "GET "+pathOnly(check.HTTP), p.http(limited, check)
	case check.TCP != 0:
		name, err = fmt.Sprintf("tcp %d", check.TCP), p.tcp(limited)
	case len(check.Exec) > 0:
		name, err = "exec "+check.Exec[0], p.exec(limited, check.Exec)
	case check.Engine:
		name, err = "engine", engine(c)
	}
	if err == nil {
		return nil
	}
	e := &Error{Check: name, Reason: p.subject.Redact(err.Error()), Err: err}
	e.final = errors.Is(err, plugins.Lost) || errors.Is(err, plugins.Invalid)
	e.unasked = len(check.Exec) > 0 && errors.Is(err, plugins.Unavailable)
	if clearly := new(answer); !errors.As(err, &clearly) && limited.Err() != nil {
		e.Reason = fmt.Sprintf("no answer within %s", p.test.Timeout)
	}
	return e
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
