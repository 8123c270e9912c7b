package plugins

import (
	"errors"
	"strings"
)

// A Kind classes an error by what the caller may do about it. A Kind is an
// error itself, so that errors.Is(err, plugins.NotFound) works, also when err
// came from another process.
type Kind string

// The kinds of errors.
const (
	NotFound    Kind = "not found"   // no such image or container: correct the name
	Exists      Kind = "exists"      // the name is used by something else: remove that first
	Conflict    Kind = "conflict"    // a port or another resource is taken: free it
	Invalid     Kind = "invalid"     // the request makes no sense: correct the app file
	Denied      Kind = "denied"      // missing rights or a refused login: grant them
	Unavailable Kind = "unavailable" // nobody answers now: try again
	Unsupported Kind = "unsupported" // this runtime or engine cannot do that
	Lost        Kind = "lost"        // the connection went away: the outcome is unknown, look before you act
)

func (k Kind) Error() string { return string(k) }

// An Error says what failed, where and why. Empty parts are not printed, and
// neither is the host again when the cause begins with it.
type Error struct {
	Op   string // what was tried: "pull registry.example.com/shop:1"
	Host string
	Kind Kind
	Err  error // the cause
}

func (e *Error) Error() string {
	var parts []string
	for _, p := range []string{e.Host, e.Op} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	switch {
	case e.Err != nil:
		cause := e.Err.Error()
		if e.Host != "" {
			cause = strings.TrimPrefix(cause, e.Host+": ")
		}
		parts = append(parts, cause)
	case e.Kind != "":
		parts = append(parts, string(e.Kind))
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the error's Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf returns the kind of the first *Error in err's chain, or "".
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}
