package wire

import (
	"context"
	"errors"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// maxErrorText bounds a text inside an Error, in bytes.
const maxErrorText = 64 << 10

// encodeError returns nil for nil.
func encodeError(err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Text: clip(err.Error())}
	switch x := err.(type) { //nolint:errorlint // the chain is walked link by link
	case *plugins.Error:
		e.Is = &Error_Classified{&Classified{Op: clip(x.Op), Host: clip(x.Host), Kind: clip(string(x.Kind))}}
		if x.Err != nil {
			e.Causes = []*Error{encodeError(x.Err)}
		}
		return e
	case *plugins.ExitError:
		e.Is = &Error_Exit{&Exit{Host: clip(x.Host), Args: clipAll(x.Args), Code: clampInt32(x.Code), Stderr: x.Stderr}}
		return e
	case *plugins.SettingError:
		e.Is = &Error_Setting{&Setting{Path: clipAll(x.Path)}}
		if x.Err != nil {
			e.Causes = []*Error{encodeError(x.Err)}
		}
		return e
	case plugins.Kind:
		e.Is = &Error_Kind{clip(string(x))}
		return e
	}
	switch err { //nolint:errorlint // this link, not the chain
	case context.Canceled:
		e.Is = &Error_Canceled{true}
	case context.DeadlineExceeded:
		e.Is = &Error_Deadline{true}
	default:
		for _, cause := range unwrap(err) {
			if c := encodeError(cause); c.matters() {
				e.Causes = append(e.Causes, c)
			}
		}
	}
	return e
}

// matters reports whether e is more than a text.
func (e *Error) matters() bool { return e.GetIs() != nil || len(e.GetCauses()) > 0 }

func unwrap(err error) []error {
	switch x := err.(type) { //nolint:errorlint // one link
	case interface{ Unwrap() error }:
		if cause := x.Unwrap(); cause != nil {
			return []error{cause}
		}
	case interface{ Unwrap() []error }:
		return x.Unwrap()
	}
	return nil
}

// clip makes a text fit for a message: bounded, and valid UTF-8.
func clip(s string) string {
	if len(s) > maxErrorText {
		s = s[:maxErrorText] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func clipAll(list []string) []string {
	clipped := make([]string, len(list))
	for i, s := range list {
		clipped[i] = clip(s)
	}
	return clipped
}

// decodeError returns nil for nil.
func decodeError(e *Error) error {
	if e == nil {
		return nil
	}
	switch x := e.GetIs().(type) {
	case *Error_Classified:
		err := &plugins.Error{Op: x.Classified.GetOp(), Host: x.Classified.GetHost(), Kind: plugins.Kind(x.Classified.GetKind())}
		if len(e.GetCauses()) > 0 {
			err.Err = decodeError(e.GetCauses()[0])
		}
		return err
	case *Error_Exit:
		return &plugins.ExitError{
			Host: x.Exit.GetHost(), Args: x.Exit.GetArgs(), Code: int(x.Exit.GetCode()), Stderr: x.Exit.GetStderr(),
		}
	case *Error_Setting:
		err := &plugins.SettingError{Path: x.Setting.GetPath()}
		if len(e.GetCauses()) > 0 {
			err.Err = decodeError(e.GetCauses()[0])
		}
		return err
	case *Error_Kind:
		return plugins.Kind(x.Kind)
	case *Error_Canceled:
		return context.Canceled
	case *Error_Deadline:
		return context.DeadlineExceeded
	}
	if len(e.GetCauses()) == 0 {
		return errors.New(e.GetText())
	}
	err := &carried{text: e.GetText()}
	for _, cause := range e.GetCauses() {
		err.causes = append(err.causes, decodeError(cause))
	}
	return err
}

// A carried error prints what the original printed and wraps what it wrapped.
type carried struct {
	text   string
	causes []error
}

func (e *carried) Error() string   { return e.text }
func (e *carried) Unwrap() []error { return e.causes }
