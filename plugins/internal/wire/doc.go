// Package wire carries plugins.Runtime and plugins.Host across the process
// boundary. runtime.proto is the protocol; the rest turns calls into messages
// and back, so that neither the engine nor an author of a runtime sees it.
//
// The rules:
//
//   - A host is lent for one call. Its handle is random, and worth nothing once
//     the call has ended: commands and connections that a plugin left open
//     there are ended.
//   - A cancelled call is told so and gets time to clean up; only a plugin that
//     does not answer is cut off.
//   - An error keeps its kind, its exit code and what it wraps: errors.Is and
//     errors.As work on both sides. A gRPC status speaks of the hop alone.
//   - What may be secret (environment, logins) is in messages, never in a log,
//     and the messages are not logged.
//
// The library is hashicorp/go-plugin with gRPC: handshake, mutual TLS between
// the two processes, and a broker for the way back, in use by Terraform,
// Vault and Nomad.
package wire

//go:generate buf generate
