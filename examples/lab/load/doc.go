// Package load sends requests of every kind that a switch can hurt, and counts
// exactly what became of each.
//
// The clients repeat nothing. A request that was sent and got no whole, good
// answer has failed, whoever is to blame; a client library that retries would
// hide what is to be measured, so these speak HTTP over connections of their
// own. They are careful in one respect, as any good client is: before a kept
// connection is used again, they look whether the other side has closed it,
// and then open another.
//
// HTTP/2 lets a side say which requests it has not begun when it ends a
// connection. Those, and no others, go out once more on another connection, as
// the standard library and gRPC do it: nothing has happened to them.
//
// A Recorder keeps every request with its time and the release that answered.
// Told when a host was switched, it counts the requests that began after the
// switch was confirmed and were still answered by an older release: the wrong
// side. A request that began before may end on either.
//
// Load is bounded in clients, rate, count and time, and goes to loopback and
// the lab's own network only.
package load
