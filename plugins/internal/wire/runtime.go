package wire

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/teal-deploy/teal/plugins"
)

var (
	_ plugins.Runtime             = (*Client)(nil)
	_ plugins.Restarter           = (*Client)(nil)
	_ plugins.RestartPolicySetter = (*Client)(nil)
	_ plugins.LogStreamer         = (*Client)(nil)
	_ plugins.LocalRemover        = (*Client)(nil)
)

// Probe implements plugins.Runtime.
func (c *Client) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	hop, call := c.begin(ctx, "probe", h)
	defer call.end()
	resp, err := c.rpc.Probe(hop, call.Call)
	return plugins.Info{
		Name: resp.GetName(), Version: resp.GetVersion(), Settings: resp.GetSettings(), Warnings: resp.GetWarnings(),
	}, call.result(err, resp.GetError())
}

// Pull implements plugins.Runtime.
func (c *Client) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	hop, call := c.begin(ctx, "pull "+req.Image, h)
	defer call.end()
	stream, err := c.rpc.Pull(hop, pullToWire(call.Call, req))
	for err == nil {
		var resp *PullResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		switch part := resp.GetPart().(type) {
		case *PullResponse_Progress:
			_ = write(req.Progress, part.Progress) // nobody fails because a line could not be shown
		case *PullResponse_Image:
			return plugins.Image{Reference: part.Image.GetReference(), Digest: part.Image.GetDigest()}, nil
		case *PullResponse_Error:
			return plugins.Image{}, call.result(nil, part.Error)
		}
	}
	return plugins.Image{}, call.result(unexpectedEnd(err), nil)
}

// Create implements plugins.Runtime.
func (c *Client) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	hop, call := c.begin(ctx, "create "+spec.Name, h)
	defer call.end()
	resp, err := c.rpc.Create(hop, &CreateRequest{Call: call.Call, Spec: specToWire(spec)})
	return containerFromWire(resp.GetContainer()), call.result(err, resp.GetError())
}

// Exec implements plugins.Runtime.
func (c *Client) Exec(ctx context.Context, h plugins.Host, id string, cmd *plugins.Command) error {
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	hop, call := c.begin(ctx, "exec in "+id, h)
	defer call.end()
	err := runCommand(hop, abort, func(ctx context.Context) (commandClient, error) { return c.rpc.Exec(ctx) },
		commandStart(call.Call, id, cmd), cmd)
	return call.result(err, nil)
}

// List implements plugins.Runtime.
func (c *Client) List(ctx context.Context, h plugins.Host, labels map[string]string) ([]plugins.Container, error) {
	hop, call := c.begin(ctx, "list containers", h)
	defer call.end()
	resp, err := c.rpc.List(hop, &ListRequest{Call: call.Call, Labels: labels})
	return containersFromWire(resp.GetContainers()), call.result(err, resp.GetError())
}

// Stop implements plugins.Runtime.
func (c *Client) Stop(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return c.withGrace(ctx, "stop", h, id, grace, c.rpc.Stop)
}

// Restart implements plugins.Restarter.
func (c *Client) Restart(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return c.withGrace(ctx, "restart", h, id, grace, c.rpc.Restart)
}

func (c *Client) withGrace(ctx context.Context, op string, h plugins.Host, id string, grace time.Duration,
	do func(context.Context, *StopRequest, ...grpc.CallOption) (*Done, error),
) error {
	hop, call := c.begin(ctx, op+" "+id, h)
	defer call.end()
	resp, err := do(hop, graceToWire(call.Call, id, grace))
	return call.result(err, resp.GetError())
}

// Remove implements plugins.Runtime.
func (c *Client) Remove(ctx context.Context, h plugins.Host, id string) error {
	hop, call := c.begin(ctx, "remove "+id, h)
	defer call.end()
	resp, err := c.rpc.Remove(hop, &ContainerRequest{Call: call.Call, Id: id})
	return call.result(err, resp.GetError())
}

// SetRestartPolicy implements plugins.RestartPolicySetter.
func (c *Client) SetRestartPolicy(ctx context.Context, h plugins.Host, id string, policy plugins.RestartPolicy) error {
	hop, call := c.begin(ctx, "set restart policy of "+id, h)
	defer call.end()
	resp, err := c.rpc.SetRestartPolicy(hop, &SetRestartPolicyRequest{Call: call.Call, Id: id, Policy: string(policy)})
	return call.result(err, resp.GetError())
}

// Logs implements plugins.LogStreamer.
func (c *Client) Logs(ctx context.Context, h plugins.Host, id string, lines int, w io.Writer) error {
	hop, call := c.begin(ctx, "read logs of "+id, h)
	defer call.end()
	stream, err := c.rpc.Logs(hop, &LogsRequest{Call: call.Call, Id: id, Lines: clampInt32(lines)})
	for err == nil {
		var resp *LogsResponse
		resp, err = stream.Recv()
		switch {
		case err == io.EOF: //nolint:errorlint // gRPC returns it bare
			return nil
		case err != nil:
		case resp.GetError() != nil:
			return call.result(nil, resp.GetError())
		default:
			err = write(w, resp.GetOutput())
		}
	}
	return call.result(err, nil)
}

// LocalCommands implements plugins.LocalRemover.
func (c *Client) LocalCommands(ctx context.Context, h plugins.Host, id string, grace time.Duration) (plugins.LocalCommands, error) {
	hop, call := c.begin(ctx, "local commands for "+id, h)
	defer call.end()
	resp, err := c.rpc.LocalCommands(hop, graceToWire(call.Call, id, grace))
	return plugins.LocalCommands{
		PID: resp.GetPid(), Stop: resp.GetStop(), Remove: resp.GetRemove(), Port: uint16(resp.GetPort()),
	}, call.result(err, resp.GetError())
}
