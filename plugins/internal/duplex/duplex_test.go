package duplex_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/teal-deploy/teal/plugins/internal/duplex"
)

func pair() (*duplex.Conn, *duplex.Carrier) {
	return duplex.New(duplex.Addr{Net: "tcp"}, duplex.Addr{Net: "tcp", Address: "10.0.0.1:80"})
}

func TestBytesTravelBothWays(t *testing.T) {
	conn, carrier := pair()
	var g errgroup.Group
	g.Go(func() error { // an echo
		_, err := io.Copy(carrier, carrier)
		return errors.Join(err, carrier.CloseWrite())
	})
	g.Go(func() error {
		_, err := io.WriteString(conn, "hello")
		return errors.Join(err, conn.CloseWrite())
	})
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if conn.RemoteAddr().String() != "10.0.0.1:80" || conn.RemoteAddr().Network() != "tcp" || conn.LocalAddr().String() != "" {
		t.Errorf("addresses are %v and %v", conn.LocalAddr(), conn.RemoteAddr())
	}
}

func TestHalfClosedConnectionStillReads(t *testing.T) {
	conn, carrier := pair()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := carrier.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the carrier reads %v", err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	go func() { _, _ = carrier.Write([]byte("late")) }()
	buf := make([]byte, 4)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "late" {
		t.Errorf("got %q, %v", buf, err)
	}
}

func TestEndOfCarrierIsSeen(t *testing.T) {
	cause := errors.New("the cable was cut")
	for _, tt := range []struct {
		name      string
		end       func(*duplex.Carrier)
		read, wri error
	}{
		{"in order", func(c *duplex.Carrier) { c.CloseWithError(nil) }, io.EOF, net.ErrClosed},
		{"with an error", func(c *duplex.Carrier) { c.CloseWithError(cause) }, cause, cause},
		{"with two errors the first counts", func(c *duplex.Carrier) { c.CloseWithError(cause); c.CloseWithError(io.EOF) }, cause, cause},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, carrier := pair()
			tt.end(carrier)
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, tt.read) {
				t.Errorf("Read: %v, want %v", err, tt.read)
			}
			if _, err := conn.Write([]byte("x")); !errors.Is(err, tt.wri) {
				t.Errorf("Write: %v, want %v", err, tt.wri)
			}
		})
	}
}

func TestCloseEndsBothEnds(t *testing.T) {
	conn, carrier := pair()
	for range 2 {
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-conn.Closed()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if _, err := carrier.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the carrier writes: %v", err)
	}
	if _, err := carrier.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the carrier reads: %v", err)
	}
}

func TestDeadlines(t *testing.T) {
	conn, _ := pair()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	if err := errors.Join(conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Now().Add(-time.Second))); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := conn.Write([]byte("x")); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("Write with a deadline in the past: %v", err)
	}
}
