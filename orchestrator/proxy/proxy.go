// Package proxy is the contract between the engine and the proxies that teal
// switches: nginx today.
//
// A proxy is prepared once: both slots of an app stand in its configuration
// for good. A switch changes a datum that the proxy reads for every request,
// so it needs no reload and loses no request. What is on disk is the truth;
// what the proxy answers is the proof.
//
// An implementation is a folder below this one and one line of wiring in cmd.
// It reaches the host through plugins.Host alone.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/teal-deploy/teal/plugins"
)

// A Slot is one of the two places that a release of an app can occupy on a
// host. Neither is better: the one that serves is blue of this deployment in
// the sense of the method, whatever its name.
type Slot string

// The two slots.
const (
	Blue  Slot = "blue"
	Green Slot = "green"
)

// Other returns the other slot.
func (s Slot) Other() Slot {
	if s == Blue {
		return Green
	}
	return Blue
}

// Valid reports whether s is one of the two slots.
func (s Slot) Valid() bool { return s == Blue || s == Green }

// A Member is a server's two slots as the proxy reaches them.
type Member struct {
	Name  string           // the server's name in the inventory
	Blue  []netip.AddrPort // one address a replica
	Green []netip.AddrPort
}

// A Layout is what Prepare writes into a proxy's configuration for one app.
type Layout struct {
	App      string
	Upstream string         // the name that the user's sites refer to
	Stable   netip.AddrPort // where the proxy itself listens for the app, on loopback
	Dir      string         // absolute path of the app's folder on the proxy's host, which the engine has made
	Members  []Member
	Site     *Site // nil: the user's own configuration refers to Upstream
}

// A Site is a public listener that teal writes as well.
type Site struct {
	Listen []netip.AddrPort // an unspecified address listens on all
	Names  []string         // server names; empty: any
}

// A Route says which slot serves an app.
type Route struct {
	App   string
	Slot  Slot
	Share int // percent of the requests that Slot gets, the other slot the rest; 100 today
}

func (r Route) String() string {
	if r.Share == 100 {
		return string(r.Slot)
	}
	return fmt.Sprintf("%s %d%%", r.Slot, r.Share)
}

// An Observation is what a proxy was found to do for an app.
type Observation struct {
	Prepared bool   // the app's slots stand in the configuration
	Outdated bool   // they do, but not as the layout has it: Prepare would change that
	Disk     Route  // what a restart of the proxy would serve; zero when not Prepared
	Live     Route  // what the proxy itself answers now; zero when it does not answer
	Problem  string // why Live is not known, or what breaks the promise; for people
}

// ErrUnknown is in the chain of a Switch error when it could be neither
// confirmed nor undone: the caller must observe before it does anything else.
var ErrUnknown = errors.New("it is not known which slot serves")

// A Proxy configures and switches a proxy. All methods are idempotent.
type Proxy interface {
	// Check says what keeps Prepare and Switch from working on h, with the
	// remedy, and changes nothing. The warnings are things that would break
	// the promise of no failed request.
	Check(ctx context.Context, h plugins.Host, l Layout) (warnings []string, err error)

	// Prepare writes both slots into the configuration, once: when what is
	// there equals the layout it does nothing and returns false. Otherwise
	// it writes, checks, reloads, verifies that the reload took, and returns
	// true; when any of that fails everything is as it was. The slot that
	// serves does not change.
	Prepare(ctx context.Context, h plugins.Host, l Layout) (changed bool, err error)

	// Observe reads what serves, on disk and live.
	Observe(ctx context.Context, h plugins.Host, l Layout) (Observation, error)

	// Switch directs all new requests to the route's slot. When it returns
	// nil the proxy has confirmed; when it returns an error the former slot
	// serves, unless errors.Is(err, ErrUnknown).
	Switch(ctx context.Context, h plugins.Host, l Layout, r Route) error

	// RoutedScript returns arguments for `sh -c script teal args…` that
	// exits with 0 while the host routes to slot, by what is on disk, and 1
	// when it does not. teal's teardown runs it on the host, unattended.
	RoutedScript(l Layout, slot Slot) (script string, args []string)
}
