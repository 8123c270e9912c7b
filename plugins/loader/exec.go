package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/execruntime"
)

// startExec asks the program what it can do. There is no process between
// calls; before each the program is verified again.
func startExec(ctx context.Context, spec Spec, path, dir string) (*Plugin, error) {
	limit := cmp.Or(spec.StartTimeout, defaultStartTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	log := spec.Log.With("plugin", spec.Name)
	rt, caps, err := execruntime.New(ctx, execruntime.Program{
		Name: spec.Name, Path: path, Argv: spec.Cmd, Env: environment(dir), Settings: spec.Settings,
		Verify: func() error {
			_, err := program(spec)
			return err
		},
		Log: func(line string) { log.Info(line) },
	})
	if err == nil {
		return &Plugin{runtime: rt, caps: caps, dir: dir}, nil
	}
	_ = os.RemoveAll(dir)
	if _, ok := errors.AsType[*plugins.SettingError](err); ok {
		return nil, failed(spec, plugins.Invalid, err)
	}
	return nil, failed(spec, plugins.Unavailable, err)
}
