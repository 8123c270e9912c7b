package plugintest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

func (s *suite) create(ctx context.Context) error {
	spec := s.spec("create")
	spec.StopGrace = 2 * time.Second
	var all []error
	c, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return err
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
	return errors.Join(all...)
}

func (s *suite) limits(ctx context.Context) error {
	spec := s.spec("limits")
	spec.Memory, spec.CPUs = 64<<20, 0.5
	_, err := s.rt.Create(ctx, s.h, spec)
	return s.claimed(ctx, Limits, spec, err)
}

func (s *suite) ports(ctx context.Context) error {
	if !s.opts.Publish.IsValid() {
		var err error
		if s.opts.Publish, err = s.free(ctx); err != nil {
			return err
		}
	}
	spec := s.spec("ports")
	spec.Command, spec.Port, spec.Publish = s.opts.Serve, 8080, s.opts.Publish
	if _, err := s.rt.Create(ctx, s.h, spec); err != nil {
		return err
	}
	return errors.Join(s.reachable(ctx), s.createTaken(ctx, spec))
}

// free returns an address of loopback where nobody answers, nor at the next
// port: below the ports that teal gives to apps.
func (s *suite) free(ctx context.Context) (netip.AddrPort, error) {
	const first, pairs, tries = 10000, 5000, 20
	for range tries {
		n, err := rand.Int(rand.Reader, big.NewInt(pairs))
		if err != nil {
			return netip.AddrPort{}, err
		}
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(first+2*n.Int64()))
		if !s.listens(ctx, at) && !s.listens(ctx, netip.AddrPortFrom(at.Addr(), at.Port()+1)) {
			return at, nil
		}
	}
	return netip.AddrPort{}, errors.New("no port of the host is free")
}

func (s *suite) listens(ctx context.Context, at netip.AddrPort) bool {
	conn, err := s.h.DialContext(ctx, "tcp", at.String())
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
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
	if s.listens(ctx, other) {
		return fmt.Errorf("something listens at %v, which was not asked for", other)
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

// folder makes a folder on the host, with a file to read in it.
func (s *suite) folder(ctx context.Context) (path string, remove func(), err error) {
	dir, err := plugins.Output(ctx, s.h, "mktemp", "-d")
	if err != nil {
		return "", nil, err
	}
	path = strings.TrimSpace(string(dir))
	remove = func() { _, _ = plugins.Output(context.WithoutCancel(ctx), s.h, "rm", "-r", path) }
	if _, err := plugins.Output(ctx, s.h, "sh", "-c", `echo from the host >"$1/file"; chmod 755 "$1"`, "teal", path); err != nil {
		remove()
		return "", nil, err
	}
	return path, remove, nil
}

func (s *suite) surroundings(ctx context.Context) error {
	source, remove, err := s.folder(ctx)
	if err != nil {
		return err
	}
	defer remove()
	spec := s.spec("surroundings")
	spec.Env = map[string]string{"PLAIN": "a b", "ODD": "x=$y'\"\n%"}
	spec.Mounts = []plugins.Mount{
		{Source: source, Target: "/mnt/rw"},
		{Source: s.label + "-volume", Target: "/mnt/volume"},
	}
	c, err := s.rt.Create(ctx, s.h, spec)
	if err != nil {
		return err
	}
	return errors.Join(
		s.says(ctx, c.ID, "a b|x=$y'\"\n%", "sh", "-c", `printf '%s|%s' "$PLAIN" "$ODD"`),
		s.says(ctx, c.ID, "from the host", "cat", "/mnt/rw/file"),
		s.says(ctx, c.ID, "", "touch", "/mnt/rw/new", "/mnt/volume/new"),
		onlyError(plugins.Output(ctx, s.h, "test", "-e", path.Join(source, "new"))),
	)
}

// readOnly checks a mount that nobody may write to.
func (s *suite) readOnly(ctx context.Context) error {
	source, remove, err := s.folder(ctx)
	if err != nil {
		return err
	}
	defer remove()
	spec := s.spec("read-only")
	spec.Mounts = []plugins.Mount{{Source: source, Target: "/mnt/ro", ReadOnly: true}}
	c, err := s.rt.Create(ctx, s.h, spec)
	if err := s.claimed(ctx, ReadOnlyMounts, spec, err); err != nil {
		return err
	}
	return errors.Join(
		s.says(ctx, c.ID, "from the host", "cat", "/mnt/ro/file"),
		s.says(ctx, c.ID, "refused", "sh", "-c", "touch /mnt/ro/new 2>/dev/null || echo refused"),
	)
}
