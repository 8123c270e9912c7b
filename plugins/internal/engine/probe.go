package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/moby/moby/client"

	"github.com/teal-deploy/teal/plugins"
)

// Probe implements plugins.Runtime.
func (e *Engine) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	s, err := e.open(ctx, h)
	if err != nil {
		return plugins.Info{}, err
	}
	defer s.close()
	v, err := s.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return plugins.Info{}, s.wrap(ctx, "probe "+e.Name, err)
	}
	for _, c := range v.Components {
		if other := strings.HasPrefix(c.Name, "Podman"); other != (e.Name == "podman") && c.Name != "" && (other || e.Name == "podman" && c.Name == "Engine") {
			return plugins.Info{}, s.fault("probe "+e.Name, plugins.Unsupported,
				errors.New("the engine behind "+s.route.Socket+" is "+c.Name+" "+c.Version+", not "+e.Name))
		}
	}
	settings, err := json.Marshal(map[string]string{"api": v.APIVersion, "os": v.Os + "/" + v.Arch, "reached": s.route.String()})
	return plugins.Info{Name: e.Name, Version: v.Version, Settings: settings}, err
}
