package haproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/plugins"
)

const (
	proofWithin   = 2 * time.Second // how long haproxy may take to answer as it should
	proofsAtATime = 8
)

// An answer is what haproxy says of a member at /.teal/slot.
type answer struct {
	generation string
	share      proxy.Share
	holds      map[proxy.Slot]string
	err        error // why there is none
}

// proofSocket is where an app that speaks no HTTP is asked about.
func proofSocket(l proxy.Layout) string { return dataDir(l) + "/proof.sock" }

// askMember asks haproxy what share a member has: on the port that routes the
// member's requests, by the rule that routes them. The port of an app that
// speaks no HTTP cannot answer, so there the same expression answers on a
// socket.
func askMember(ctx context.Context, h plugins.Host, l proxy.Layout, m proxy.Member) answer {
	network, address, path := "tcp", m.Stable.String(), "/.teal/slot"
	if l.Protocol == proxy.TCP {
		network, address, path = "unix", proofSocket(l), path+"/"+m.Name
	}
	conn, err := h.DialContext(ctx, network, address)
	if err != nil {
		return answer{err: proxy.CutShort(ctx, err)}
	}
	// Connections over SSH have no deadlines: the end of ctx closes them.
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Stable.String()+path, http.NoBody)
	if err != nil {
		return answer{err: err}
	}
	req.Close = true
	if err := req.Write(conn); err != nil {
		return answer{err: proxy.CutShort(ctx, err)}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return answer{err: proxy.CutShort(ctx, err)}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return answer{err: proxy.CutShort(ctx, err)}
	}
	return read(resp, string(body), address, l, m)
}

// read makes sense of an answer.
func read(resp *http.Response, body, address string, l proxy.Layout, m proxy.Member) answer {
	app, member := resp.Header.Get("Teal-App"), resp.Header.Get("Teal-Member")
	switch {
	case resp.StatusCode != http.StatusOK || app == "":
		return answer{err: fmt.Errorf("%s is answered by something else than teal's frontend (status %d)", address, resp.StatusCode)}
	case app != l.App || member != m.Name:
		return answer{err: fmt.Errorf("%s belongs to the member %s of the app %s", address, member, app)}
	}
	said := strings.Fields(body)
	if len(said) != 3 {
		return answer{err: fmt.Errorf("%s says %.60q", address, body)}
	}
	share, err := parseShare(said[0])
	holds := map[proxy.Slot]string{proxy.Blue: said[1], proxy.Green: said[2]}
	maps.DeleteFunc(holds, func(_ proxy.Slot, release string) bool { return release == unnamed })
	return answer{generation: resp.Header.Get("Teal-Generation"), share: share, holds: holds, err: err}
}

func parseShare(s string) (proxy.Share, error) {
	n, err := strconv.ParseInt(s, 10, 8)
	if share := proxy.Share(n); err == nil && share.Valid() {
		return share, nil
	}
	return proxy.Off, fmt.Errorf("%.20q is not a share", s)
}

// askMembers asks about several members at a time. The answers are by name.
func askMembers(ctx context.Context, h plugins.Host, l proxy.Layout, members []proxy.Member) map[string]answer {
	ctx, cancel := proxy.Patience(ctx, proofWithin)
	defer cancel()
	answers := make([]answer, len(members))
	var g errgroup.Group
	g.SetLimit(proofsAtATime)
	for i, m := range members {
		g.Go(func() error {
			answers[i] = askMember(ctx, h, l, m)
			return nil
		})
	}
	_ = g.Wait() // what went wrong stands in the answers
	byName := map[string]answer{}
	for i, m := range members {
		byName[m.Name] = answers[i]
	}
	return byName
}

// prove asks until haproxy answers for each member in a way that want has
// nothing against, for as long as within.
func prove(ctx context.Context, h plugins.Host, l proxy.Layout, members []proxy.Member, within time.Duration, want func(proxy.Member, answer) error) error {
	ctx, cancel := proxy.Patience(ctx, within)
	defer cancel()
	var last error // what spoke against it before time ran out
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		var against []error
		answers := askMembers(ctx, h, l, members)
		for _, m := range members {
			a := answers[m.Name]
			if a.err == nil {
				a.err = want(m, a)
			}
			if a.err != nil {
				against = append(against, fmt.Errorf("member %s: %w", m.Name, a.err))
			}
		}
		err := errors.Join(against...)
		if err == nil || errors.Is(err, plugins.Lost) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("ask haproxy what serves: %w", last)
		case <-time.After(pause):
		}
	}
}

// serves wants the shares of route, and the names of holds.
func serves(route proxy.Route, holds proxy.Releases) func(proxy.Member, answer) error {
	return func(m proxy.Member, a answer) error {
		if want := route[m.Name]; a.share != want {
			return fmt.Errorf("it serves %s, not %s", a.share, want)
		}
		return holds.Check(m.Name, a.holds)
	}
}
