package record

import (
	"net/netip"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// A Release is one deployed version of an app on one host, with all that is
// needed to make its container again. It holds no secret: App says where
// secrets come from.
type Release struct {
	ID      string        `json:"id"` // sortable by time, unique, the same on all hosts of a run
	Version string        `json:"version"`
	Commit  string        `json:"commit,omitempty"`
	Image   plugins.Image `json:"image"`
	// Secrets is a short mark that changes when the value of a secret does
	// and from which no value can be told: see Mark of the engine.
	Secrets string     `json:"secrets,omitempty"`
	App     spec.App   `json:"app"` // resolved for this host
	Slot    proxy.Slot `json:"slot"`
	At      time.Time  `json:"at"`
	By      string     `json:"by"` // who, from where: user@machine
}

// Ports are the TCP ports on a host that an app has for good. The slots get
// more when there are more replicas, and never fewer.
type Ports struct {
	Stable uint16   `json:"stable"` // on loopback, where the host's own proxy listens for the app
	Blue   []uint16 `json:"blue"`   // one a replica
	Green  []uint16 `json:"green"`
}

// Of returns the slot's ports.
func (p Ports) Of(s proxy.Slot) []uint16 {
	if s == proxy.Green {
		return p.Green
	}
	return p.Blue
}

// State is what a host remembers of an app: the file state.json. A host is a
// server of the app, one of its load balancers, or both.
type State struct {
	Schema    int       `json:"schema"` // 1
	App       string    `json:"app"`
	Ports     Ports     `json:"ports,omitzero"`
	Active    *Release  `json:"active,omitempty"`    // serves, confirmed
	Switching *Release  `json:"switching,omitempty"` // written before a switch to it, cleared after: a run that died there left it
	Kept      []Release `json:"kept,omitempty"`      // earlier ones, newest first, for rollback

	// Members are the app's servers as this host balances them; empty on a
	// host that is no load balancer of the app.
	Members []proxy.Member `json:"members,omitempty"`
}

// An Entry is a line of the host's history: how a run ended there.
type Entry struct {
	Run     string    `json:"run"`
	Command string    `json:"command"` // deploy, rollback
	Release string    `json:"release"`
	Version string    `json:"version"`
	Commit  string    `json:"commit,omitempty"`
	Digest  string    `json:"digest,omitempty"`
	By      string    `json:"by"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end"`
	Result  string    `json:"result"` // the host's state in the words of the engine
	Reason  string    `json:"reason,omitempty"`
}

// A Teardown is the order to remove the containers of a slot once nobody uses
// them: a file on the host that is order, to-do list and cancel token at once.
type Teardown struct {
	App        string      `json:"app"`
	Release    string      `json:"release"` // the one to be removed
	Slot       proxy.Slot  `json:"slot"`    // its slot
	Containers []Condemned `json:"containers"`
	// Successor is the containers that must run before Containers are
	// removed: the last resort is never taken away.
	Successor []Condemned   `json:"successor,omitempty"`
	Delay     time.Duration `json:"delay"` // not before, from the switch
	Max       time.Duration `json:"max"`   // at the latest, from the switch
	// RoutedScript and RoutedArgs ask whether the proxy routes to Slot: see
	// proxy.Proxy. Empty for an app without a proxy.
	RoutedScript string    `json:"routed_script,omitempty"`
	RoutedArgs   []string  `json:"routed_args,omitempty"`
	Armed        time.Time `json:"armed"`
}

// Condemned is a container with the commands that the host needs for it.
type Condemned struct {
	ID       string                `json:"id"`
	Port     uint16                `json:"port,omitempty"` // inside the container, for counting connections
	Commands plugins.LocalCommands `json:"commands"`
}

// Pending is a teardown as it was found on a host.
type Pending struct {
	Teardown
	Switched    time.Time // when the host saw the switch; zero: not yet
	Released    bool      // the run has let go of it, it goes on by itself
	Connections int       // to the containers at the last count; -1: not counted
	Running     bool      // a process on the host works on it
	Stopping    bool      // the decision is made: it can no longer be cancelled
	Waits       string    // what it waits for, or what failed, for people; "": it has just begun
}

// Owner says who holds a lock.
type Owner struct {
	By      string    `json:"by"`  // user@machine
	PID     int       `json:"pid"` // on that machine
	Run     string    `json:"run"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// Facts are what a host said of itself.
type Facts struct {
	Now           time.Time // the host's clock
	User          string
	UID           int
	BootID        string
	Systemd       bool   // systemd is process 1
	EphemeralLow  uint16 // net.ipv4.ip_local_port_range
	EphemeralHigh uint16
	Listening     []uint16            // TCP ports in use on any address, sorted
	AppPorts      map[string][]uint16 // of the other apps that teal runs or balances here, sorted
	Address       netip.Addr          // at which the host was reached over SSH, as it sees itself; zero: it does not say
	Tools         map[string]string   // program → path, of those that teal may want there; its name where the shell has it built in
	Writable      bool                // the state folder exists and the login user may write there, or become makes it so
}

// Observation is everything that one look at a host found.
type Observation struct {
	State   *State // nil: the host knows nothing of the app
	Pending []Pending
	Holder  *Owner // nil: the lock is free
	Epoch   int64  // of the last lock taken
	Facts   Facts
}
