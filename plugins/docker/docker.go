// Package docker is the runtime that drives Docker Engine, 20.10 or later.
//
// Nothing is installed on the host: the engine's own socket is spoken to over
// the SSH connection that teal holds; see plugins/internal/engine. Containers
// are created with the restart policy, the published address and the labels
// that teal asks for, and without an init process, so that the first process
// of the container is the image's own and gets the signals.
package docker

import (
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/engine"
)

// A Runtime drives Docker. Make it with New.
type Runtime struct{ *engine.Engine }

var (
	_ plugins.Runtime             = (*Runtime)(nil)
	_ plugins.Restarter           = (*Runtime)(nil)
	_ plugins.RestartPolicySetter = (*Runtime)(nil)
	_ plugins.LogStreamer         = (*Runtime)(nil)
	_ plugins.LocalRemover        = (*Runtime)(nil)
)

// New returns a runtime that looks for an engine's socket at the given paths,
// or without any at Docker's usual place; after them at the login user's own
// rootless engine.
func New(sockets ...string) *Runtime {
	if len(sockets) == 0 {
		sockets = []string{"/var/run/docker.sock"}
	}
	return &Runtime{&engine.Engine{
		Name:      "docker",
		Component: "Engine",
		Program:   "docker",
		Sockets:   sockets,
		Rootless:  "docker.sock",
		Start:     "systemctl start docker",
		Group:     "docker",
	}}
}
