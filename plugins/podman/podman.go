// Package podman is the runtime that drives Podman, 4.0 or later, through the
// API by which it answers clients of Docker; see plugins/internal/engine.
//
// Whose Podman it is follows from the login user alone, never from what
// happens to run: root's for root, and for any other user that user's own,
// rootless. Containers of one are unknown to the other, so nothing else may
// decide it; become has no part in it. Who wants root's containers logs in as
// root, or writes a plugin around New with the path of root's socket: then it
// is reached as Docker's is, with become.
//
// Podman has no daemon. Where its socket is there it is used; else a service
// is started for each operation and ends with it, also when the connection is
// cut. Containers outlive both.
//
// What differs from Docker and shows:
//
//   - Names of images say their registry. What a short name means is a
//     setting of each host.
//   - A registry at a loopback address of the host need not have TLS, as
//     Docker has it, whatever the host's registries.conf says.
//   - A container keeps the restart policy that it was made with: Podman 4
//     cannot change it. So the runtime has no plugins.RestartPolicySetter.
//   - After a reboot containers come back by podman-restart.service, which
//     wants systemd. Probe warns where that is missing.
//   - A rootless container dies with the last session of its user, unless the
//     user lingers. Probe refuses such a host.
//   - A limit that Podman would ignore is refused.
package podman

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/engine"
)

// A Runtime drives Podman. Make it with New.
type Runtime struct {
	driven
	engine *engine.Engine
	own    bool // the Podman is the login user's own
}

// driven is what an engine does for Podman as it is.
type driven interface {
	plugins.Runtime
	plugins.Restarter
	plugins.LogStreamer
}

var (
	_ plugins.Runtime      = (*Runtime)(nil)
	_ plugins.Restarter    = (*Runtime)(nil)
	_ plugins.LogStreamer  = (*Runtime)(nil)
	_ plugins.LocalRemover = (*Runtime)(nil)
)

// New returns a runtime for the login user's own Podman. With sockets, paths
// on the host, it looks for a service at these alone, and takes it for whose
// it is.
func New(sockets ...string) *Runtime {
	e := &engine.Engine{
		Name:       "podman",
		Component:  "Podman Engine",
		Program:    "podman",
		Sockets:    sockets,
		Start:      "systemctl start podman.socket",
		Qualified:  true,
		Renames:    true,
		PullsPlain: true,
		StopsFirst: true,
	}
	if len(sockets) == 0 {
		e.Locate = locate
	}
	return &Runtime{driven: e, engine: e, own: len(sockets) == 0}
}

// stopGrace is what Podman gives a container that says nothing about it.
// Asked by way of the API it would be no time at all.
const stopGrace = 10 * time.Second

// Create implements plugins.Runtime.
func (r *Runtime) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	if spec.StopGrace == 0 {
		spec.StopGrace = stopGrace
	}
	if err := r.sources(ctx, h, spec); err != nil {
		return plugins.Container{}, err
	}
	return r.driven.Create(ctx, h, spec)
}

// sources checks that the folders that spec mounts are there: Podman would
// make what is missing.
func (r *Runtime) sources(ctx context.Context, h plugins.Host, spec plugins.Spec) error {
	for _, m := range spec.Mounts {
		if !path.IsAbs(m.Source) {
			continue // a volume
		}
		err := h.Run(ctx, &plugins.Command{Args: []string{"test", "-e", m.Source}, Become: !r.own})
		if _, ok := errors.AsType[*plugins.ExitError](err); ok {
			err = &plugins.Error{
				Op: "create " + spec.Name, Host: h.String(), Kind: plugins.Invalid,
				Err: fmt.Errorf("%s, which is to be mounted at %s, is not there, or the login user may not see it", m.Source, m.Target),
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Probe implements plugins.Runtime. It looks first for what a host may lack.
func (r *Runtime) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	if !r.own {
		return r.driven.Probe(ctx, h)
	}
	f, err := survey(ctx, h)
	if err != nil {
		return plugins.Info{}, err
	}
	if err := f.refusal(h); err != nil {
		return plugins.Info{}, err
	}
	info, err := r.driven.Probe(ctx, h)
	info.Warnings = f.warnings()
	return info, err
}
