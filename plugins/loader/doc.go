// Package loader starts runtimes as plugins: it verifies the program, starts
// it in a process of its own, proves that it answers, and ends it.
//
// The runtimes that come with teal are plugins as well. Builtin starts teal's
// own program again with hidden arguments, which main recognises with
// BuiltinRequested: one file to install, no skew between versions, and the
// plugin protocol is what every deployment runs through.
//
// What a plugin gets: a short list of environment variables, a private folder
// as TMPDIR that is removed afterwards, no standard input, a process group of
// its own so that Ctrl-C does not end it in the middle of a rollback, and on
// Linux the kernel's promise that it dies with teal. That is hygiene and not a
// sandbox: a plugin runs as the operator and can read what the operator can.
//
// Find looks for plugins that others have made, in a fixed list of folders and
// never in PATH, and refuses what somebody but the operator and root could have
// changed. A project's lock file, .teal/plugins.lock, holds what its people have
// agreed to run: Accept writes it, and Find refuses what differs from it.
//
// A program may also speak the protocol Exec, lines of JSON, one process for
// each call: see plugins/internal/execruntime.
//
// The library is hashicorp/go-plugin; see plugins/internal/wire.
package loader
