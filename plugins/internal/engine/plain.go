package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"github.com/teal-deploy/teal/plugins"
)

// isLoopback reports whether a registry listens at a loopback address of the
// host, which nobody can listen in on: there TLS is tried and not asked for.
func isLoopback(domain string) bool {
	host, _, err := net.SplitHostPort(domain)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// plainPull is Podman's own call for a pull. The one that it has for clients of
// Docker takes no word about TLS.
const plainPull = "http://" + nowhere + "/v4.0.0/libpod/images/pull?"

// pullPlain downloads an image from a registry that may have no TLS.
func (s *session) pullPlain(ctx context.Context, op string, name reference.Named, auth string, show progress) error {
	query := url.Values{"reference": {name.String()}, "policy": {"always"}, "tlsVerify": {"false"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, plainPull+query.Encode(), http.NoBody)
	if err != nil {
		return s.fault(op, plugins.Invalid, err)
	}
	if auth != "" {
		req.Header.Set(registry.AuthHeader, auth)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return s.pullError(ctx, op, err)
	}
	defer func() { _ = resp.Body.Close() }()
	for in := json.NewDecoder(resp.Body); ; {
		// Either a refusal as a whole, or reports one by one.
		var said struct{ Stream, Error, Message string }
		err := in.Decode(&said)
		if words := strings.Fields(said.Stream); len(words) > 2 && words[0] == "Copying" && words[1] == "blob" {
			show.layers[words[2]] = layer{done: true} // or about to be: no more is said of it
		}
		switch {
		case errors.Is(err, io.EOF) && resp.StatusCode == http.StatusOK:
			show.tell()
			return nil
		case err != nil && resp.StatusCode != http.StatusOK:
			err = fmt.Errorf("the engine answers %s", resp.Status)
		case said.Error != "" || said.Message != "":
			err = errors.New(said.Error + said.Message)
		}
		if err != nil {
			return s.pullError(ctx, op, err)
		}
	}
}
