package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/teal-deploy/teal/plugins"
)

// fault returns an error of a kind.
func (s *session) fault(op string, kind plugins.Kind, err error) error {
	return &plugins.Error{Op: op, Host: s.host.String(), Kind: kind, Err: clean(err)}
}

// wrap classes an error of the client. It returns nil for nil.
func (s *session) wrap(ctx context.Context, op string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case s.dialer.failure() != nil:
		return s.dialer.failure()
	case plugins.KindOf(err) != "":
		return err
	case broken(err):
		return s.fault(op, plugins.Lost, err)
	}
	return s.fault(op, kindOf(err), err)
}

// broken reports whether the connection ended before the answer came.
func broken(err error) bool {
	return client.IsErrConnectionFailed(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// kindOf reads the class of an answer. An engine reports what its registry or
// its kernel said as an internal error with a text, so texts decide the rest.
func kindOf(err error) plugins.Kind {
	if taken(err) {
		return plugins.Conflict
	}
	switch {
	case errdefs.IsNotFound(err):
		return plugins.NotFound
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err):
		return plugins.Conflict
	case errdefs.IsInvalidArgument(err):
		return plugins.Invalid
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return plugins.Denied
	case errdefs.IsNotImplemented(err):
		return plugins.Unsupported
	case errdefs.IsUnavailable(err):
		return plugins.Unavailable
	}
	return ""
}

// taken reports whether err says that a port is in use.
func taken(err error) bool {
	return contains(err, "port is already allocated", "address already in use")
}

// nameTaken reports whether err says that a container's name is in use.
// Podman has no class for it.
func nameTaken(err error) bool {
	return errdefs.IsConflict(err) || contains(err, "is already in use")
}

func contains(err error, texts ...string) bool {
	said := strings.ToLower(err.Error())
	for _, t := range texts {
		if strings.Contains(said, t) {
			return true
		}
	}
	return false
}

// clean drops what the client and the engine put before a message.
func clean(err error) error {
	text := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	if text == err.Error() {
		return err
	}
	return &answer{text: text, err: err}
}

// An answer is an error of the engine in its own words.
type answer struct {
	text string
	err  error
}

func (a *answer) Error() string { return a.text }
func (a *answer) Unwrap() error { return a.err }
