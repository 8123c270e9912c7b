package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/teal-deploy/teal/examples/internal/counter"
)

// errNotHTTP2 says that the other side has chosen an older protocol.
var errNotHTTP2 = errors.New("the answer is not of HTTP/2")

// secure reports whether the class's listener speaks TLS, and where it is.
func (c *client) secure() (string, bool) {
	if c.host.TLS.IsValid() {
		return c.host.TLS.String(), true
	}
	return c.host.Addr.String(), false
}

// http2 gets the page and posts an order in turn.
func (c *client) http2(ctx context.Context) (string, error) {
	addr, secure := c.secure()
	if c.web == nil {
		c.web = &http.Transport{
			DialContext:     (&net.Dialer{Timeout: answerTimeout}).DialContext,
			TLSClientConfig: &tls.Config{RootCAs: c.roots},
			Protocols:       new(http.Protocols),
		}
		c.web.Protocols.SetHTTP2(secure)
		c.web.Protocols.SetUnencryptedHTTP2(!secure)
	}
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	c.posts = !c.posts
	if !c.posts {
		body, release, err := c.roundTrip(ctx, http.MethodGet, scheme+addr+"/", nil, http.StatusOK)
		if err == nil && !strings.Contains(string(body), `data-release="`+release+`"`) {
			err = errMixed
		}
		return release, err
	}
	order := orderText()
	answer, release, err := c.roundTrip(ctx, http.MethodPost, scheme+addr+"/order", order, http.StatusCreated)
	if err != nil {
		return release, err
	}
	return release, received(answer, release, order)
}

// roundTrip sends a request over HTTP/2 and reads the answer to its end.
func (c *client) roundTrip(ctx context.Context, method, url string, body []byte, status int) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { c.reused = info.Reused },
	})
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	resp, err := c.web.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		return nil, resp.Header.Get(releaseHeader), fmt.Errorf("%w: %s", errNotHTTP2, resp.Proto)
	}
	return whole(resp, status)
}

// call returns the connection for calls, which gRPC opens with the first.
func (c *client) call() (*grpc.ClientConn, error) {
	if c.rpc == nil {
		addr, secure := c.secure()
		transport := insecure.NewCredentials()
		if secure {
			transport = credentials.NewClientTLSFromCert(c.roots, "")
		}
		var err error
		c.rpc, err = grpc.NewClient(
			"passthrough:///"+addr,
			grpc.WithTransportCredentials(transport),
			grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		)
		if err != nil {
			return nil, err
		}
	}
	c.reused = c.rpc.GetState() == connectivity.Ready
	return c.rpc, nil
}

// order is a call.
func (c *client) order(ctx context.Context) (string, error) {
	cc, err := c.call()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	text := orderText()
	answer, err := counter.Order(ctx, cc, text)
	if err != nil {
		return "", err
	}
	got, err := readReceipt([]byte(answer), text)
	if err == nil && got.Release == "" {
		err = errNoRelease
	}
	return got.Release, err
}

// brew is a call whose answers take the transfer time.
func (c *client) brew(ctx context.Context) (release string, err error) {
	cc, err := c.call()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.transfer+answerTimeout)
	defer cancel()
	next, err := counter.Brew(ctx, cc, c.transfer)
	if err != nil {
		return "", err
	}
	for cups := 0; ; cups++ {
		from, err := next()
		switch {
		case errors.Is(err, io.EOF) && cups == counter.Cups:
			return release, nil
		case errors.Is(err, io.EOF):
			return release, fmt.Errorf("%w: %d of %d answers", errTruncated, cups, counter.Cups)
		case err != nil:
			return release, fmt.Errorf("after %d answers: %w", cups, err)
		case from == "":
			return release, errNoRelease
		case cups > 0 && from != release:
			return release, errMixed
		}
		release = from
	}
}
