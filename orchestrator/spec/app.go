package spec

import (
	"net/netip"
	"time"
)

// An App is what teal.toml says, checked, with defaults filled in and, once
// it went through For, with every ${name} replaced. It holds no secret: a
// Secret is where the value comes from.
type App struct {
	Name      string            `json:"app"`
	Hosts     string            `json:"hosts"`   // a pattern for inventory
	Runtime   string            `json:"runtime"` // one of Builtins, or the name of a plugin
	Image     Image             `json:"image"`
	Code      *Code             `json:"code,omitempty"`
	Container Container         `json:"container"`
	Install   Install           `json:"install"`
	Test      Test              `json:"test"`
	Proxy     *Proxy            `json:"proxy,omitempty"` // nil for a worker
	Drain     Drain             `json:"drain"`
	Rollout   Rollout           `json:"rollout"`
	Keep      Keep              `json:"keep"`
	Hooks     Hooks             `json:"hooks"`
	Plugins   map[string]Plugin `json:"plugins,omitempty"`
}

// Image is step 1.
type Image struct {
	Name     string  `json:"name"` // empty: the runtime does without images
	Pull     string  `json:"pull"` // always, missing, never, upload
	Username string  `json:"username,omitempty"`
	Password *Secret `json:"password,omitempty"`

	// Archive is a file on the operator's machine that holds the image to be
	// uploaded; a relative path begins at File.Dir; empty: the operator's
	// engine has the image.
	Archive string `json:"archive,omitempty"`

	PullParallel int `json:"pull_parallel,omitempty"` // hosts that pull at the same time, 1 to 256
}

// Code is step 2.
type Code struct {
	Repository string   `json:"repository"`
	Ref        string   `json:"ref"`
	Path       string   `json:"path"` // absolute, inside the container
	Subdir     string   `json:"subdir,omitempty"`
	Submodules bool     `json:"submodules,omitempty"`
	Via        string   `json:"via"`                // host or controller
	Identity   []string `json:"identity,omitempty"` // key files on the operator's machine; none: the operator's agent
	Signed     bool     `json:"signed,omitempty"`
}

// Container is step 3.
type Container struct {
	Port      uint16            `json:"port,omitempty"`     // 0: a worker
	Protocol  string            `json:"protocol,omitempty"` // http, grpc or tcp; empty for a worker
	Replicas  int               `json:"replicas"`           // on each host, 1 to 64
	Command   []string          `json:"command,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Secrets   map[string]Secret `json:"secrets,omitempty"` // environment as well
	Volumes   []Volume          `json:"volumes,omitempty"`
	Memory    int64             `json:"memory,omitempty"` // bytes
	CPUs      float64           `json:"cpus,omitempty"`
	StopGrace time.Duration     `json:"stop_grace"`
}

// A Volume is "source:target" or "source:target:ro" of teal.toml.
type Volume struct {
	Source   string `json:"source"` // an absolute path on the host, or the name of a volume
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Install is step 4. Each line is run by sh -c inside the container; lines of
// the app file are the user's own program, not input.
type Install struct {
	Run     []string      `json:"run,omitempty"`
	Once    []string      `json:"once,omitempty"`
	Timeout time.Duration `json:"timeout"`
	Restart bool          `json:"restart,omitempty"`
}

// Test is step 5.
type Test struct {
	Within    time.Duration `json:"within"`
	Interval  time.Duration `json:"interval"`
	Timeout   time.Duration `json:"timeout"` // of one check
	Successes int           `json:"successes"`
	Stable    time.Duration `json:"stable"`
	Checks    []Check       `json:"checks,omitempty"`
}

// A Check is one of HTTP, TCP, Exec or Engine.
type Check struct {
	HTTP    string            `json:"http,omitempty"`   // a path
	Status  []int             `json:"status,omitempty"` // empty: 200 to 299
	Body    string            `json:"body,omitempty"`   // must be contained in the answer
	Host    string            `json:"host,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	TCP     uint16            `json:"tcp,omitempty"` // container.port; another port is refused
	Exec    []string          `json:"exec,omitempty"`
	Engine  bool              `json:"engine,omitempty"`
}

// Proxy is step 6.
type Proxy struct {
	Type     string  `json:"type"`              // nginx or haproxy
	Hosts    string  `json:"hosts,omitempty"`   // a pattern for the load balancers; empty: each host has its own proxy
	Address  string  `json:"address,omitempty"` // an IP address where load balancers reach the host's slots; empty: the one at which teal reached it
	Upstream string  `json:"upstream"`          // default: the app's name
	Site     *Site   `json:"site,omitempty"`
	Verify   *Verify `json:"verify,omitempty"`
}

// Site is proxy.site: teal writes the public listener as well.
type Site struct {
	Listen []netip.AddrPort `json:"listen"` // an unspecified address where only a port was written
	Names  []string         `json:"names,omitempty"`
}

// Verify is a request through the public listener after the switch, made from
// the host.
type Verify struct {
	HTTP   string `json:"http"` // a whole URL
	Status []int  `json:"status"`
	Body   string `json:"body,omitempty"`
}

// Drain is step 7.
type Drain struct {
	Delay time.Duration `json:"delay"`
	Max   time.Duration `json:"max"`
}

// Rollout says in which order hosts switch. Only "together" works today.
type Rollout struct {
	Strategy       string `json:"strategy"`
	MaxFailed      Limit  `json:"max_failed"`
	MaxUnreachable Limit  `json:"max_unreachable"`
	OnFailure      string `json:"on_failure"` // rollback or stop

	// Canary are the shares in percent, 1 to 99 and rising, at most 10, that
	// green gets one after the other before it gets all. Each is watched for
	// Watch, and must pass every Check. Without shares the others say nothing,
	// but for Sticky, which the proxies are configured with.
	Canary []int         `json:"canary,omitempty"`
	Watch  time.Duration `json:"watch,omitempty"`
	Check  []string      `json:"check,omitempty"`  // commands on the operator's machine, each a line for sh -c
	Sticky string        `json:"sticky,omitempty"` // "", "address" or "cookie:NAME"
}

// A Limit is a number of hosts or a percentage of all hosts of the run.
type Limit struct {
	Count   int  `json:"count"`
	Percent bool `json:"percent,omitempty"`
}

// Of returns the limit as a number of hosts out of n, rounded down.
func (l Limit) Of(n int) int {
	if l.Percent {
		return n * l.Count / 100
	}
	return l.Count
}

// Keep says how many releases a host remembers for rollback.
type Keep struct {
	Releases int `json:"releases"`
}

// Hooks are commands on the operator's machine, each a line for sh -c.
type Hooks struct {
	BeforeDeploy []string `json:"before_deploy,omitempty"`
	AfterSwitch  []string `json:"after_switch,omitempty"`
	AfterDeploy  []string `json:"after_deploy,omitempty"`
	OnFailure    []string `json:"on_failure,omitempty"`
}

// A Plugin is what an app file says of a third-party runtime.
type Plugin struct {
	Path     string         `json:"path,omitempty"`     // a relative one begins at File.Dir; empty: in the folders of plugins
	SHA256   string         `json:"sha256,omitempty"`   // of the program, in hexadecimal; there when Path is
	Protocol string         `json:"protocol,omitempty"` // grpc or exec; empty: by the name of the program
	Timeout  time.Duration  `json:"timeout,omitempty"`  // of a call; 0: the loader's own
	Settings map[string]any `json:"settings,omitempty"` // the plugin's own
}

// A Secret says where a secret value comes from: exactly one of the fields.
type Secret struct {
	Env     string   `json:"env,omitempty"`
	File    string   `json:"file,omitempty"` // one trailing newline is cut
	Command []string `json:"command,omitempty"`
}
