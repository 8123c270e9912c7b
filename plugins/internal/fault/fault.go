// Package fault says in one line what a plugin did wrong: which plugin, what
// happened, the last lines that it wrote, and where to read more. Both
// protocols use the same words, which is why they are not in either.
package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"syscall"
)

// An Error is a fault of a plugin and not of a host: it died, hung, or did not
// keep to the protocol.
type Error struct {
	Plugin string // its name
	What   string // it did: "died (signal: killed)"
	Said   string // the last lines that it wrote; "": none
}

// Error is one line as long as Said is.
func (e *Error) Error() string {
	text := "plugin " + e.Plugin + " " + e.What
	if e.Said != "" {
		text += ": " + e.Said
	}
	return text + " (--verbose shows all that it writes)"
}

// Skew says that a plugin speaks version theirs of its protocol, and teal
// version ours.
func Skew(theirs, ours int) error {
	cure := "update the plugin"
	if theirs > ours {
		cure = "update teal, or take the plugin's release for this one"
	}
	return fmt.Errorf("it speaks version %d of the protocol and this teal version %d: %s", theirs, ours, cure)
}

// NotStarted says why a program that is there was not started by the system.
func NotStarted(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s is neither a program for %s on %s nor a script that begins with #! and an interpreter", path, runtime.GOOS, runtime.GOARCH)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is there, but not what it needs to run: see its first line, or its libraries", path)
	}
	return err
}
