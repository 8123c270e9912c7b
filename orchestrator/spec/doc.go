// Package spec answers what: the app file teal.toml, read, checked and
// resolved for a host.
//
// Load reads the file, lays the chosen environment over it, fills in the
// defaults and checks everything that can be known before a host is: types,
// names, addresses, paths, contradictions and how times relate. What is wrong
// is reported together, each with its place. For replaces ${name} for one
// host and checks the result in the same way, so an App that left this
// package needs no further check. Flags without a file go the same way.
//
// A key that does not do anything yet is refused and never ignored.
//
// The package resolves secrets when it is asked to, and keeps none: an App
// says where a secret comes from, not what it is. It contacts no host.
package spec
