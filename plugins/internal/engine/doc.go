// Package engine is the part of a runtime that speaks the Docker Engine API.
// Docker is one such engine; Podman answers the same API.
//
// How an engine is reached, in this order, and remembered for each host:
//
//  1. its socket, forwarded over the connection that teal holds: no process
//     on the host, no session, a fraction of a millisecond;
//  2. the engine's own command that connects standard input and output with
//     the socket, with become when the login user may not open it.
//
// An engine without a daemon names its routes itself, see [Engine].Locate: a
// route may begin with a command that serves the socket for one operation.
// Where engines differ in what they answer, a field of Engine says so; nothing
// here asks for an engine's name.
//
// An SSH server refuses a forwarded socket with the same words whatever the
// reason, so a refusal is followed by one command that finds it out, and the
// error says what cures it.
//
// The API's version is always negotiated: engines of 2020 speak 1.41, those of
// today refuse anything below 1.44. There is no mode that drives the command
// line client for each operation: where that program runs, it can also carry
// the API.
//
// The library is github.com/moby/moby/client, the maintained client of the
// engine's own project. Its types stay inside this package.
package engine
