// Package health tests a release before it serves, and watches it afterwards.
//
// The rule: a container is healthy when it runs and every check of the app
// file passed, several times in a row and for a time, all within one deadline.
// [Wait] answers that once, before the switch; [Watch] goes on until blue is
// gone. A container that has exited is never waited for.
//
// Requests are made here, over connections that begin on the host: the host
// needs no HTTP client, and a proxy setting of either side plays no part. The
// package talks to one container of one host; what follows from a failure is
// the engine's to decide. It needs the standard library only.
package health
