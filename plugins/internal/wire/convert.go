package wire

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/teal-deploy/teal/plugins"
)

func specToWire(s plugins.Spec) *Spec {
	w := &Spec{
		Name:      s.Name,
		Image:     s.Image,
		Command:   s.Command,
		Env:       s.Env,
		Labels:    s.Labels,
		Port:      uint32(s.Port),
		Memory:    s.Memory,
		Cpus:      s.CPUs,
		StopGrace: durationpb.New(s.StopGrace),
		Restart:   string(s.Restart),
	}
	if s.Publish.IsValid() {
		w.Publish = s.Publish.String()
	}
	for _, m := range s.Mounts {
		w.Mounts = append(w.Mounts, &Mount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	return w
}

func specFromWire(w *Spec) (plugins.Spec, error) {
	s := plugins.Spec{
		Name:      w.GetName(),
		Image:     w.GetImage(),
		Command:   w.GetCommand(),
		Env:       w.GetEnv(),
		Labels:    w.GetLabels(),
		Port:      uint16(w.GetPort()),
		Memory:    w.GetMemory(),
		CPUs:      w.GetCpus(),
		StopGrace: w.GetStopGrace().AsDuration(),
		Restart:   plugins.RestartPolicy(w.GetRestart()),
	}
	if p := w.GetPublish(); p != "" {
		addr, err := netip.ParseAddrPort(p)
		if err != nil {
			return s, &plugins.Error{Op: "create " + s.Name, Kind: plugins.Invalid, Err: err}
		}
		s.Publish = addr
	}
	for _, m := range w.GetMounts() {
		s.Mounts = append(s.Mounts, plugins.Mount{Source: m.GetSource(), Target: m.GetTarget(), ReadOnly: m.GetReadOnly()})
	}
	return s, nil
}

func containerToWire(c plugins.Container) *Container {
	w := &Container{
		Id:       c.ID,
		Name:     c.Name,
		Image:    c.Image,
		Labels:   c.Labels,
		Status:   string(c.Status),
		Health:   string(c.Health),
		Pid:      int64(c.PID),
		ExitCode: clampInt32(c.ExitCode),
	}
	if !c.Created.IsZero() {
		w.Created = timestamppb.New(c.Created)
	}
	return w
}

func containerFromWire(w *Container) plugins.Container {
	c := plugins.Container{
		ID:       w.GetId(),
		Name:     w.GetName(),
		Image:    w.GetImage(),
		Labels:   w.GetLabels(),
		Status:   plugins.Status(w.GetStatus()),
		Health:   plugins.Health(w.GetHealth()),
		PID:      int(w.GetPid()),
		ExitCode: int(w.GetExitCode()),
	}
	if w.GetCreated() != nil {
		c.Created = w.GetCreated().AsTime()
	}
	return c
}

func containersFromWire(ws []*Container) []plugins.Container {
	if len(ws) == 0 {
		return nil
	}
	cs := make([]plugins.Container, len(ws))
	for i, w := range ws {
		cs[i] = containerFromWire(w)
	}
	return cs
}

func pullFromWire(w *PullRequest) plugins.PullRequest {
	req := plugins.PullRequest{Image: w.GetImage(), Policy: plugins.PullPolicy(w.GetPolicy())}
	if a := w.GetAuth(); a != nil {
		req.Auth = &plugins.Auth{Username: a.GetUsername(), Password: a.GetPassword()}
	}
	return req
}

func pullToWire(call *Call, req plugins.PullRequest) *PullRequest {
	w := &PullRequest{Call: call, Image: req.Image, Policy: string(req.Policy), Progress: req.Progress != nil}
	if req.Auth != nil {
		w.Auth = &Auth{Username: req.Auth.Username, Password: req.Auth.Password}
	}
	return w
}

func graceToWire(call *Call, id string, grace time.Duration) *StopRequest {
	return &StopRequest{Call: call, Id: id, Grace: durationpb.New(grace)}
}
