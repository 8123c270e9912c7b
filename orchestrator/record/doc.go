// Package record keeps what a host remembers of an app: the lock, the active
// release and the ones kept for rollback, the history, the audit trail, and
// the teardown that removes the old release when nobody is connected.
package record
