package podman

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// LocalCommands implements plugins.LocalRemover with Podman's own program. It
// proves that the program knows the container: one that does not would take
// it for removed.
func (r *Runtime) LocalCommands(ctx context.Context, h plugins.Host, id string, grace time.Duration) (plugins.LocalCommands, error) {
	candidates, err := r.programs(ctx, h)
	if err != nil {
		return plugins.LocalCommands{}, err
	}
	var refused error
	for _, words := range candidates {
		_, err := plugins.Output(ctx, h, slices.Concat(words, []string{"container", "exists", id})...)
		if err == nil {
			return commands(words, id, grace), nil
		}
		if ctx.Err() != nil || errors.Is(err, plugins.Lost) {
			return plugins.LocalCommands{}, err
		}
		refused = errors.Join(refused, err)
	}
	return plugins.LocalCommands{}, &plugins.Error{
		Op: "local commands for " + id, Host: h.String(), Kind: plugins.Unsupported,
		Err: fmt.Errorf("the program podman, run by the login user, does not know the container: %w", refused),
	}
}

// programs are the words with which Podman's program may be started so that
// it speaks of the containers that the runtime speaks of.
func (r *Runtime) programs(ctx context.Context, h plugins.Host) ([][]string, error) {
	if r.own {
		out, err := plugins.Output(ctx, h, "sh", "-c", places)
		if err != nil {
			return nil, err
		}
		f := parse(out)
		if f["program"] == "" {
			return nil, notThere(h)
		}
		return [][]string{program(f)}, nil
	}
	route, err := r.engine.Route(ctx, h)
	if err != nil {
		return nil, err
	}
	direct := []string{"podman", "-H", "unix://" + route.Socket}
	return [][]string{direct, append([]string{"sudo", "-n"}, direct...)}, nil
}

func commands(words []string, id string, grace time.Duration) plugins.LocalCommands {
	run := func(args ...string) []string { return slices.Concat(words, args) }
	seconds := strconv.Itoa(int(math.Ceil(max(grace, 0).Seconds())))
	return plugins.LocalCommands{
		PID:    run("inspect", "--type", "container", "-f", "{{.State.Pid}}", id),
		Stop:   run("stop", "--ignore", "-t", seconds, id),
		Remove: run("rm", "--ignore", "-v", id),
	}
}
