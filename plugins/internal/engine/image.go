package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/teal-deploy/teal/plugins"
)

// Pull implements plugins.Runtime.
func (e *Engine) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	name, id, err := e.parseImage(req.Image)
	if err != nil {
		return plugins.Image{}, &plugins.Error{Op: "pull " + req.Image, Host: h.String(), Kind: plugins.Invalid, Err: err}
	}
	s, err := e.open(ctx, h)
	if err != nil {
		return plugins.Image{}, err
	}
	defer s.close()
	op := "pull " + req.Image
	if req.Policy != plugins.PullAlways || id != "" {
		img, err := s.image(ctx, req.Image, name)
		if err == nil || !errdefs.IsNotFound(err) {
			return img, s.wrap(ctx, op, err)
		}
		if req.Policy == plugins.PullNever || id != "" {
			return plugins.Image{}, s.fault(op, plugins.NotFound, errors.New("the host does not have this image, and it is not to be pulled"))
		}
	}
	digest, err := s.pull(ctx, name, req)
	if err == nil && digest == "" {
		digest, err = s.pulledDigest(ctx, name, req)
	}
	if err != nil {
		return plugins.Image{}, err
	}
	if digest == "" {
		img, err := s.image(ctx, req.Image, name)
		return img, s.wrap(ctx, op, err)
	}
	// What came, whatever the tag means by now.
	pinned, err := pin(name, digest)
	if err != nil {
		return plugins.Image{}, s.fault(op, plugins.Invalid, err)
	}
	img, err := s.image(ctx, pinned.String(), pinned)
	return img, s.wrap(ctx, op, err)
}

// pin names one image of a repository.
func pin(name reference.Named, digest string) (reference.Named, error) {
	return reference.ParseNormalizedNamed(name.Name() + "@" + digest)
}

// parseImage returns the name of an image, or its id when that is what it is.
func (e *Engine) parseImage(image string) (name reference.Named, id string, err error) {
	ref, err := reference.ParseAnyReference(image)
	if err != nil {
		return nil, "", err
	}
	named, ok := ref.(reference.Named)
	if !ok {
		return nil, ref.String(), nil
	}
	if e.Qualified && !strings.HasPrefix(image, reference.Domain(named)+"/") {
		return nil, "", fmt.Errorf("%s names no registry, and where a host would look for it is its own affair: write %s, or localhost/%s for an image that was built there",
			image, named, image)
	}
	return named, "", nil
}

// nameOf returns the name of a repository as it is written in a reference.
func (e *Engine) nameOf(name reference.Named) string {
	if e.Qualified {
		return name.Name()
	}
	return reference.FamiliarName(name)
}

// image looks for an image on the host. Its reference is never a tag, which
// may mean something else a moment later.
func (s *session) image(ctx context.Context, image string, name reference.Named) (plugins.Image, error) {
	found, err := s.api.ImageInspect(ctx, image)
	if err != nil {
		return plugins.Image{}, err
	}
	if name != nil {
		if d := digestOf(found.RepoDigests, name); d != "" {
			return plugins.Image{Reference: s.engine.nameOf(name) + "@" + d, Digest: d}, nil
		}
	}
	return plugins.Image{Reference: found.ID, Digest: found.ID}, nil
}

// digestOf returns the digest by which name's repository knows an image: the
// one that name itself carries, else the least of those that the host has
// seen there. "" when the image never was in that repository.
func digestOf(repoDigests []string, name reference.Named) string {
	found := digestsOf(repoDigests, name)
	if d, ok := name.(reference.Digested); ok && slices.Contains(found, d.Digest().String()) {
		return d.Digest().String()
	}
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// digestsOf returns all digests by which name's repository knows an image, the
// least first.
func digestsOf(repoDigests []string, name reference.Named) []string {
	var found []string
	for _, rd := range repoDigests {
		ref, err := reference.ParseNormalizedNamed(rd)
		if err != nil || ref.Name() != name.Name() {
			continue
		}
		if d, ok := ref.(reference.Digested); ok {
			found = append(found, d.Digest().String())
		}
	}
	slices.Sort(found)
	return found
}

// pulledDigest returns the digest of an image that has just been pulled from
// an engine that does not tell. Such an engine gives an image, under each of
// its names, the digests of all: also one of a manifest that was made on the
// host and that the registry never saw. So the registry is asked for each.
func (s *session) pulledDigest(ctx context.Context, name reference.Named, req plugins.PullRequest) (string, error) {
	if d, ok := name.(reference.Digested); ok {
		return d.Digest().String(), nil
	}
	found, err := s.api.ImageInspect(ctx, name.String())
	if err != nil {
		return "", s.wrap(ctx, "pull "+req.Image, err)
	}
	digests := digestsOf(found.RepoDigests, name)
	req.Progress = nil
	for _, d := range digests {
		if len(digests) == 1 {
			return d, nil
		}
		pinned, err := pin(name, d)
		if err != nil {
			return "", s.fault("pull "+req.Image, plugins.Invalid, err)
		}
		if _, err := s.pull(ctx, pinned, req); !errors.Is(err, plugins.NotFound) {
			return d, err
		}
	}
	return "", nil
}

// pull downloads an image and returns the digest that the registry gave it.
func (s *session) pull(ctx context.Context, name reference.Named, req plugins.PullRequest) (string, error) {
	op := "pull " + req.Image
	opts := client.ImagePullOptions{}
	if req.Auth != nil {
		auth, err := authconfig.Encode(registry.AuthConfig{
			Username: req.Auth.Username, Password: req.Auth.Password, ServerAddress: reference.Domain(name),
		})
		if err != nil {
			return "", s.fault(op, plugins.Invalid, err)
		}
		opts.RegistryAuth = auth
	}
	show := progress{w: req.Progress, layers: make(map[string]layer)}
	if s.engine.PullsPlain && isLoopback(reference.Domain(name)) {
		return "", s.pullPlain(ctx, op, name, opts.RegistryAuth, show)
	}
	stream, err := s.api.ImagePull(ctx, name.String(), opts)
	if err != nil {
		return "", s.pullError(ctx, op, err)
	}
	defer func() { _ = stream.Close() }()
	var digest string
	for m, err := range stream.JSONMessages(ctx) {
		// A pull that fails after it began says so inside the stream.
		if err == nil && m.Error != nil {
			err = m.Error
		}
		if err != nil {
			return "", s.pullError(ctx, op, err)
		}
		if d, ok := strings.CutPrefix(m.Status, "Digest: "); ok {
			digest = d
		}
		show.see(m)
	}
	return digest, nil
}

// pullError tells apart what an engine reports alike: what the registry said
// is a text.
func (s *session) pullError(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil || broken(err) {
		return s.wrap(ctx, op, err)
	}
	switch {
	case contains(err, "unauthorized", "no basic auth credentials", "authentication required", "access denied",
		"access to the resource is denied", "403 forbidden", "401 unauthorized"):
		return s.fault(op, plugins.Denied, err)
	case contains(err, "manifest unknown", "not found", "name unknown", "does not exist", "no such image"):
		return s.fault(op, plugins.NotFound, err)
	case contains(err, "connection refused", "no such host", "i/o timeout", "tls handshake timeout", "server misbehaving",
		"connection reset", "unexpected eof", "no route to host", "network is unreachable", "client.timeout",
		"toomanyrequests", "500 internal", "502 bad", "503 service", "504 gateway", ": eof"):
		return s.fault(op, plugins.Unavailable, err)
	}
	return s.wrap(ctx, op, err)
}

// progressEvery is the shortest time between two lines that differ in bytes
// alone.
const progressEvery = time.Second

// progress turns the messages of a pull into a line now and then.
type progress struct {
	w      io.Writer
	layers map[string]layer
	done   int
	last   time.Time
}

type layer struct {
	current, total int64
	done           bool
}

func (p *progress) see(m jsonstream.Message) {
	if p.w == nil || m.ID == "" || strings.HasPrefix(m.Status, "Pulling from ") {
		return
	}
	l := p.layers[m.ID]
	switch m.Status {
	case "Downloading":
		if m.Progress != nil {
			l.current, l.total = m.Progress.Current, max(m.Progress.Total, 0)
		}
	case "Download complete":
		l.current = l.total
	case "Pull complete", "Already exists":
		l.done = true
	}
	p.layers[m.ID] = l
	p.tell()
}

// tell writes a line when there is something new to say.
func (p *progress) tell() {
	if p.w == nil {
		return
	}
	var done int
	var current, total int64
	for _, l := range p.layers {
		if l.done {
			done++
		}
		current += l.current
		total += l.total
	}
	now := time.Now()
	if done == p.done && (current == 0 || now.Sub(p.last) < progressEvery) {
		return
	}
	p.done, p.last = done, now
	line := fmt.Sprintf("%d of %d layers", done, len(p.layers))
	if total > 0 && done < len(p.layers) {
		line += fmt.Sprintf(", %d of %d MB", current/1e6, total/1e6)
	}
	_, _ = io.WriteString(p.w, line+"\n")
}
