package plugintest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/teal-deploy/teal/plugins"
)

// Options say what TestRuntime may use.
type Options struct {
	// Image is one that Pull can get by Policy. It must contain sh, cat,
	// echo, env, sleep and touch. "": the runtime has no images, and runs what
	// the host has.
	Image  string
	Policy plugins.PullPolicy

	// Serve is a command of the image that listens on port 8080 of all
	// addresses until it is ended, or on that of PORT in its environment; nil:
	// busybox's httpd.
	Serve []string

	// Publish is an address of the host with a port that is free, and the
	// next one too. The zero one: the test finds one on loopback.
	Publish netip.AddrPort

	// Lacks is what the runtime cannot do. It is checked that it says so with
	// an error of kind Unsupported.
	Lacks []Ability

	// Discover says that it is not known what the runtime lacks: what it
	// refuses as Unsupported is skipped.
	Discover bool

	// Crash kills the process of the runtime in the middle of its work and
	// returns the runtime of a new one; nil: it has none of its own, and what a
	// crash leaves is not checked.
	Crash func(ctx context.Context) (plugins.Runtime, error)

	// Timeout bounds each check, for a runtime that is slow; 0: 30 s.
	Timeout time.Duration

	// Prefix begins the names of all containers; "": "teal-test". Containers
	// whose label of that name is set are removed at the end.
	Prefix string
}

// defaultServe runs busybox's httpd, from the image or from the host.
const defaultServe = `if command -v busybox >/dev/null; then exec busybox httpd -f -p "${PORT:-8080}"; fi; exec httpd -f -p "${PORT:-8080}"`

// An Ability is something that an engine can do and a runtime without one may
// lack.
type Ability string

// The abilities.
const (
	Limits         Ability = "limits of memory and CPU" // Spec.Memory and Spec.CPUs
	ReadOnlyMounts Ability = "read-only mounts"         // Mount.ReadOnly
)

const (
	checkTimeout = 30 * time.Second
	atOnce       = 4 // checks: a runtime is used by several goroutines
)

// TestRuntime checks that rt keeps what plugins.Runtime and its optional
// interfaces promise, with containers on h that it removes again. It returns
// all that it found wrong, joined, or nil. Run it in process and through
// plugins/loader:
//
//	if err := plugintest.TestRuntime(ctx, rt, h, opts); err != nil {
//		t.Fatal(err)
//	}
func TestRuntime(ctx context.Context, rt plugins.Runtime, h plugins.Host, opts Options) error {
	var found []error
	for _, c := range Report(ctx, rt, h, opts) {
		if c.Err != nil {
			found = append(found, fmt.Errorf("%s: %w", c.Name, c.Err))
		}
	}
	return errors.Join(found...)
}

// A Check is what one part of the conformance test came to.
type Check struct {
	Name    string
	Took    time.Duration
	Skipped bool  // the runtime has no such ability, and need not
	Err     error // what is wrong; nil: nothing
}

// Report does what TestRuntime does and tells of every check, in the order in
// which a person should read them. When the first fails, which the others need,
// there are no others. It needs no package testing: a program may call it.
func Report(ctx context.Context, rt plugins.Runtime, h plugins.Host, opts Options) []Check {
	s := suite{rt: rt, h: h, opts: opts, label: cmp.Or(opts.Prefix, "teal-test")}
	if s.opts.Serve == nil {
		s.opts.Serve = []string{"sh", "-c", defaultServe}
	}
	// Pull makes the image known to the others.
	first := s.check(ctx, "probe and pull", func(own *suite, ctx context.Context) (err error) {
		s.image, err = own.pull(ctx)
		return err
	})
	if first.Err != nil {
		return []Check{first}
	}
	checks := []struct {
		name string
		run  func(*suite, context.Context) error
	}{
		{"create", (*suite).create},
		{"create again", (*suite).createAgain},
		{"create with nonsense", (*suite).createInvalid},
		{"ports", (*suite).ports},
		{"environment, command and mounts", (*suite).surroundings},
		{string(ReadOnlyMounts), (*suite).readOnly},
		{string(Limits), (*suite).limits},
		{"exec", (*suite).exec},
		{"exec that is cancelled", (*suite).execCancelled},
		{"list", (*suite).list},
		{"stop", (*suite).stop},
		{"remove", (*suite).remove},
		{"restart", (*suite).restart},
		{"restart policy", (*suite).policy},
		{"logs", (*suite).logs},
		{"local commands", (*suite).local},
	}
	found := make([]Check, len(checks))
	var all sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for i, c := range checks {
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			found[i] = s.check(ctx, c.name, tidily(c.run))
		})
	}
	all.Wait()
	found = append([]Check{first}, found...)
	if opts.Crash != nil { // it ends whatever goes on at the same time
		found = append(found, s.check(ctx, "a crash of the plugin", tidily((*suite).crash)))
	}
	return found
}

// errLacking says that a runtime does not have what a check is about.
var errLacking = errors.New("the runtime has no such ability")

// A suite is one check of one run of TestRuntime.
type suite struct {
	rt    plugins.Runtime
	h     plugins.Host
	opts  Options
	label string
	value string // of the label, on this check's containers
	image plugins.Image
}

// check runs one check of its own.
func (s *suite) check(ctx context.Context, name string, run func(*suite, context.Context) error) Check {
	began := time.Now()
	own := *s
	s = &own
	s.value = strings.ReplaceAll(name, " ", "-")
	limited, cancel := context.WithTimeout(ctx, cmp.Or(s.opts.Timeout, checkTimeout))
	defer cancel()
	err := run(s, limited)
	if errors.Is(err, errLacking) {
		return Check{Name: name, Took: time.Since(began), Skipped: true}
	}
	return Check{Name: name, Took: time.Since(began), Err: err}
}

// tidily returns run between two removals of the check's containers: those that
// a run that was killed has left behind, and its own.
func tidily(run func(*suite, context.Context) error) func(*suite, context.Context) error {
	return func(s *suite, ctx context.Context) error {
		if err := s.clear(ctx); err != nil {
			return err
		}
		err := run(s, ctx)
		if left := s.clear(context.WithoutCancel(ctx)); left != nil {
			return errors.Join(left, onlyOf(err))
		}
		return err
	}
}

// onlyOf is err unless it says that there was nothing to check.
func onlyOf(err error) error {
	if errors.Is(err, errLacking) {
		return nil
	}
	return err
}

// clear removes every container of the check.
func (s *suite) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.opts.Timeout, checkTimeout))
	defer cancel()
	cs, err := s.rt.List(ctx, s.h, map[string]string{s.label: s.value})
	for _, c := range cs {
		err = errors.Join(err, s.rt.Remove(ctx, s.h, c.ID))
	}
	return err
}

// spec describes a container that sleeps and ends when it is asked to.
func (s *suite) spec(name string) plugins.Spec {
	return plugins.Spec{
		Name:    s.label + "-" + name,
		Image:   s.image.Reference,
		Command: []string{"sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"},
		Labels:  map[string]string{s.label: s.value, "name": name},
		Restart: plugins.RestartNever,
	}
}

func (s *suite) pull(ctx context.Context) (plugins.Image, error) {
	info, err := s.rt.Probe(ctx, s.h)
	if err != nil {
		return plugins.Image{}, err
	}
	if info.Name == "" || info.Version == "" {
		return plugins.Image{}, fmt.Errorf("information without a name or a version: %+v", info)
	}
	var img plugins.Image
	if s.opts.Image != "" {
		if img, err = s.pullTwice(ctx); err != nil {
			return img, err
		}
	}
	_, err = s.rt.Pull(ctx, s.h, plugins.PullRequest{Image: "teal.test/no-such-image:1", Policy: plugins.PullNever})
	return img, wantKind(err, plugins.NotFound, "an image that is not there")
}

// pullTwice pulls the image, and by the reference that it got once more.
func (s *suite) pullTwice(ctx context.Context) (plugins.Image, error) {
	img, err := s.rt.Pull(ctx, s.h, plugins.PullRequest{Image: s.opts.Image, Policy: s.opts.Policy, Progress: io.Discard})
	if err != nil {
		return img, err
	}
	if !strings.HasPrefix(img.Digest, "sha256:") || img.Reference == "" {
		return img, fmt.Errorf("the image is %+v", img)
	}
	again, err := s.rt.Pull(ctx, s.h, plugins.PullRequest{Image: img.Reference, Policy: plugins.PullNever})
	if err != nil {
		return img, fmt.Errorf("what Pull returned is not an image to Pull: %w", err)
	}
	if again != img {
		return img, fmt.Errorf("pulled by its own reference the image is %+v, not %+v", again, img)
	}
	return img, nil
}

// claimed judges what Create said to a spec that wants an ability: a runtime
// that need not have it must refuse it as Unsupported, and leave nothing.
func (s *suite) claimed(ctx context.Context, a Ability, spec plugins.Spec, err error) error {
	if !slices.Contains(s.opts.Lacks, a) && (!s.opts.Discover || !errors.Is(err, plugins.Unsupported)) {
		return err
	}
	if err := errors.Join(wantKind(err, plugins.Unsupported, string(a)), s.absent(ctx, spec.Labels["name"])); err != nil {
		return err
	}
	return errLacking
}

func onlyError(_ []byte, err error) error { return err }

func wantKind(err error, kind plugins.Kind, what string) error {
	if errors.Is(err, kind) {
		return nil
	}
	return fmt.Errorf("%s is no error of kind %q: %w", what, string(kind), cmp.Or(err, errors.New("nil")))
}

func wantError(err error, what string) error {
	if err != nil {
		return nil //nolint:nilerr // it shall fail
	}
	return errors.New(what + " is no error")
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
