package nginx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// An answer is what nginx says of an app at /.teal/slot.
type answer struct {
	generation string
	green      int // percent of the requests that green gets
}

// A line is a connection to an app's stable port.
type line struct {
	conn   net.Conn
	reader *bufio.Reader
}

func dial(ctx context.Context, h plugins.Host, l proxy.Layout) (*line, error) {
	conn, err := h.DialContext(ctx, "tcp", l.Stable.String())
	if err != nil {
		return nil, err
	}
	return &line{conn: conn, reader: bufio.NewReader(conn)}, nil
}

func (c *line) close() { _ = c.conn.Close() }

// ask sends one request. Connections over SSH have no deadlines, so the end of
// ctx closes the connection.
func (c *line) ask(ctx context.Context, l proxy.Layout) (answer, error) {
	defer context.AfterFunc(ctx, c.close)()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Stable.String()+"/.teal/slot", http.NoBody)
	if err != nil {
		return answer{}, err
	}
	if err := req.Write(c.conn); err != nil {
		return answer{}, errors.Join(ctx.Err(), err)
	}
	resp, err := http.ReadResponse(c.reader, req)
	if err != nil {
		return answer{}, errors.Join(ctx.Err(), err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return answer{}, errors.Join(ctx.Err(), err)
	}
	return read(resp, string(body), l)
}

// read makes sense of an answer. The header tells how the asking request
// itself would have been routed; it must not contradict the body.
func read(resp *http.Response, body string, l proxy.Layout) (answer, error) {
	app := resp.Header.Get("Teal-App")
	switch {
	case resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusNotFound:
		return answer{}, fmt.Errorf("nginx cannot read %s/cur/share (status %d): its workers need to enter every folder of that path",
			routeDir(l), resp.StatusCode)
	case resp.StatusCode != http.StatusOK || app == "":
		return answer{}, fmt.Errorf("%s is answered by something else than teal's server (status %d)", l.Stable, resp.StatusCode)
	case app != l.App:
		return answer{}, fmt.Errorf("%s belongs to the app %s", l.Stable, app)
	}
	var blue, green int
	if _, err := fmt.Sscanf(body, shareFormat, &blue, &green); err != nil || blue < 0 || green < 0 || blue+green != buckets {
		return answer{}, fmt.Errorf("%s/cur/share says %.40q", routeDir(l), body)
	}
	slot := proxy.Slot(resp.Header.Get("Teal-Slot"))
	if green == 0 && slot != proxy.Blue || green == buckets && slot != proxy.Green {
		return answer{}, fmt.Errorf("%s/cur/share says %.40q, but requests go to %s", routeDir(l), body, slot)
	}
	return answer{generation: resp.Header.Get("Teal-Generation"), green: green}, nil
}

// prove asks until nginx answers in a way that want has nothing against.
func prove(ctx context.Context, h plugins.Host, l proxy.Layout, want func(answer) error) (answer, error) {
	return proveOn(ctx, h, l, nil, want)
}

// proveOn is prove with the first request on a connection that exists already.
func proveOn(ctx context.Context, h plugins.Host, l proxy.Layout, c *line, want func(answer) error) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, proofWithin)
	defer cancel()
	var last error // what spoke against it before time ran out
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		a, err := askOnce(ctx, h, l, c)
		if err == nil {
			err = want(a)
		}
		if err == nil || errors.Is(err, plugins.Lost) {
			return a, err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		c = nil
		select {
		case <-ctx.Done():
			return a, fmt.Errorf("ask nginx what serves: %w", last)
		case <-time.After(pause):
		}
	}
}

// askOnce asks on c, or on a connection of its own when c is nil.
func askOnce(ctx context.Context, h plugins.Host, l proxy.Layout, c *line) (answer, error) {
	if c == nil {
		var err error
		if c, err = dial(ctx, h, l); err != nil {
			return answer{}, err
		}
		defer c.close()
	}
	return c.ask(ctx, l)
}
