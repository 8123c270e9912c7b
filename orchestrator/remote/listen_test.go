package remote_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/remote"
	"github.com/teal-deploy/teal/orchestrator/remote/remotetest"
	"github.com/teal-deploy/teal/plugins"
)

// listen has the host listen at a port of its choice.
func listen(t *testing.T, c *remote.Conn) net.Listener {
	t.Helper()
	l, err := c.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// knock connects to what the host listens at.
func knock(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// accept waits for a connection, not for ever.
func accept(t *testing.T, l net.Listener) (net.Conn, error) {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		results <- result{c, err}
	}()
	select {
	case r := <-results:
		return r.conn, r.err
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was let in within ten seconds")
		return nil, nil
	}
}

func TestListenCarriesBothWays(t *testing.T) {
	c := dial(t, testDialer(t), startSSHD(t).Host)
	l := listen(t, c)
	want := make([]byte, 3<<20)
	_, _ = rand.Read(want)
	for range 2 {
		outside := knock(t, l)
		inside, err := accept(t, l)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = outside.Write(want)
			_ = outside.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(inside)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d of %d bytes came in: %v", len(got), len(want), err)
		}
		go func() {
			_, _ = inside.Write(want)
			_ = inside.Close()
		}()
		if got, err = io.ReadAll(outside); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d of %d bytes went out: %v", len(got), len(want), err)
		}
	}
	if inside := l.Addr().String(); !strings.HasPrefix(inside, "127.0.0.1:") {
		t.Errorf("it listens at %s", inside)
	}
}

func TestAcceptedConnectionHasDeadlines(t *testing.T) {
	l := listen(t, dial(t, testDialer(t), startSSHD(t).Host))
	knock(t, l)
	inside, err := accept(t, l)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inside.Close() }()
	if err := inside.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := inside.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("reading past the deadline: %v", err)
	}
}

func TestListenRefusalNamesTheSettings(t *testing.T) {
	for _, lines := range [][]string{{"AllowTcpForwarding local"}, {"AllowTcpForwarding no"}, {"DisableForwarding yes"}, {"PermitListen 127.0.0.1:1"}} {
		t.Run(lines[0], func(t *testing.T) {
			c := dial(t, testDialer(t), startSSHD(t, lines...).Host)
			_, err := c.Listen(t.Context(), "127.0.0.1:0")
			if !errors.Is(err, plugins.Denied) {
				t.Fatalf("refused with %v", err)
			}
			for _, word := range []string{"web1", "AllowTcpForwarding", "PermitListen", "authorized_keys"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %s", err, word)
				}
			}
		})
	}
}

func TestListenTakesAddressesAlone(t *testing.T) {
	c := dial(t, testDialer(t), startSSHD(t).Host)
	for _, address := range []string{"", "localhost:0", "127.0.0.1", "127.0.0.1:99999"} {
		if _, err := c.Listen(t.Context(), address); !errors.Is(err, plugins.Invalid) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestListenerEndsWithTheConnection(t *testing.T) {
	cable, h := lay(t, startSSHD(t).Host)
	l := listen(t, dial(t, testDialer(t), h))
	outside := knock(t, l)
	inside, err := accept(t, l)
	if err != nil {
		t.Fatal(err)
	}
	cable.cut()
	if _, err := accept(t, l); !errors.Is(err, plugins.Lost) {
		t.Errorf("Accept ended with %v", err)
	}
	if _, err := io.ReadAll(inside); !errors.Is(err, plugins.Lost) {
		t.Errorf("a connection that was accepted ended with %v", err)
	}
	// The host does not listen any more, either.
	_ = outside.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, outside); n != 0 || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("on the host: %d bytes, %v", n, err)
	}
}

func TestClosedListenerIsGoneOnTheHost(t *testing.T) {
	l := listen(t, dial(t, testDialer(t), startSSHD(t).Host))
	waits := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		waits <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v", err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the host still listens")
	}
}

func TestListenOnASilentHost(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{})
	c := dial(t, testDialer(t), h.Inventory("web1"))
	h.Mute()
	defer h.Unmute()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Listen(ctx, "127.0.0.1:0"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a request without an answer ended with %v", err)
	}
}

// Whoever closes does not wait for a host that has fallen silent.
func TestListenerOfASilentHostCloses(t *testing.T) {
	cable, h := lay(t, startSSHD(t).Host)
	l := listen(t, dial(t, testDialer(t), h))
	cable.hold()
	began := time.Now()
	_ = l.Close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
