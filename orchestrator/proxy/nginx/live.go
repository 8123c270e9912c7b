package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

// An answer is what nginx says of a member at /.teal/slot.
type answer struct {
	generation string
	share      proxy.Share
	holds      map[proxy.Slot]string
}

// A line is a connection to a member's stable port.
type line struct {
	conn      net.Conn
	transport *http.Transport
}

func dial(ctx context.Context, h plugins.Host, l proxy.Layout, m proxy.Member) (*line, error) {
	conn, err := h.DialContext(ctx, "tcp", m.Stable.String())
	if err != nil {
		return nil, proxy.CutShort(ctx, err)
	}
	var speaks http.Protocols
	speaks.SetHTTP1(l.Protocol != proxy.GRPC)
	speaks.SetUnencryptedHTTP2(l.Protocol == proxy.GRPC)
	free := make(chan net.Conn, 1)
	free <- conn
	return &line{conn: conn, transport: &http.Transport{
		Protocols: &speaks,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case c := <-free:
				return c, nil
			default:
				return nil, errors.New("the connection was closed")
			}
		},
	}}, nil
}

func (c *line) close() {
	c.transport.CloseIdleConnections()
	_ = c.conn.Close()
}

// ask sends one request. Connections over SSH have no deadlines, so the end of
// ctx closes the connection.
func (c *line) ask(ctx context.Context, l proxy.Layout, m proxy.Member) (answer, error) {
	defer context.AfterFunc(ctx, c.close)()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Stable.String()+"/.teal/slot", http.NoBody)
	if err != nil {
		return answer{}, err
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return answer{}, proxy.CutShort(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return answer{}, proxy.CutShort(ctx, err)
	}
	return read(resp, string(bytes.TrimSpace(body)), l, m)
}

// read makes sense of an answer. The headers tell how the asking request
// itself would have been routed; they must not contradict the body.
func read(resp *http.Response, body string, l proxy.Layout, m proxy.Member) (answer, error) {
	app := resp.Header.Get("Teal-App")
	file := fmt.Sprintf("%s/cur/.says/%s", routeDir(l), token(m.Name))
	switch {
	case resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusNotFound:
		return answer{}, fmt.Errorf("nginx cannot read %s (status %d): its workers need to enter every folder of that path", file, resp.StatusCode)
	case resp.StatusCode != http.StatusOK || app == "":
		return answer{}, fmt.Errorf("%s is answered by something else than teal's server (status %d)", m.Stable, resp.StatusCode)
	case app != l.App:
		return answer{}, fmt.Errorf("%s belongs to the app %s", m.Stable, app)
	}
	words, names, _ := strings.Cut(body, "\n")
	share, ok := parseWords(words)
	if !ok {
		return answer{}, fmt.Errorf("%s says %.40q", file, body)
	}
	member, slot := resp.Header.Get("Teal-Member"), resp.Header.Get("Teal-Slot")
	all, whole := share.Slot()
	here := member == token(m.Name) && slot != "off"
	if here == (share == proxy.Off) || whole && slot != string(all) {
		return answer{}, fmt.Errorf("%s says %.40q, but requests go to %s of %s", file, body, slot, member)
	}
	return answer{generation: resp.Header.Get("Teal-Generation"), share: share, holds: parseNames(names)}, nil
}

// parseNames reads the releases in blue and in green.
func parseNames(line string) map[proxy.Slot]string {
	holds := map[proxy.Slot]string{}
	f := strings.Fields(line)
	for i, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
		if i < len(f) && f[i] != unnamed {
			holds[slot] = f[i]
		}
	}
	return holds
}

// parseWords reads the file share of a share's folder.
func parseWords(body string) (proxy.Share, bool) {
	if body == "off" {
		return proxy.Off, true
	}
	var blue, green int
	if _, err := fmt.Sscanf(body, shareFormat, &blue, &green); err != nil || blue < 0 || green < 0 || blue+green != buckets {
		return 0, false
	}
	return proxy.Share(green), true
}

// prove asks until nginx answers for m in a way that want has nothing against;
// the first time on c, where that is not nil.
func prove(ctx context.Context, h plugins.Host, l proxy.Layout, m proxy.Member, c *line, want func(answer) error) error {
	ctx, cancel := proxy.Patience(ctx, proofWithin)
	defer cancel()
	var last error // what spoke against it before time ran out
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		a, err := askOnce(ctx, h, l, m, c)
		if err == nil {
			err = want(a)
		}
		if err == nil || errors.Is(err, plugins.Lost) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		c = nil
		select {
		case <-ctx.Done():
			return fmt.Errorf("ask nginx what serves of %s: %w", m.Name, last)
		case <-time.After(pause):
		}
	}
}

// askOnce asks on c, or on a connection of its own when c is nil.
func askOnce(ctx context.Context, h plugins.Host, l proxy.Layout, m proxy.Member, c *line) (answer, error) {
	if c == nil {
		var err error
		if c, err = dial(ctx, h, l, m); err != nil {
			return answer{}, err
		}
		defer c.close()
	}
	return c.ask(ctx, l, m)
}

// askTwice asks again when the connection broke, as it does when a worker of
// nginx leaves.
func askTwice(ctx context.Context, h plugins.Host, l proxy.Layout, m proxy.Member) (answer, error) {
	ctx, cancel := proxy.Patience(ctx, proofWithin)
	defer cancel()
	a, err := askOnce(ctx, h, l, m, nil)
	if err != nil && plugins.KindOf(err) == "" {
		a, err = askOnce(ctx, h, l, m, nil)
	}
	return a, err
}

// dialAll connects to all of the members, or to none.
func dialAll(ctx context.Context, h plugins.Host, l proxy.Layout, members []proxy.Member) ([]*line, error) {
	lines := make([]*line, len(members))
	err := together(members, func(i int, m proxy.Member) (err error) {
		lines[i], err = dial(ctx, h, l, m)
		return err
	})
	if err != nil {
		closeAll(lines)
		return nil, err
	}
	return lines, nil
}

func closeAll(lines []*line) {
	for _, c := range lines {
		if c != nil {
			c.close()
		}
	}
}

// proveAll asks until nginx serves each of the members as r has it, and names
// the releases that holds has; the first time on its line, where there are any.
func proveAll(ctx context.Context, h plugins.Host, l proxy.Layout, members []proxy.Member, lines []*line, r proxy.Route, holds proxy.Releases) error {
	return together(members, func(i int, m proxy.Member) error {
		var c *line
		if lines != nil {
			c = lines[i]
		}
		return prove(ctx, h, l, m, c, func(a answer) error {
			if a.share != r[m.Name] {
				return fmt.Errorf("it is %s, not %s", a.share, r[m.Name])
			}
			return holds.Check(m.Name, a.holds)
		})
	})
}

// together does something for all members at the same time.
func together(members []proxy.Member, do func(int, proxy.Member) error) error {
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = do(i, m) })
	}
	wg.Wait()
	return oneLine(errs)
}

// oneLine joins errors to one that stays a line.
func oneLine(errs []error) error {
	var first error
	var more []string
	for _, err := range errs {
		switch {
		case err == nil:
		case first == nil:
			first = err
		default:
			more = append(more, err.Error())
		}
	}
	if len(more) == 0 {
		return first
	}
	return fmt.Errorf("%w; %s", first, strings.Join(more, "; "))
}
