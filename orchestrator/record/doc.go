// Package record keeps what a host remembers of an app: the lock, the active
// release and the ones kept for rollback, the history, the audit trail, and
// the teardown that removes the old release when nobody is connected.
//
// All of it is one folder a host and app, /var/lib/teal/APP:
//
//	lock                 held by flock, or by links lock.N where that is missing
//	owner.json, epoch    who took the lock last, and how often it was taken
//	state.json           State
//	serves               the slot of State.Active, for teardowns
//	history.jsonl        an Entry a line, the last 200
//	audit.log            a line an action, the last 1 to 2 MiB
//	pending/RELEASE.N.N/ a teardown: order, decision, released, switched, …
//
// # Rules
//
// A file is replaced whole (write, sync, rename, sync the folder), and only by
// what arrived whole. A lock lives as long as the connection that took it, and
// every script that changes something asks first whether the epoch is still
// its own.
//
// A teardown is armed before the switch and needs nobody afterwards. Its order
// is a file that is program, to-do list and cancel token at once; a detached
// process works on it, and Reap starts another one when that was lost. It
// measures time since boot, which no one can set, and counts connections in
// the network namespace of the container. Whether it was cancelled or carried
// out is one symbolic link that only one of the two can make.
//
// # Boundary
//
// Everything goes over plugins.Host, as constant scripts with arguments; a
// host needs a POSIX shell with coreutils or busybox, and /proc. flock, setsid
// and systemd-run are used where they are. The package knows neither a runtime
// nor a proxy: a Teardown brings their commands along. It uses no library: the
// work is done on the host, where there is none.
package record
