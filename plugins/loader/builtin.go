package loader

import (
	"os"
	"runtime"
)

// self is this program's own file on Linux, also after an upgrade has put
// another one in its place.
const self = "/proc/self/exe"

// Builtin returns the Spec of a runtime that comes with teal: this program,
// started again.
func Builtin(name string) (Spec, error) {
	path := self
	if runtime.GOOS != "linux" {
		var err error
		if path, err = os.Executable(); err != nil {
			return Spec{}, err
		}
	}
	return Spec{Name: name, Cmd: []string{path, builtinCommand, builtinWord, name}}, nil
}

const (
	builtinCommand = "plugin"
	builtinWord    = "serve-builtin"
)

// BuiltinRequested reports whether args, the arguments after the program's
// name, are those of Builtin, and for which runtime. A main function asks
// before anything else looks at the arguments or writes to standard output,
// and then calls sdk.Serve.
func BuiltinRequested(args []string) (name string, ok bool) {
	if len(args) != 3 || args[0] != builtinCommand || args[1] != builtinWord {
		return "", false
	}
	return args[2], true
}
