// Package orchestrator is the engine: it observes the hosts of an app,
// decides purely what each of them needs, prints the decision or carries it
// out, and says what happened as events. It prints nothing itself.
//
// # How a deployment runs
//
// The seven steps stand in stages.go, to be read aloud. A stage is a barrier:
// every host passes it before any host begins the next. Up to the switch,
// blue serves untouched, and a failure removes what the run made. The switch
// is the point of no return: it is not interrupted, and from there on green is
// not removed because something failed; to go back is to switch back to blue,
// which the run keeps alive until it is decided.
//
// # Fronts
//
// The proxies that decide together where the requests for some hosts go are a
// front: a host's own proxy is one, all load balancers of an app are another.
// A switch is a change of members' shares on a front, and load balancers are
// one decision: each confirms, or those that did go back. To leave a release
// that failed is no such decision: whoever can leaves it. A server that is
// also a load balancer of its app has two records, two locks and two
// connections: the roles do not know of each other.
//
// # What makes it safe to die at any moment
//
// On each host a switch is five writes in this order: the intent (which
// release is about to serve), the restart policy of the one that comes, the
// order to remove the one that leaves, the proxies' datum, and the record of
// what serves now. Whoever looks next finds one of six states and knows from
// it alone what happened; NewPlan turns each into repairs. The order to remove
// blue is armed before the switch and not after it, so that a teal that dies
// in between leaves nothing for ever; it begins to count only when the host
// sees that the proxy routes elsewhere, and waits as long as the run that
// armed it holds the lock and has not let go. A server behind load balancers
// cannot see that: it goes by its record, which says so only when all of them
// have confirmed.
//
// A canary is the same datum with a share in between. A teal that dies in one
// leaves green its share, tested as it is; the next command takes it back.
//
// A lost connection is no outcome. The engine connects again, takes the lock
// again, reads what serves, and only then says failed, switched or unknown.
//
// # Where words live
//
// The design has Slot and Release in this package. Building showed that the
// record, the proxies and the engine all need them, and that the engine
// imports the other two; so Slot stands in orchestrator/proxy and Release in
// orchestrator/record, which import nothing of the engine.
//
// The design has a proxy's Prepare in the beginning; here it is the last thing
// before the switch, so that a first deployment that fails leaves the proxy's
// configuration as it was found.
package orchestrator
