package wire

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"sync"

	"google.golang.org/grpc"

	"github.com/teal-deploy/teal/plugins"
)

// A server is the plugin's side: it serves a runtime.
type server struct {
	UnimplementedRuntimeServiceServer

	rt   plugins.Runtime
	dial func(broker uint32) (grpc.ClientConnInterface, error)

	mu    sync.Mutex
	hosts HostsServiceClient
	calls map[string]context.CancelFunc // by handle
}

func newServer(rt plugins.Runtime, dial func(uint32) (grpc.ClientConnInterface, error)) *server {
	return &server{rt: rt, dial: dial, calls: make(map[string]context.CancelFunc)}
}

// Configure implements RuntimeService.
func (s *server) Configure(ctx context.Context, req *ConfigureRequest) (*Capabilities, error) {
	conn, err := s.dial(req.GetBrokerId())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.hosts = NewHostsServiceClient(conn)
	s.mu.Unlock()
	caps := Abilities(s.rt)
	caps.Version = versionOf(s.rt)
	if rt, ok := s.rt.(plugins.Configurer); ok {
		settings, err := unmarshalSettings(req.GetSettings())
		if err == nil {
			err = rt.Configure(ctx, settings)
		}
		caps.Settings, caps.Error = true, encodeError(err)
	}
	return caps, nil
}

// versionOf is what the author calls the program, or what go build does; "" when
// nobody has a name for it.
func versionOf(rt plugins.Runtime) string {
	if v, ok := rt.(plugins.Versioner); ok {
		return v.Version()
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "(devel)" {
		return ""
	}
	return info.Main.Version
}

// Cancel implements RuntimeService.
func (s *server) Cancel(_ context.Context, req *CancelRequest) (*CancelResponse, error) {
	s.mu.Lock()
	cancel, found := s.calls[req.GetHandle()]
	s.mu.Unlock()
	if found {
		cancel()
	}
	return &CancelResponse{Found: found}, nil
}

// begin returns the context and the host of a call. The caller runs done when
// the call has ended.
func (s *server) begin(ctx context.Context, call *Call) (_ context.Context, h plugins.Host, done func()) {
	ctx, cancel := withTimeout(ctx, call)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[call.GetHandle()] = cancel
	return ctx, &host{client: s.hosts, handle: call.GetHandle(), name: call.GetHost()}, func() {
		cancel()
		s.mu.Lock()
		delete(s.calls, call.GetHandle())
		s.mu.Unlock()
	}
}

// Probe implements RuntimeService.
func (s *server) Probe(ctx context.Context, call *Call) (*ProbeResponse, error) {
	ctx, h, done := s.begin(ctx, call)
	defer done()
	info, err := s.rt.Probe(ctx, h)
	return &ProbeResponse{
		Name: info.Name, Version: info.Version, Settings: info.Settings, Warnings: info.Warnings, Error: encodeError(err),
	}, nil
}

// Pull implements RuntimeService.
func (s *server) Pull(req *PullRequest, stream grpc.ServerStreamingServer[PullResponse]) error {
	ctx, h, done := s.begin(stream.Context(), req.GetCall())
	defer done()
	pull := pullFromWire(req)
	if req.GetProgress() {
		var mu sync.Mutex
		pull.Progress = chunkWriter(func(p []byte) error {
			mu.Lock()
			defer mu.Unlock()
			return stream.Send(&PullResponse{Part: &PullResponse_Progress{p}})
		})
	}
	image, err := s.rt.Pull(ctx, h, pull)
	if err != nil {
		return stream.Send(&PullResponse{Part: &PullResponse_Error{encodeError(err)}})
	}
	return stream.Send(&PullResponse{Part: &PullResponse_Image{&Image{Reference: image.Reference, Digest: image.Digest}}})
}

// Create implements RuntimeService.
func (s *server) Create(ctx context.Context, req *CreateRequest) (*CreateResponse, error) {
	ctx, h, done := s.begin(ctx, req.GetCall())
	defer done()
	spec, err := specFromWire(req.GetSpec())
	if err != nil {
		return &CreateResponse{Error: encodeError(err)}, nil
	}
	c, err := s.rt.Create(ctx, h, spec)
	return &CreateResponse{Container: containerToWire(c), Error: encodeError(err)}, nil
}

// Exec implements RuntimeService.
func (s *server) Exec(stream commandServer) error {
	in, err := stream.Recv()
	if err != nil {
		return err
	}
	start := in.GetStart()
	ctx, h, done := s.begin(stream.Context(), start.GetCall())
	defer done()
	return serveCommand(stream, start, func(cmd *plugins.Command) error {
		return s.rt.Exec(ctx, h, start.GetId(), cmd)
	})
}

// List implements RuntimeService.
func (s *server) List(ctx context.Context, req *ListRequest) (*ListResponse, error) {
	ctx, h, done := s.begin(ctx, req.GetCall())
	defer done()
	cs, err := s.rt.List(ctx, h, req.GetLabels())
	resp := &ListResponse{Error: encodeError(err)}
	for _, c := range cs {
		resp.Containers = append(resp.Containers, containerToWire(c))
	}
	return resp, nil
}

// Stop implements RuntimeService.
func (s *server) Stop(ctx context.Context, req *StopRequest) (*Done, error) {
	ctx, h, done := s.begin(ctx, req.GetCall())
	defer done()
	return &Done{Error: encodeError(s.rt.Stop(ctx, h, req.GetId(), req.GetGrace().AsDuration()))}, nil
}

// Remove implements RuntimeService.
func (s *server) Remove(ctx context.Context, req *ContainerRequest) (*Done, error) {
	ctx, h, done := s.begin(ctx, req.GetCall())
	defer done()
	return &Done{Error: encodeError(s.rt.Remove(ctx, h, req.GetId()))}, nil
}

// Restart implements RuntimeService.
func (s *server) Restart(ctx context.Context, req *StopRequest) (*Done, error) {
	rt, ok := s.rt.(plugins.Restarter)
	if !ok {
		return &Done{Error: unsupported(req.GetCall(), "restart")}, nil
	}
	ctx, h, done := s.begin(ctx, req.GetCall())
	defer done()
	return &Done{Error: encodeError(rt.Restart(ctx, h, req.GetId(), req.GetGrace().AsDuration()))}, nil
}

// SetRestartPolicy implements RuntimeService.
func (s *server) SetRestartPolicy(ctx context.Context, req *SetRestartPolicyRequest) (*Done, error) {
	rt, ok := s.rt.(plugins.RestartPolicySetter)
	if !ok {
		return &Done{Error: unsupported(req.GetCall(), "set restart policy")}, nil
	}
	ctx, h, done := s.begin(ctx, req.GetCall())
	defer done()
	return &Done{Error: encodeError(rt.SetRestartPolicy(ctx, h, req.GetId(), plugins.RestartPolicy(req.GetPolicy())))}, nil
}

// Logs implements RuntimeService.
func (s *server) Logs(req *LogsRequest, stream grpc.ServerStreamingServer[LogsResponse]) error {
	rt, ok := s.rt.(plugins.LogStreamer)
	if !ok {
		return stream.Send(&LogsResponse{Part: &LogsResponse_Error{unsupported(req.GetCall(), "read logs")}})
	}
	ctx, h, done := s.begin(stream.Context(), req.GetCall())
	defer done()
	var out io.Writer = chunkWriter(func(p []byte) error {
		return stream.Send(&LogsResponse{Part: &LogsResponse_Output{p}})
	})
	if err := rt.Logs(ctx, h, req.GetId(), int(req.GetLines()), out); err != nil {
		return stream.Send(&LogsResponse{Part: &LogsResponse_Error{encodeError(err)}})
	}
	return nil
}

// LocalCommands implements RuntimeService.
func (s *server) LocalCommands(ctx context.Context, req *StopRequest) (*LocalCommandsResponse, error) {
	rt, ok := s.rt.(plugins.LocalRemover)
	if !ok {
		return &LocalCommandsResponse{Error: unsupported(req.GetCall(), "local commands")}, nil
	}
	ctx, h, done := s.begin(ctx, req.GetCall())
	defer done()
	cmds, err := rt.LocalCommands(ctx, h, req.GetId(), req.GetGrace().AsDuration())
	return &LocalCommandsResponse{Pid: cmds.PID, Stop: cmds.Stop, Remove: cmds.Remove, Port: uint32(cmds.Port), Error: encodeError(err)}, nil
}

func unsupported(call *Call, op string) *Error {
	return encodeError(&plugins.Error{
		Op: op, Host: call.GetHost(), Kind: plugins.Unsupported, Err: errors.New("this runtime cannot do that"),
	})
}
