package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/crypto/ssh"

	"github.com/teal-deploy/teal/plugins"
)

// sessionTries is how often a host may refuse the only session: together they
// take about a second.
const sessionTries = 8

// places bounds how many sessions a connection has open. It learns: when the
// host refuses one more, as its MaxSessions says, it never asks for as many
// again.
type places struct {
	free chan struct{}

	mu    sync.Mutex
	limit int
}

func newPlaces(n int) *places {
	p := &places{free: make(chan struct{}, n), limit: n}
	for range n {
		p.free <- struct{}{}
	}
	return p
}

func (p *places) take(ctx context.Context) error {
	select {
	case <-p.free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *places) leave() { p.free <- struct{}{} }

// shrink gives up the place that the caller has taken, unless it is the last.
func (p *places) shrink() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit == 1 {
		return false
	}
	p.limit--
	return true
}

// A session runs one command.
type session struct {
	*channel
	exit  chan exit     // gets how the command ended, or unknown at the end of the channel
	over  chan struct{} // closed when the host has closed the channel
	leave func()

	writing sync.Mutex // the library's Write and CloseWrite must not meet
}

// An exit is how a command ended.
type exit struct {
	known bool
	code  int // 128 and more for the end by a signal
}

// openSession opens a session and waits for a place to do so.
func (c *Conn) openSession(ctx context.Context) (*session, error) {
	pace := backoff.NewExponentialBackOff()
	pace.InitialInterval = 20 * time.Millisecond
	return backoff.Retry(ctx, func() (*session, error) {
		s, err := c.trySession(ctx)
		var refused *ssh.OpenChannelError
		switch {
		case err == nil:
			return s, nil
		case !errors.As(err, &refused):
			return nil, backoff.Permanent(err)
		}
		return nil, kindError(plugins.Unavailable,
			fmt.Errorf("the host refuses a session (%w): see MaxSessions of its sshd", err))
	}, backoff.WithBackOff(pace), backoff.WithMaxTries(sessionTries), backoff.WithMaxElapsedTime(0))
}

// trySession waits for a place and opens a session. A refusal costs a place
// for good while there are others. The last one may be refused for a moment,
// because sshd counts a session a little longer than it tells.
func (c *Conn) trySession(ctx context.Context) (*session, error) {
	for {
		if err := c.sessions.take(ctx); err != nil {
			return nil, err
		}
		ch, err := c.openChannel(ctx, "session", nil)
		if err == nil {
			s := &session{channel: ch, exit: make(chan exit, 1), over: make(chan struct{}), leave: c.sessions.leave}
			go s.watch()
			return s, nil
		}
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) || !c.sessions.shrink() {
			c.sessions.leave()
			return nil, err
		}
	}
}

// watch reads what the host says of the session until it ends.
func (s *session) watch() {
	var e exit
	told := false
	for r := range s.requests {
		switch r.Type {
		case "exit-status":
			if len(r.Payload) >= 4 {
				e = exit{known: true, code: int(binary.BigEndian.Uint32(r.Payload))}
			}
		case "exit-signal":
			var m struct {
				Signal     string
				CoreDumped bool
				Message    string
				Language   string
			}
			if ssh.Unmarshal(r.Payload, &m) == nil {
				e = exit{known: true, code: signalCode(m.Signal)}
			}
		}
		if r.WantReply {
			_ = r.Reply(false, nil) // the session is closing if it fails
		}
		if e.known && !told {
			s.exit <- e
			told = true
		}
	}
	if !told {
		s.exit <- e
	}
	close(s.over)
	s.leave()
}

// Close closes the channel. Its place is free once the host has agreed, or
// the connection has ended.
func (s *session) Close() error { return s.Channel.Close() }

// Write sends standard input.
func (s *session) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.Channel.Write(p)
}

// pull pulls the leash: the host sees the end of what it gets. Where a write
// is stuck, because nobody reads there, closing does the same, but leaves no
// way back for the exit code.
func (s *session) pull() {
	if s.writing.TryLock() {
		defer s.writing.Unlock()
		_ = s.CloseWrite() // fails when the channel is closed, which is as good
		return
	}
	_ = s.Close()
}

// request sends a request and waits for the host's yes.
func (s *session) request(ctx context.Context, name string, payload []byte) error {
	ok, err := await(ctx, func() (bool, error) { return s.SendRequest(name, true, payload) }, func(bool) {})
	if err == nil && !ok {
		err = fmt.Errorf("the host refuses the request %s", name)
	}
	return err
}

// signalCode is the exit code that a shell gives to the end by a signal.
func signalCode(name string) int {
	codes := map[string]int{
		"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9,
		"USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15,
	}
	return 128 + codes[name]
}
