// Package runtimes holds runtimes that anybody could have written, from the
// smallest up, and the tests that build them outside of teal's module and use
// them through plugins/loader, as a deployment does.
//
//   - hello is the smallest.
//
//   - process needs no container engine: an app is a process on the host. It is
//     a module of its own, as yours would be.
//
//   - shell drives any engine whose client takes docker's arguments. It is a
//     shell script, without gRPC: see plugins/internal/execruntime.
//
//   - python speaks the protocol itself, in a language that has no SDK: its
//     teal_runtime.py says what that takes, and can be taken along.
//
// Each folder is a program of its own: copy one, and begin.
package runtimes
