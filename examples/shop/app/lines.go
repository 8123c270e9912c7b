package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// bye is the last line of a connection that the shop ends.
const bye = "bye"

// patience is how long the shop waits for one more line of a connection that
// it is about to end.
const patience = 2 * time.Second

// lines serves the shop's line protocol: each line is answered by one with the
// release and the same text. A shop that cannot take requests ends every
// connection without a word. Its methods are those of http.Server.
type lines struct {
	store *store

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	closing  bool
	open     sync.WaitGroup
}

var errClosing = errors.New("the shop closes")

// Serve answers until Shutdown.
func (l *lines) Serve(at net.Listener) error {
	l.mu.Lock()
	l.listener = at
	l.mu.Unlock()
	for {
		c, err := at.Accept()
		if err != nil {
			return err
		}
		if !l.keep(c) {
			_ = c.Close()
			return errClosing
		}
		go func() {
			defer l.drop(c)
			l.answer(c)
		}()
	}
}

func (l *lines) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	if l.conns == nil {
		l.conns = map[net.Conn]bool{}
	}
	l.conns[c] = true
	l.open.Add(1)
	return true
}

func (l *lines) drop(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.open.Done()
}

// answer serves one connection to its end, or, when the shop closes, up to the
// next answer.
func (l *lines) answer(c net.Conn) {
	in := bufio.NewScanner(c)
	for l.store.ready() && in.Scan() {
		if _, err := fmt.Fprintf(c, "%s %s\n", l.store.release.Name, in.Text()); err != nil {
			return
		}
		if l.isClosing() {
			break
		}
	}
	if !l.isClosing() {
		return
	}
	// The word must not get lost by a line that comes in too late, so the other
	// side closes first. One that has gone need not be told.
	_, _ = fmt.Fprintln(c, bye)
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, c)
	}
}

func (l *lines) isClosing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}

// Shutdown takes no more connections, answers on each that is open one more
// line if there soon is one, says bye and ends it.
func (l *lines) Shutdown(ctx context.Context) error {
	l.mu.Lock()
	l.closing = true
	if l.listener != nil {
		_ = l.listener.Close() // it serves nobody any more
	}
	for c := range l.conns {
		_ = c.SetReadDeadline(time.Now().Add(patience)) // one that is closed has ended
	}
	l.mu.Unlock()
	done := make(chan struct{})
	go func() {
		l.open.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
