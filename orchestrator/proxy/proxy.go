// Package proxy is the contract between the engine and the proxies that teal
// switches: nginx and HAProxy.
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
	"regexp"

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

// All returns the share with which the slot gets every request.
func (s Slot) All() Share {
	if s == Green {
		return 100
	}
	return 0
}

// A Member is a server of an app as a proxy reaches it.
type Member struct {
	Name string `json:"name"` // of the server in the inventory

	// Stable is where the proxy itself listens for this member, on its own
	// loopback. It is the same for good.
	Stable netip.AddrPort `json:"stable"`

	// Blue and Green are the addresses of the slots, one a replica and at
	// least one.
	Blue  []netip.AddrPort `json:"blue"`
	Green []netip.AddrPort `json:"green"`
}

// A Share says how the requests that reach a member are divided between its
// slots: the percent that green gets, 0 to 100. Blue gets the rest.
type Share int8

// Off is the share of a member that serves nothing: its requests go to the
// other members, and are answered with 503 where all are off. Every member
// begins with it.
const Off Share = -1

// Valid reports whether s is a percentage or Off.
func (s Share) Valid() bool { return s >= Off && s <= 100 }

// Slot returns the slot that gets every request, and false when the requests
// are divided or the member is off.
func (s Share) Slot() (Slot, bool) {
	switch {
	case s == Blue.All():
		return Blue, true
	case s == Green.All():
		return Green, true
	}
	return "", false
}

// Of returns the percent of the requests that the slot gets.
func (s Share) Of(slot Slot) int {
	switch {
	case s == Off:
		return 0
	case slot == Green:
		return int(s)
	}
	return 100 - int(s)
}

func (s Share) String() string {
	if s == Off {
		return "off"
	}
	if slot, ok := s.Slot(); ok {
		return string(slot)
	}
	return fmt.Sprintf("blue %d%% green %d%%", s.Of(Blue), s.Of(Green))
}

// A Route says of members, by their names, how their requests are divided.
type Route map[string]Share

// Releases say of members, by their names, which release each slot holds, as
// the engine calls it: letters, digits, '-', '_' and '.'.
type Releases map[string]map[Slot]string

// Of returns the release in a member's slot, "" when that is not known.
func (r Releases) Of(member string, slot Slot) string { return r[member][slot] }

// A Protocol is what an app speaks on its port.
type Protocol string

// The protocols.
const (
	HTTP Protocol = "http" // HTTP/1.1, with upgrades
	GRPC Protocol = "grpc" // HTTP/2 without TLS
	TCP  Protocol = "tcp"  // anything: a connection is routed, not a request
)

// A Sticky says what keeps a client on one slot while the requests are
// divided. The zero value: nothing, each request is divided for itself.
type Sticky struct {
	Cookie  string // the name of a cookie; clients without it are not kept
	Address bool   // the first address of X-Forwarded-For; clients without it are not kept
}

// An Up is a request that a replica answers with a status of 200 to 399 while
// it works.
type Up struct {
	Path string
	Host string // the Host header; empty: the address
}

// A Layout is what Prepare writes into a proxy's configuration for one app.
type Layout struct {
	App      string
	Upstream string // the name that the user's own configuration refers to
	Dir      string // absolute path of the app's folder on the proxy's host, which the engine has made
	Protocol Protocol
	Members  []Member // at least one
	Sticky   Sticky
	Up       *Up   // for proxies that test members themselves; nil: a connection is test enough
	Site     *Site // nil: the user's own configuration refers to Upstream
}

// A Site is a public listener that teal writes as well.
type Site struct {
	Listen []netip.AddrPort // an unspecified address listens on all
	Names  []string         // server names; empty: any
}

// An Observation is what a proxy was found to do for an app.
type Observation struct {
	Prepared bool   // the app's slots stand in the configuration
	Outdated bool   // they do, but not as the layout has it: Prepare would change that
	Disk     Route  // what a restart of the proxy would serve, of all members that it knows; nil when not Prepared
	Live     Route  // what the proxy itself answers now; lacks the members for which it does not answer
	Problem  string // why Live is not known, or what breaks the promise; for people

	// Holds is what the proxy itself answers of the releases in the slots; it
	// lacks those that no switch has named.
	Holds Releases

	// Open counts, by member, the requests and tunnels that the proxy itself
	// has open to a slot at this moment, but for those of workers that leave;
	// nil: this kind of proxy cannot tell.
	Open map[string]map[Slot]int
}

// Check returns an error when one of r's names for a member is not what a proxy
// says of its slots.
func (r Releases) Check(member string, said map[Slot]string) error {
	for _, slot := range []Slot{Blue, Green} {
		if want := r.Of(member, slot); want != "" && said[slot] != want {
			return fmt.Errorf("it names %q in %s, not %q", said[slot], slot, want)
		}
	}
	return nil
}

// Set names the releases in a member's slots, unless there are none to name.
func (r *Releases) Set(member string, releases map[Slot]string) {
	if len(releases) == 0 {
		return
	}
	if *r == nil {
		*r = Releases{}
	}
	(*r)[member] = releases
}

// Valid reports whether every member and every release has a name that can be
// written down.
func (r Releases) Valid() bool {
	expr := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	for _, slots := range r {
		for slot, release := range slots {
			if !slot.Valid() || !expr.MatchString(release) {
				return false
			}
		}
	}
	return true
}

// ErrUnknown is in the chain of a Switch error when it could be neither
// confirmed nor undone: the caller must observe before it does anything else.
var ErrUnknown = errors.New("it is not known which slot serves")

// ErrUnproven is in the chain of a Switch error when everything was changed and
// the proxy did not answer in time as it should have, so that it was taken back.
var ErrUnproven = errors.New("the proxy did not prove the switch")

// Unproven returns err, which speaks against the proof that a Switch with ctx
// waited for, with ErrUnproven in its chain, unless it says nothing of the
// proxy: the wait was ended, or the connection lost.
func Unproven(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, plugins.Lost) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnproven, err)
}

// A Proxy configures and switches a proxy. All methods are idempotent.
type Proxy interface {
	// Check says what keeps Prepare and Switch from working on h, with the
	// remedy, and changes nothing. The warnings are things that would break
	// the promise of no failed request.
	Check(ctx context.Context, h plugins.Host, l Layout) (warnings []string, err error)

	// Prepare writes the slots of all members into the configuration: when
	// what is there equals the layout it does nothing and returns false.
	// Otherwise it writes, checks, reloads without losing a request, verifies
	// that the reload took, and returns true; when any of that fails
	// everything is as it was. The share of a member that was there does not
	// change, a new one is Off, and one that is not in the layout is
	// forgotten.
	Prepare(ctx context.Context, h plugins.Host, l Layout) (changed bool, err error)

	// Observe reads what serves, on disk and live.
	Observe(ctx context.Context, h plugins.Host, l Layout) (Observation, error)

	// Switch changes the shares of the members in change, all of them at one
	// instant as far as new requests can tell, and leaves the other members
	// as they are. holds names the releases in slots of those members; the
	// other slots keep their names. When it returns nil the proxy itself has
	// answered with the shares and the names; when it returns an error all
	// shares are as before, unless errors.Is(err, ErrUnknown).
	Switch(ctx context.Context, h plugins.Host, l Layout, change Route, holds Releases) error

	// RoutedScript returns arguments for `sh -c script teal args…` that
	// exits with 0 while the host routes any request for the member to slot,
	// by what is on disk, and 1 when it does not. teal's teardown runs it on
	// the host, unattended.
	RoutedScript(l Layout, member string, slot Slot) (script string, args []string)

	// Usage returns the lines that the user's own configuration needs for
	// requests to reach the app, for people. Empty with a Site.
	Usage(l Layout) string
}
