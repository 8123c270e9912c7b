package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// verifyWithin bounds the request through the public listener, with the few
// repetitions that a busy listener may need.
const verifyWithin = 10 * time.Second

// Verify sends a request through the public listener of the proxy on host and
// returns nil when the answer is the wanted one. The connection is made on the
// host itself: to the URL's address when it has one, else to the host's own
// loopback at the URL's port, so that every host proves its own proxy whatever
// the name resolves to. The name is sent as Host, and for https as server name
// against which the certificate is checked.
//
// An answer that is not the wanted one is tried again for ten seconds in all.
func Verify(ctx context.Context, host plugins.Host, v spec.Verify) error {
	u, err := url.Parse(v.HTTP)
	if err != nil {
		return &plugins.Error{Op: "verify", Host: host.String(), Kind: plugins.Invalid, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, verifyWithin)
	defer cancel()
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return host.DialContext(ctx, "tcp", listener(u))
			},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	p := &prober{subject: Subject{Host: host, Redact: func(s string) string { return s }}, client: client}
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	var last error
	for {
		err := p.ask(ctx, u, spec.Check{Status: v.Status, Body: v.Body})
		if err == nil {
			return nil
		}
		if errors.Is(err, plugins.Lost) {
			return err
		}
		if last == nil || ctx.Err() == nil { // an answer says more than the end of the time
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("verify %s: %w", u.Redacted(), last)
		case <-retry.C:
		}
	}
}

// listener is where the host reaches its own public listener.
func listener(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = cmp.Or(map[string]string{"https": "443"}[u.Scheme], "80")
	}
	name := u.Hostname()
	if _, err := netip.ParseAddr(name); err != nil {
		name = "127.0.0.1"
	}
	return net.JoinHostPort(name, port)
}
