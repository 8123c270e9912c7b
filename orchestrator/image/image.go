// Package image knows images from the operator's machine: it asks a registry
// which digest a name stands for, so that one answer holds for every host of a
// run, and it serves an image of that machine to hosts, with no registry
// anywhere.
//
// # Uploads
//
// An [Upload] is served as a registry would, through the SSH connection of the
// host that pulls: the host listens at a loopback port of its own, and what its
// engine asks there is answered here. So an image reaches any runtime that can
// pull, Docker, Podman or a plugin, only layers that the host lacks travel, and
// the host proves by the digest what it got. Loading a whole image into an
// engine, as its own archive, would need an ability of every runtime and send
// all layers each time.
//
// Other users of the host can connect to that port as well. They get nothing
// without a login that is made for one run and that the engine alone is told.
// Nothing can be written.
//
// An image comes from the operator's own engine or from an archive, see
// [Local]. A release knows it by the digest of its configuration, which names
// the content of all layers: it is known without packing anything, and is the
// same whatever made the layers smaller. The digest by which an engine pulls
// depends on how they were packed and may change with a version of teal; then
// engines notice by the configuration that they have the image already. An
// archive with images for several platforms is known by the digest of its
// index, of which each host takes what fits.
//
// Layers are packed once a run and only when a host asks for them. What they
// were packed into is remembered between runs, so that the manifest is known
// without packing what every host has. They are kept in files without a name,
// of which nothing is left however the run ends.
//
// # Library
//
// github.com/google/go-containerregistry is chosen over a client of our own:
// it is maintained by those who run a registry, knows token logins, the
// operator's Docker credentials and the plain-http rules for private
// addresses, and costs one megabyte. It is used here and nowhere else. Of an
// upload it gives the types alone: its registry is one for tests, which cannot
// go on with a download that broke off, and its archives pack a layer anew for
// each who asks.
package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/teal-deploy/teal/plugins"
)

// Resolve returns the digest ("sha256:…") that the registry holds for ref. A
// reference that carries a digest is not asked for. auth may be nil: then the
// operator's own Docker login is used where there is one.
//
// The error's kind is Invalid for a malformed reference, NotFound and Denied
// for what the registry said, and Unavailable when it cannot be reached from
// here, which does not mean that the hosts cannot reach it.
func Resolve(ctx context.Context, ref string, auth *plugins.Auth) (string, error) {
	fail := func(kind plugins.Kind, err error) (string, error) {
		return "", &plugins.Error{Op: "resolve image " + ref, Kind: kind, Err: err}
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		return fail(plugins.Invalid, err)
	}
	if d, ok := r.(name.Digest); ok {
		return d.DigestStr(), nil
	}
	opts := []remote.Option{remote.WithContext(ctx), remote.WithUserAgent("teal")}
	if auth != nil {
		opts = append(opts, remote.WithAuth(&authn.Basic{Username: auth.Username, Password: auth.Password}))
	} else {
		opts = append(opts, remote.WithAuthFromKeychain(authn.DefaultKeychain))
	}
	// Get, not Head: the answer to a HEAD has no body, so a refusal would
	// come without the registry's own words.
	d, err := remote.Get(r, opts...)
	if err == nil {
		return d.Digest.String(), nil
	}
	var te *transport.Error
	if !errors.As(err, &te) {
		return fail(plugins.Unavailable, err)
	}
	switch te.StatusCode {
	case http.StatusNotFound:
		return fail(plugins.NotFound, fmt.Errorf("the registry %s has no such image%s", r.Context().RegistryStr(), words(te)))
	case http.StatusUnauthorized, http.StatusForbidden:
		return fail(plugins.Denied, fmt.Errorf("the registry %s refuses the login%s", r.Context().RegistryStr(), words(te)))
	}
	return fail(plugins.Unavailable, err)
}

// words are what the registry said, in brackets.
func words(te *transport.Error) string {
	var said []string
	for _, d := range te.Errors {
		said = append(said, d.Message)
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, "; ") + ")"
}

// Repository returns ref without tag and digest, and its tag ("latest" when
// none is written, "" when it carries a digest).
func Repository(ref string) (repository, tag string, err error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return "", "", &plugins.Error{Op: "read image name " + ref, Kind: plugins.Invalid, Err: err}
	}
	base := ref
	if i := strings.IndexByte(base, '@'); i >= 0 {
		base = base[:i]
	}
	if i := strings.LastIndexByte(base, ':'); i > strings.LastIndexByte(base, '/') {
		base = base[:i]
	}
	if t, ok := r.(name.Tag); ok {
		tag = t.TagStr()
	}
	return base, tag, nil
}

// Pin returns ref with its tag replaced by digest.
func Pin(ref, digest string) (string, error) {
	repository, _, err := Repository(ref)
	if err != nil {
		return "", err
	}
	return repository + "@" + digest, nil
}
