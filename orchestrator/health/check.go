package health

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

const (
	maxBody = 64 << 10               // of an answer that is read
	shown   = 120                    // characters of an answer that a message shows
	openFor = 250 * time.Millisecond // a TCP connection that lives that long was accepted by the app
)

// An answer is a clear answer that is not the wanted one.
type answer struct {
	text  string
	cause error // nil when there is none
}

func (a *answer) Error() string { return a.text }

func (a *answer) Unwrap() error { return a.cause }

func answered(format string, args ...any) error {
	return &answer{text: fmt.Sprintf(format, args...)}
}

// newClient returns a client whose every connection goes from the subject's
// host to the subject, whatever the URL says. A redirect is an answer.
func newClient(s Subject) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return s.Host.DialContext(ctx, "tcp", s.Address.String())
			},
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (p *prober) http(ctx context.Context, check spec.Check) error {
	if err := p.reachable(); err != nil {
		return err
	}
	u, err := url.Parse("http://" + p.subject.Address.String() + check.HTTP)
	if err != nil {
		return &plugins.Error{Kind: plugins.Invalid, Err: err}
	}
	return p.ask(ctx, u, check)
}

// ask makes a request and judges the answer.
func (p *prober) ask(ctx context.Context, u *url.URL, check spec.Check) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return &plugins.Error{Kind: plugins.Invalid, Err: err}
	}
	req.Header.Set("User-Agent", "teal")
	for name, value := range check.Headers {
		req.Header.Set(name, value)
	}
	req.Host = cmp.Or(check.Host, req.Header.Get("Host"), u.Host)
	resp, err := p.client.Do(req)
	if err != nil {
		return requestError(err)
	}
	defer func() { _ = resp.Body.Close() }()
	ok := accepted(resp.StatusCode, check.Status)
	if ok && check.Body == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case !ok:
		return answered("status %d, want %s%s", resp.StatusCode, wanted(check.Status), p.excerpt(body))
	case bytes.Contains(body, []byte(check.Body)):
		return nil
	case err != nil:
		return fmt.Errorf("status %d, but the body did not end: %w", resp.StatusCode, err)
	}
	return answered("status %d, but the body lacks %q%s", resp.StatusCode, check.Body, p.excerpt(body))
}

// requestError drops the method and the URL, which the check's name says.
func requestError(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection was closed without an answer: %w", err)
	}
	return err
}

func accepted(status int, list []int) bool {
	if len(list) == 0 {
		return status/100 == 2
	}
	return slices.Contains(list, status)
}

func wanted(list []int) string {
	if len(list) == 0 {
		return "200 to 299"
	}
	words := make([]string, len(list))
	for i, status := range list {
		words[i] = strconv.Itoa(status)
	}
	return strings.Join(words, " or ")
}

// excerpt returns the begin of body for a message, on one line: redacted
// first, then shortened.
func (p *prober) excerpt(body []byte) string {
	text := strings.Join(strings.Fields(p.subject.Redact(strings.ToValidUTF8(string(body), "?"))), " ")
	if text == "" {
		return ""
	}
	return "; body: " + shorten(text)
}

// shorten quotes text, so that it holds nothing that a terminal obeys.
func shorten(text string) string {
	if r := []rune(text); len(r) > shown {
		text = string(r[:shown]) + "…"
	}
	return strconv.Quote(text)
}

// tcp connects and stays for a moment: a port forwarder of the engine accepts
// before the app listens, and closes when it finds nobody behind.
func (p *prober) tcp(ctx context.Context) error {
	if err := p.reachable(); err != nil {
		return err
	}
	conn, err := p.subject.Host.DialContext(ctx, "tcp", p.subject.Address.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	// A connection through SSH has no deadlines: closing it ends the read.
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	open := time.NewTimer(openFor)
	defer open.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-open.C:
		return nil
	case err := <-ended:
		if err == nil {
			return nil
		}
		return fmt.Errorf("the connection was closed at once, the app does not listen: %w", err)
	}
}

func (p *prober) reachable() error {
	if !p.subject.Address.IsValid() {
		return &plugins.Error{Kind: plugins.Invalid, Err: errors.New("the app has no port")}
	}
	return nil
}

func (p *prober) exec(ctx context.Context, argv []string) error {
	err := p.subject.Exec(ctx, argv)
	var exit *plugins.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	text := fmt.Sprintf("exited with code %d", exit.Code)
	stderr := strings.TrimSpace(p.subject.Redact(strings.ToValidUTF8(string(exit.Stderr), "?")))
	if line := stderr[strings.LastIndexByte(stderr, '\n')+1:]; line != "" {
		text += ": " + shorten(strings.Join(strings.Fields(line), " "))
	}
	return &answer{text: text, cause: err}
}

// engine asks for the engine's own opinion.
func engine(c plugins.Container) error {
	switch c.Health {
	case plugins.HealthHealthy:
		return nil
	case plugins.HealthNone:
		return &plugins.Error{Kind: plugins.Invalid, Err: errors.New("the image has no HEALTHCHECK")}
	case plugins.HealthStarting, plugins.HealthUnhealthy:
	}
	return answered("the container is %s", c.Health)
}

// pathOnly cuts a query off: it may hold a token.
func pathOnly(path string) string {
	before, _, _ := strings.Cut(path, "?")
	return before
}
