package plugintest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

func (s *suite) create(ctx context.Context) error {
	spec := s.spec("create")
	spec.Command, spec.Port, spec.Publish = s.opts.Serve, 8080, s.opts.Publish
	spec.Memory, spec.CPUs, spec.StopGrace = 64<<20, 0.5, 2*time.Second
	var all []error
	if s.lacks(Limits) {
		all = append(all, s.refuses(ctx, Limits, spec))
		spec.Memory, spec.CPUs = 0, 0
	}
	c, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return errors.Join(append(all, err)...)
	}
	if c.ID == "" || c.Name != spec.Name || c.Image != spec.Image || c.Status != plugins.StatusRunning || c.PID <= 0 || c.Created.IsZero() {
		all = append(all, fmt.Errorf("the container is %+v", c))
	}
	for k, v := range spec.Labels {
		if c.Labels[k] != v {
			all = append(all, fmt.Errorf("label %s is %q, not %q", k, c.Labels[k], v))
		}
	}
	if _, err := plugins.Output(ctx, s.h, "test", "-d", fmt.Sprintf("/proc/%d", c.PID)); err != nil {
		all = append(all, fmt.Errorf("the host has no process %d: %w", c.PID, err))
	}
	return errors.Join(append(all, s.reachable(ctx), s.createTaken(ctx, spec))...)
}

// reachable waits until something answers at Publish and not at the next port.
func (s *suite) reachable(ctx context.Context) error {
	for {
		conn, err := s.h.DialContext(ctx, "tcp", s.opts.Publish.String())
		if err == nil {
			err = s.answers(conn)
		}
		if err == nil {
			break
		}
		if wait(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("nothing answers at %v: %w", s.opts.Publish, err)
		}
	}
	other := netip.AddrPortFrom(s.opts.Publish.Addr(), s.opts.Publish.Port()+1)
	if conn, err := s.h.DialContext(ctx, "tcp", other.String()); err == nil {
		return errors.Join(fmt.Errorf("something listens at %v, which was not asked for", other), conn.Close())
	}
	return nil
}

// answers proves that the container is behind the connection: an engine's
// proxy accepts one before the container listens.
func (s *suite) answers(conn net.Conn) error {
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

func (s *suite) createAgain(ctx context.Context) error {
	spec := s.spec("again")
	first, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return err
	}
	second, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return fmt.Errorf("the same once more: %w", err)
	}
	if second.ID != first.ID || second.PID != first.PID {
		return fmt.Errorf("the same once more made another container: %+v, before %+v", second, first)
	}
	other := spec
	other.Labels = maps.Clone(spec.Labels)
	other.Labels["release"] = "2"
	_, err = s.rt.Create(ctx, s.h, other)
	if err := wantKind(err, plugins.Exists, "the same name with other labels"); err != nil {
		return err
	}
	if err := s.rt.Stop(ctx, s.h, first.ID, time.Second); err != nil {
		return err
	}
	third, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return fmt.Errorf("one that does not run any more: %w", err)
	}
	if third.Status != plugins.StatusRunning {
		return fmt.Errorf("one that did not run any more is %s after Create", third.Status)
	}
	return nil
}

// createTaken wants a second container at the port of a first.
func (s *suite) createTaken(ctx context.Context, first plugins.Spec) error {
	second := s.spec("second")
	second.Command, second.Port, second.Publish = first.Command, first.Port, first.Publish
	_, err := s.rt.Create(ctx, s.h, second)
	return errors.Join(
		wantKind(err, plugins.Conflict, "a port that is taken"),
		s.absent(ctx, "second"),
	)
}

func (s *suite) createInvalid(ctx context.Context) error {
	noProgram := s.spec("no-program")
	noProgram.Command = []string{"/no/such/program"}
	noImage := s.spec("no-image")
	noImage.Image = "teal.test/no-such-image:1"
	noFolder := s.spec("no-folder")
	missing := "/no/such/" + rand.Text()
	noFolder.Mounts = []plugins.Mount{{Source: missing, Target: "/data"}}
	_, program := s.rt.Create(ctx, s.h, noProgram)
	_, image := s.rt.Create(ctx, s.h, noImage)
	_, folder := s.rt.Create(ctx, s.h, noFolder)
	_, made := plugins.Output(ctx, s.h, "test", "!", "-e", missing)
	if made != nil {
		made = fmt.Errorf("a folder that is mounted was made on the host: %w", made)
	}
	return errors.Join(
		wantError(program, "a program that is not in the image"), s.absent(ctx, "no-program"),
		wantKind(image, plugins.NotFound, "an image that is not there"), s.absent(ctx, "no-image"),
		wantKind(folder, plugins.Invalid, "a folder that is not there"), s.absent(ctx, "no-folder"), made,
	)
}

// absent checks that there is no container of that name.
func (s *suite) absent(ctx context.Context, name string) error {
	cs, err := s.rt.List(ctx, s.h, map[string]string{s.label: s.value, "name": name})
	if err == nil && len(cs) > 0 {
		err = fmt.Errorf("a container is left behind: %+v", cs)
	}
	return err
}

func (s *suite) surroundings(ctx context.Context) error {
	dir, err := plugins.Output(ctx, s.h, "mktemp", "-d")
	if err != nil {
		return err
	}
	source := strings.TrimSpace(string(dir))
	defer func() { _, _ = plugins.Output(context.WithoutCancel(ctx), s.h, "rm", "-r", source) }()
	if _, err := plugins.Output(ctx, s.h, "sh", "-c", `echo from the host >"$1/file"; chmod 755 "$1"`, "teal", source); err != nil {
		return err
	}
	spec := s.spec("surroundings")
	spec.Env = map[string]string{"PLAIN": "a b", "ODD": "x=$y'\"\n%"}
	spec.Mounts = []plugins.Mount{
		{Source: source, Target: "/mnt/ro", ReadOnly: true},
		{Source: source, Target: "/mnt/rw"},
		{Source: s.label + "-volume", Target: "/mnt/volume"},
	}
	var refused error
	if s.lacks(ReadOnlyMounts) {
		refused = s.refuses(ctx, ReadOnlyMounts, spec)
		spec.Mounts = spec.Mounts[1:]
	}
	c, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return errors.Join(refused, err)
	}
	return errors.Join(
		refused, s.readOnly(ctx, c.ID),
		s.says(ctx, c.ID, "a b|x=$y'\"\n%", "sh", "-c", `printf '%s|%s' "$PLAIN" "$ODD"`),
		s.says(ctx, c.ID, "from the host", "cat", "/mnt/rw/file"),
		s.says(ctx, c.ID, "", "touch", "/mnt/rw/new", "/mnt/volume/new"),
		onlyError(plugins.Output(ctx, s.h, "test", "-e", path.Join(source, "new"))),
	)
}

// readOnly checks the mount that nobody may write to.
func (s *suite) readOnly(ctx context.Context, id string) error {
	if s.lacks(ReadOnlyMounts) {
		return nil
	}
	return errors.Join(
		s.says(ctx, id, "from the host", "cat", "/mnt/ro/file"),
		s.says(ctx, id, "refused", "sh", "-c", "touch /mnt/ro/new 2>/dev/null || echo refused"),
	)
}
