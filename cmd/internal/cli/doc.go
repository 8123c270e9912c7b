// Package cli is teal's command line: one file a command, flags to values and
// nothing decided. It wires the parts of the engine together, renders what the
// engine says, and turns outcomes into exit codes.
//
// github.com/spf13/cobra is the command library: the smallest of the three
// that were tried, it completes for four shells and is what operators of other
// Go tools know.
//
// Exit codes: 0 done, or nothing to do · 1 internal · 2 usage or configuration
// · 3 plan shows changes · 4 some hosts failed and are back on blue · 5 some
// hosts unreachable, the rest done · 6 the fleet is mixed and needs a decision
// · 7 lock held · 8 aborted by the operator, state safe · 9 switched,
// verification failed, returned to blue.
package cli
