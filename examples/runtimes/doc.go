// Package runtimes holds runtimes that anybody could have written, from the
// smallest up, and the tests that build them outside of teal's module and use
// them through plugins/loader, as a deployment does.
//
//   - hello is the smallest.
//
//   - process needs no container engine: an app is a process on the host, which
//     process.sh keeps alive there.
//
//   - shell has two shell scripts, without gRPC: one drives any engine whose
//     client takes docker's arguments, the other one is process once more. See
//     plugins/internal/execruntime.
//
//   - python is process in a language that has no SDK, and speaks the protocol
//     itself: its teal_runtime.py says what that takes, and can be taken along.
//
// The three of process are the skeletons that teal plugins new writes: see
// NewSkeleton. They are kept here and nowhere else, so that what an author
// begins with is what the tests run.
package runtimes
