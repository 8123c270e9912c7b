package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/teal-deploy/teal/plugins"
)

// undoTimeout bounds the removal of a container that could not be started.
const undoTimeout = 10 * time.Second

// Create implements plugins.Runtime.
func (e *Engine) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	op := "create " + spec.Name
	opts, err := createOptions(spec)
	if err != nil {
		return plugins.Container{}, &plugins.Error{Op: op, Host: h.String(), Kind: plugins.Invalid, Err: err}
	}
	if e.Renames {
		opts.Config.Labels = map[string]string{imageLabel: spec.Image}
		maps.Copy(opts.Config.Labels, spec.Labels)
	}
	s, err := e.open(ctx, h)
	if err != nil {
		return plugins.Container{}, err
	}
	defer s.close()
	made, err := s.api.ContainerCreate(ctx, opts)
	if err != nil && nameTaken(err) {
		var there plugins.Container
		if there, err = s.existing(ctx, spec); err != nil || there.ID != "" {
			return there, s.wrap(ctx, op, err)
		}
		made, err = s.api.ContainerCreate(ctx, opts)
	}
	if err != nil {
		return plugins.Container{}, errors.Join(s.createError(ctx, op, spec, err), s.undoCreate(ctx, spec))
	}
	if _, err := s.api.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		return plugins.Container{}, errors.Join(s.createError(ctx, op, spec, err), s.undo(ctx, made.ID))
	}
	found, err := s.api.ContainerInspect(ctx, made.ID, client.ContainerInspectOptions{})
	if err != nil {
		return plugins.Container{}, s.wrap(ctx, op, err)
	}
	if err := ignored(spec, found.Container.HostConfig); err != nil {
		return plugins.Container{}, errors.Join(s.fault(op, plugins.Unsupported, err), s.undo(ctx, made.ID))
	}
	return fromInspect(found.Container), nil
}

// ignored says which limit of spec an engine has left out without a word.
func ignored(spec plugins.Spec, got *container.HostConfig) error {
	switch {
	case got == nil:
		return nil
	case spec.Memory > 0 && got.Memory == 0:
		return errors.New("the engine cannot limit the memory of a container on this host: leave the limit out, or let the host use control groups of version 2")
	case spec.CPUs > 0 && got.NanoCPUs == 0 && got.CPUQuota == 0:
		return errors.New("the engine cannot limit the processors of a container on this host: leave the limit out, or let the host use control groups of version 2")
	}
	return nil
}

// existing looks at the container that has the name already. It returns it
// when it is the one that spec asks for, removes it when it is that one but
// does not run, and returns an error of kind Exists otherwise.
func (s *session) existing(ctx context.Context, spec plugins.Spec) (plugins.Container, error) {
	found, err := s.api.ContainerInspect(ctx, spec.Name, client.ContainerInspectOptions{})
	if err != nil {
		return plugins.Container{}, unlessGone(err)
	}
	c := fromInspect(found.Container)
	same, err := s.sameLabels(ctx, found.Container, spec.Labels)
	switch {
	case err != nil:
		return plugins.Container{}, err
	case !same:
		return plugins.Container{}, s.fault("create "+spec.Name, plugins.Exists,
			fmt.Errorf("the container %.12s has this name and other labels: remove it, or choose another name", c.ID))
	case c.Status == plugins.StatusRunning:
		return c, nil
	}
	return plugins.Container{}, s.remove(ctx, c.ID)
}

// sameLabels compares a container's labels with those that spec would give
// it: its own and those of the image.
func (s *session) sameLabels(ctx context.Context, c container.InspectResponse, labels map[string]string) (bool, error) {
	want, got := make(map[string]string), shown(c.Config.Labels)
	if len(got) != len(labels) {
		img, err := s.api.ImageInspect(ctx, c.Image)
		if err != nil && !errdefs.IsNotFound(err) {
			return false, err
		}
		if err == nil && img.Config != nil {
			maps.Copy(want, img.Config.Labels)
		}
	}
	maps.Copy(want, labels)
	return maps.Equal(want, got), nil
}

// undo removes a container that could not be started, also when the caller
// has given up.
func (s *session) undo(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := s.remove(ctx, id); err != nil {
		return s.wrap(ctx, "remove "+id+", which was not started", err)
	}
	return nil
}

// undoCreate looks for what an interrupted request may have left: a container
// of that name and with these labels that never ran.
func (s *session) undoCreate(ctx context.Context, spec plugins.Spec) error {
	if ctx.Err() == nil {
		return nil // the engine has answered that there is none
	}
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	found, err := s.api.ContainerInspect(look, spec.Name, client.ContainerInspectOptions{})
	if err != nil {
		return s.wrap(look, "inspect "+spec.Name, unlessGone(err))
	}
	same, err := s.sameLabels(look, found.Container, spec.Labels)
	if err != nil || !same || found.Container.State == nil || found.Container.State.Status != container.StateCreated {
		return s.wrap(look, "inspect "+spec.Name, err)
	}
	return s.undo(ctx, found.Container.ID)
}

// createError says who holds a port that is taken.
func (s *session) createError(ctx context.Context, op string, spec plugins.Spec, err error) error {
	if !taken(err) || ctx.Err() != nil {
		return s.wrap(ctx, op, err)
	}
	return s.fault(op, plugins.Conflict, fmt.Errorf("%s is taken by %s: %w", spec.Publish, s.holder(ctx, spec), clean(err)))
}

// holder names what listens at the port of spec, as far as it can be found.
func (s *session) holder(ctx context.Context, spec plugins.Spec) string {
	list, err := s.api.ContainerList(ctx, client.ContainerListOptions{})
	if err == nil {
		for _, c := range list.Items {
			for _, p := range c.Ports {
				if p.PublicPort == spec.Publish.Port() && len(c.Names) > 0 {
					return "the container " + strings.TrimPrefix(c.Names[0], "/")
				}
			}
		}
	}
	var out bytes.Buffer
	err = s.host.Run(ctx, &plugins.Command{
		Args:   []string{"ss", "-H", "-l", "-t", "-n", "-p", "sport = :" + strconv.Itoa(int(spec.Publish.Port()))},
		Become: true,
		Stdout: &out,
	})
	if m := regexp.MustCompile(`\("([^"]+)",pid=(\d+)`).FindStringSubmatch(out.String()); err == nil && m != nil {
		return fmt.Sprintf("%s (process %s)", m[1], m[2])
	}
	return "another program"
}

// createOptions is a pure function of spec.
func createOptions(spec plugins.Spec) (client.ContainerCreateOptions, error) {
	none := client.ContainerCreateOptions{}
	if len(spec.Name) < 2 {
		return none, fmt.Errorf("the name %q is too short: an engine wants two characters", spec.Name)
	}
	mode, err := restartMode(spec.Restart)
	if err != nil {
		return none, err
	}
	config := &container.Config{Image: spec.Image, Cmd: spec.Command, Labels: spec.Labels}
	for _, k := range slices.Sorted(maps.Keys(spec.Env)) {
		config.Env = append(config.Env, k+"="+spec.Env[k])
	}
	if spec.StopGrace > 0 {
		config.StopTimeout = seconds(spec.StopGrace)
	}
	host := &container.HostConfig{
		RestartPolicy: container.RestartPolicy{Name: mode},
		Resources:     container.Resources{Memory: spec.Memory, NanoCPUs: int64(spec.CPUs * 1e9)},
	}
	for _, m := range spec.Mounts {
		kind := mount.TypeVolume
		if strings.HasPrefix(m.Source, "/") {
			kind = mount.TypeBind // unlike Binds, a source that is not there is refused and not made
		}
		host.Mounts = append(host.Mounts, mount.Mount{Type: kind, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	if spec.Port != 0 {
		if !spec.Publish.IsValid() || spec.Publish.Port() == 0 {
			return none, fmt.Errorf("port %d has no address to be published at", spec.Port)
		}
		port, _ := network.PortFrom(spec.Port, network.TCP)
		config.ExposedPorts = network.PortSet{port: {}}
		host.PortBindings = network.PortMap{port: {{
			HostIP: spec.Publish.Addr(), HostPort: strconv.Itoa(int(spec.Publish.Port())),
		}}}
	}
	return client.ContainerCreateOptions{Name: spec.Name, Config: config, HostConfig: host}, nil
}

func restartMode(p plugins.RestartPolicy) (container.RestartPolicyMode, error) {
	switch p {
	case plugins.RestartAlways:
		return container.RestartPolicyAlways, nil
	case plugins.RestartNever, "":
		return container.RestartPolicyDisabled, nil
	}
	return "", fmt.Errorf("unknown restart policy %q", p)
}
