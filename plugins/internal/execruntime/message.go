package execruntime

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// version is that of the protocol.
const version = 1

// A request is the first line that the program reads.
type request struct {
	Version  int            `json:"version"`
	Call     string         `json:"call"`
	Host     string         `json:"host,omitempty"`
	Settings map[string]any `json:"settings"`

	Image   string                `json:"image,omitempty"`
	Policy  plugins.PullPolicy    `json:"policy,omitempty"`
	Auth    *auth                 `json:"auth,omitempty"`
	Spec    *spec                 `json:"spec,omitempty"`
	ID      string                `json:"id,omitempty"`
	Command *command              `json:"command,omitempty"`
	Labels  map[string]string     `json:"labels,omitempty"`
	Grace   float64               `json:"grace,omitempty"`
	Restart plugins.RestartPolicy `json:"restart,omitempty"`
	Lines   int                   `json:"lines,omitempty"`
}

type auth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

type command struct {
	Args []string          `json:"args"`
	Env  map[string]string `json:"env"`
}

type spec struct {
	Name      string                `json:"name"`
	Image     string                `json:"image"`
	Command   []string              `json:"command"`
	Env       map[string]string     `json:"env"`
	Labels    map[string]string     `json:"labels"`
	Mounts    []mount               `json:"mounts"`
	Port      uint16                `json:"port"`
	Publish   string                `json:"publish"` // "": none
	Memory    int64                 `json:"memory"`
	CPUs      float64               `json:"cpus"`
	StopGrace float64               `json:"stop_grace"`
	Restart   plugins.RestartPolicy `json:"restart"`
}

type mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
}

func specOf(s plugins.Spec) *spec {
	w := &spec{
		Name: s.Name, Image: s.Image, Command: s.Command, Env: s.Env, Labels: s.Labels, Port: s.Port,
		Memory: s.Memory, CPUs: s.CPUs, StopGrace: s.StopGrace.Seconds(), Restart: s.Restart,
	}
	if s.Publish.IsValid() {
		w.Publish = s.Publish.String()
	}
	for _, m := range s.Mounts {
		w.Mounts = append(w.Mounts, mount(m))
	}
	return w
}

// A container is plugins.Container for JSON.
type container struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Image    string            `json:"image"`
	Labels   map[string]string `json:"labels"`
	Status   plugins.Status    `json:"status"`
	Health   plugins.Health    `json:"health"`
	PID      int               `json:"pid"`
	ExitCode int               `json:"exit_code"`
	Created  time.Time         `json:"created"`
}

// A line is one that the program writes: it asks for something, or it ends.
type line struct {
	Run    []string          `json:"run"`
	Stream []string          `json:"stream"`
	Env    map[string]string `json:"env"`
	Stdin  string            `json:"stdin"`
	Become bool              `json:"become"`

	Result json.RawMessage `json:"result"`
	Error  *failure        `json:"error"`
}

type failure struct {
	Kind    plugins.Kind `json:"kind"`
	Message string       `json:"message"`
	Setting []string     `json:"setting"`
}

func (f *failure) err(op, host string) error {
	if len(f.Setting) > 0 {
		return &plugins.SettingError{Path: f.Setting, Err: errors.New(f.Message)}
	}
	return &plugins.Error{Op: op, Host: host, Kind: f.Kind, Err: errors.New(f.Message)}
}

// An answer is what the program reads of a command that it asked for.
type answer struct {
	Code   int    `json:"code"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}
