// Package loader starts runtimes as plugins: it verifies the program, starts
// it in a process of its own, proves that it answers, and ends it.
//
// The runtimes that come with teal are plugins as well. Builtin starts teal's
// own program again with hidden arguments, which main recognises with
// BuiltinRequested: one file to install, no skew between versions, and the
// plugin protocol is what every deployment runs through.
//
// A plugin that does not behave is contained. Every call is bounded in time;
// when the time is over the plugin is told to end the call, then cut off from
// the host, and killed by Close at the latest. A plugin that died is started
// again for the next call, so that what it has made can be removed. Of what it
// writes only the last lines are kept, and they are in the error. An answer
// about containers that were not asked for is an error. When teal itself is
// killed, a shell that waits for nothing else ends what is left.
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
