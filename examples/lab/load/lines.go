package load

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// line opens a connection for one line.
func (c *client) line(context.Context) (string, error) {
	defer c.close()
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return "", err
	}
	release, _, err := c.ask("one line")
	return release, err
}

// session sends a line every now and then over the transfer time. It ends well
// when this side closes it, or the other says bye after it has answered.
func (c *client) session(ctx context.Context) (string, error) {
	defer c.close()
	if err := c.conn.SetDeadline(time.Now().Add(c.transfer + answerTimeout)); err != nil {
		return "", err
	}
	const lines = 20
	tick := time.NewTicker(max(c.transfer/lines, minPause))
	defer tick.Stop()
	release := ""
	for i := range lines {
		from, bye, err := c.ask(fmt.Sprintf("line %d", i))
		switch {
		case bye && i > 0:
			return release, nil
		case err != nil:
			return release, err
		case i > 0 && from != release:
			return release, errMixed
		}
		release = from
		select {
		case <-tick.C:
		case <-ctx.Done():
			return release, nil
		}
	}
	return release, nil
}

// ask sends a line and returns the release that has answered it, or that the
// other side said bye, which is an error as well.
func (c *client) ask(text string) (release string, bye bool, err error) {
	_, sent := fmt.Fprintln(c.conn, text)
	answer, err := c.r.ReadString('\n')
	switch release, echo, ok := strings.Cut(strings.TrimSuffix(answer, "\n"), " "); {
	case answer == "bye\n":
		return "", true, fmt.Errorf("%w: the other side says bye", errTruncated)
	case err != nil:
		return "", false, errors.Join(sent, fmt.Errorf("read the answer: %w", err))
	case !ok || release == "":
		return "", false, errNoRelease
	case echo != text:
		return release, false, fmt.Errorf("%w: sent %q, got %q", errMangled, text, echo)
	default:
		return release, false, nil
	}
}
