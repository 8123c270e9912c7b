package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/system"
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
	is := func(c system.ComponentVersion) bool { return c.Name == e.Component }
	if len(v.Components) > 0 && !slices.ContainsFunc(v.Components, is) {
		return plugins.Info{}, s.fault("probe "+e.Name, plugins.Unsupported,
			fmt.Errorf("behind %s is no %s but %s %s", s.route.Socket, e.Name, v.Components[0].Name, v.Components[0].Version))
	}
	settings, err := json.Marshal(map[string]string{"api": v.APIVersion, "os": v.Os + "/" + v.Arch, "reached": s.route.String()})
	return plugins.Info{Name: e.Name, Version: v.Version, Settings: settings}, err
}
