// Package plugins is the contract between teal and the runtimes that it
// drives: Docker, Podman, or anybody's own.
//
// A [Runtime] makes containers on a [Host]. It runs in a process of its own on
// the operator's machine, holds no state, and reaches the host only through
// the Host that it is handed with each call: commands and connections go over
// the SSH connection that teal already holds, so a runtime never sees a key
// and cannot name a host that it was not given.
//
// A new ability is a new optional interface, found by assertion, never a new
// method of Runtime: [Restarter], [RestartPolicySetter], [LogStreamer],
// [LocalRemover], [Configurer] and [Versioner] exist today.
//
// An error that the caller may act on is an [*Error] with a [Kind], matched
// with errors.Is on both sides of the process boundary.
//
// The package imports the standard library only. Authors of a runtime import
// it and plugins/sdk; the engine imports it and plugins/loader; plugintest is
// the conformance test that every runtime passes.
package plugins
