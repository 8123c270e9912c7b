// Package spec answers what: the app file teal.toml, read, checked and
// resolved for a host.
package spec
