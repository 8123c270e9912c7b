package plugins

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"time"
)

// A Runtime makes and removes containers. Every method may be called again
// with the same arguments and then leaves the same state: that is how a
// deployment continues after a lost connection. A Runtime keeps nothing
// between calls; what it must remember stands in labels on the containers.
type Runtime interface {
	// Probe asks whether the runtime works on h. It changes nothing. An
	// error says what is missing and what cures it: kind Denied for missing
	// rights, Unavailable for an engine that does not run, Unsupported for
	// one that is too old.
	Probe(ctx context.Context, h Host) (Info, error)

	// Pull makes the image available on h as the request's policy says and
	// returns what Create shall be given. NotFound when there is no such
	// image, Denied when the registry refuses the login. A registry at a
	// loopback address of the host may have no TLS: an image of the operator's
	// machine is pulled from one that teal makes for it.
	Pull(ctx context.Context, h Host, req PullRequest) (Image, error)

	// Create makes the container that spec describes and starts it. When a
	// container of that name and with equal labels runs already, it is
	// returned as it is; one of the same name with other labels is an error
	// of kind Exists. Conflict when a port is taken. A container that could
	// not be started is removed before Create returns.
	Create(ctx context.Context, h Host, spec Spec) (Container, error)

	// Exec runs a command inside a running container and waits for it, as
	// Host.Run does: an *ExitError when it exits with a code other than 0.
	// cmd.Become is ignored.
	Exec(ctx context.Context, h Host, id string, cmd *Command) error

	// List returns the containers, running or not, that carry all of the
	// labels, oldest first.
	List(ctx context.Context, h Host, labels map[string]string) ([]Container, error)

	// Stop asks the container to end, and ends it by force after grace.
	// One that is stopped or gone is no error.
	Stop(ctx context.Context, h Host, id string, grace time.Duration) error

	// Remove deletes a container, by force when it runs. One that is gone is
	// no error. Named volumes stay.
	Remove(ctx context.Context, h Host, id string) error
}

// Info is what Probe found.
type Info struct {
	Name     string          // "docker"
	Version  string          // of the engine on the host
	Settings json.RawMessage `json:",omitempty"` // more facts, for people
	Warnings []string        `json:",omitempty"` // what works less well than it should, and what cures it, a sentence each
}

// A PullPolicy says when Pull asks the registry.
type PullPolicy string

// The policies of Pull.
const (
	PullAlways  PullPolicy = "always"  // ask the registry, download what is new
	PullMissing PullPolicy = "missing" // only when the host has no such image
	PullNever   PullPolicy = "never"   // the image must be there
)

// A PullRequest names an image and how to get it.
type PullRequest struct {
	Image  string // as the user wrote it, or pinned: name@sha256:…
	Policy PullPolicy
	Auth   *Auth // nil: anonymous
	// Progress, when not nil, gets short lines such as "3 of 7 layers".
	Progress io.Writer
}

// Auth is the login of a registry.
type Auth struct {
	Username string
	Password string
}

// An Image is what Pull made available.
type Image struct {
	Reference string // immutable; what Spec.Image takes: name@sha256:… or an engine's own id
	Digest    string // sha256:…, equal on hosts that have the same image
}

// A RestartPolicy says what the engine does when a container ends or the host
// starts.
type RestartPolicy string

// The restart policies.
const (
	RestartAlways RestartPolicy = "always"
	RestartNever  RestartPolicy = "no"
)

// A Spec describes a container to be created.
type Spec struct {
	Name    string
	Image   string            // Image.Reference of Pull; "" when the app has no image
	Command []string          // nil: the image's own
	Env     map[string]string // values may be secret: never log them
	Labels  map[string]string
	Mounts  []Mount

	// Port is the TCP port inside the container that is published at
	// Publish on the host. 0: none.
	Port    uint16
	Publish netip.AddrPort

	Memory    int64         // bytes; 0: no limit
	CPUs      float64       // 0: no limit
	StopGrace time.Duration // between asking to end and force; 0: the engine's default
	Restart   RestartPolicy
}

// A Mount makes a folder of the host, or a named volume, visible in a
// container.
type Mount struct {
	Source   string // an absolute path on the host, else the name of a volume
	Target   string // an absolute path in the container
	ReadOnly bool
}

// A Status is what a container does.
type Status string

// What a container does.
const (
	StatusRunning Status = "running"
	StatusExited  Status = "exited"
	StatusOther   Status = "other" // created, restarting, paused, dead
)

// A Health is the engine's own opinion of a container.
type Health string

// The engine's opinions.
const (
	HealthNone      Health = "" // the image has no health check
	HealthStarting  Health = "starting"
	HealthHealthy   Health = "healthy"
	HealthUnhealthy Health = "unhealthy"
)

// A Container is what a runtime knows of one container.
type Container struct {
	ID       string
	Name     string
	Image    string // as in Spec.Image
	Labels   map[string]string
	Status   Status
	Health   Health
	PID      int // of its first process, in the host's numbering; 0 when not running
	ExitCode int // when Status is StatusExited
	Created  time.Time
}

// HasLabels reports whether c carries all of the labels, as List wants it.
func (c Container) HasLabels(labels map[string]string) bool {
	for k, v := range labels {
		if got, ok := c.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// A Restarter restarts a container's main process and keeps its file system:
// ask grace, then force.
type Restarter interface {
	Restart(ctx context.Context, h Host, id string, grace time.Duration) error
}

// A RestartPolicySetter changes the restart policy of a container that
// exists.
type RestartPolicySetter interface {
	SetRestartPolicy(ctx context.Context, h Host, id string, policy RestartPolicy) error
}

// A LogStreamer returns the last lines that a container wrote, standard
// output and error in the order in which they were written.
type LogStreamer interface {
	Logs(ctx context.Context, h Host, id string, lines int, w io.Writer) error
}

// A LocalRemover tells how the host itself ends a container when nobody is
// connected. The commands are run by teal's teardown on the host with the
// rights of the login user. Unsupported when the host lacks the program that
// they need.
type LocalRemover interface {
	LocalCommands(ctx context.Context, h Host, id string, grace time.Duration) (LocalCommands, error)
}

// LocalCommands are argument lists, each run as it stands.
type LocalCommands struct {
	PID    []string // prints the process id of the container's first process, 0 or nothing when it does not run
	Stop   []string // exit code 0 when it is stopped
	Remove []string // exit code 0 when it is gone

	// Port is where the container listens in the network that its first
	// process sees, for counting connections; 0: Spec.Port. Only a runtime
	// without networks of its own, in which a container listens at
	// Spec.Publish itself, has to say it.
	Port uint16 `json:",omitempty"`
}
