package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/execruntime"
	"github.com/teal-deploy/teal/plugins/internal/fault"
	"github.com/teal-deploy/teal/plugins/internal/wire"
)

// describe asks the program what it can do, and returns what it said. There is no process between calls;
// before each the program is verified again.
func (p *Plugin) describe(ctx context.Context, path string) (plugins.Runtime, *wire.Capabilities, error) {
	limit := cmp.Or(p.spec.StartTimeout, defaultStartTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	about := execruntime.Program{
		Name: p.spec.Name, Path: path, Argv: p.spec.Cmd, Env: environment(p.dir), Settings: p.spec.Settings,
		Verify: func() error {
			_, err := program(p.spec)
			return err
		},
		Started: p.keeper.started,
	}
	if p.spec.Log != nil {
		log := p.spec.Log.With("plugin", p.spec.Name)
		about.Log = func(line string) { log.Info(line) }
	}
	rt, caps, err := execruntime.New(ctx, about)
	return rt, caps, startError(err)
}

// startError says why a program is no plugin in the words of one that keeps its
// process.
func startError(err error) error {
	what, said := "", ""
	if f, ok := errors.AsType[*fault.Error](err); ok {
		what, said = "it "+f.What, f.Said
	} else if late, ok := errors.AsType[*execruntime.CancelledError](err); ok {
		what, said = late.Error(), late.Said
	} else if e, ok := errors.AsType[*plugins.Error](err); ok && e.Err != nil {
		return e.Err
	} else {
		return err
	}
	if said != "" {
		what += ": " + said
	}
	return errors.New(what)
}
