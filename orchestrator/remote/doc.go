// Package remote is the only package that speaks SSH.
//
// A [Dialer] opens one connection to a host and does everything over it:
// commands ([Conn.Run]), connections from the host ([Conn.DialContext]) and
// to it ([Conn.Listen]), and files ([Conn.Upload]). A [Conn] is a plugins.Host.
//
// # Rules
//
// What the operator's OpenSSH would do for a host is done here as well: the
// settings come from ssh_config, with jump hosts, proxy commands, agents and
// certificates; what the inventory says goes first. Host keys are checked
// strictly. Nothing is weakened silently: an unknown host key, a locked key, a
// missing sudo are errors that carry their remedy.
//
// A command never outlives its connection. Every one runs under a leash: a
// watcher on the host that ends the command's process group, first with TERM
// and a second later with KILL, when the channel closes or the connection dies
// while the command still runs. A command that has detached itself (setsid) is
// free. Signals of the SSH protocol are not used: sshd ignores them for root.
//
// A command line names a program and its arguments, nothing else. Values of
// the environment, passwords and standard input travel inside the channel. The
// script that starts a command is encoded such that every login shell passes
// it on unharmed.
//
// When the connection goes away while something runs, the outcome is unknown
// and the error is a plugins.Error of kind Lost. It is never called a failure.
//
// # Boundary
//
// The package knows hosts and commands, not deployments: no retry of a
// command, no reconnecting. Whoever sees Lost dials again and looks.
//
// # Libraries
//
// x/crypto/ssh is the only maintained client in Go; github.com/skeema/knownhosts
// adds what its known_hosts lacks (which algorithms to ask a host for).
// ssh_config is read by asking "ssh -G", because no library knows all of Match;
// github.com/kevinburke/ssh_config serves where there is no ssh binary.
// github.com/pkg/sftp carries files, github.com/cenkalti/backoff/v5 paces new
// attempts of a handshake.
package remote
