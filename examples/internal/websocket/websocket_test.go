package websocket_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/internal/websocket"
)

func TestAcceptKeyIsThatOfTheStandard(t *testing.T) {
	// The example of RFC 6455, section 1.3.
	if got, want := websocket.AcceptKey("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; got != want {
		t.Errorf("AcceptKey = %q, want %q", got, want)
	}
}

// serve starts a server that hands each accepted connection to handle.
func serve(t *testing.T, handle func(*websocket.Conn)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Extra", "yes")
		c, err := websocket.Accept(w, r)
		if err != nil {
			return
		}
		defer c.Close()
		handle(c)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t *testing.T, addr string) (*websocket.Conn, *http.Response) {
	t.Helper()
	c, resp, err := websocket.Handshake(dial(t, addr), addr, "/ws")
	if err != nil {
		t.Fatal(err)
	}
	return c, resp
}

func TestFramesOfAllSizesComeBackUnchanged(t *testing.T) {
	addr := serve(t, func(c *websocket.Conn) {
		for {
			op, payload, err := c.ReadFrame()
			if err != nil || c.WriteFrame(op, payload) != nil {
				return
			}
		}
	})
	c, resp := open(t, addr)
	if got := resp.Header.Get("X-Extra"); got != "yes" {
		t.Errorf("header of the handler = %q, want yes", got)
	}
	for _, size := range []int{0, 1, 125, 126, 127, 40000, 65535, websocket.MaxPayload} {
		sent := bytes.Repeat([]byte{'a', 0xff, 0, 7}, size/4+1)[:size]
		if err := c.WriteFrame(websocket.Text, sent); err != nil {
			t.Fatal(err)
		}
		op, got, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if op != websocket.Text || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came back as %d bytes of %v", size, len(got), op)
		}
	}
	if err := c.WriteFrame(websocket.Text, make([]byte, websocket.MaxPayload+1)); !errors.Is(err, websocket.ErrProtocol) {
		t.Errorf("a frame that is too large: error %v, want ErrProtocol", err)
	}
}

func TestCloseFrameCarriesTheReason(t *testing.T) {
	addr := serve(t, func(c *websocket.Conn) { _ = c.WriteClose(websocket.GoingAway) })
	c, _ := open(t, addr)
	op, payload, err := c.ReadFrame()
	if err != nil || op != websocket.Close || websocket.Reason(payload) != websocket.GoingAway {
		t.Errorf("read %v with reason %d, error %v; want close with %d", op, websocket.Reason(payload), err, websocket.GoingAway)
	}
	if got := websocket.Reason(nil); got != 0 {
		t.Errorf("reason of an empty close frame = %d, want 0", got)
	}
}

func TestConnectionThatEndsIsAnError(t *testing.T) {
	tests := []struct {
		name string
		sent []byte
		want error
	}{
		{"between two frames", nil, io.EOF},
		{"in the head", []byte{0x81}, io.ErrUnexpectedEOF},
		{"in a length", []byte{0x81, 126, 1}, io.ErrUnexpectedEOF},
		{"in a wide length", []byte{0x81, 127, 0, 0}, io.ErrUnexpectedEOF},
		{"in the payload", []byte{0x81, 5, 'h'}, io.ErrUnexpectedEOF},
		{"a part of a message", []byte{0x01, 1, 'h'}, websocket.ErrProtocol},
		{"binary", []byte{0x82, 1, 'h'}, websocket.ErrProtocol},
		{"masked by a server", []byte{0x81, 0x81, 0, 0, 0, 0, 'h'}, websocket.ErrProtocol},
		{"too large", []byte{0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0}, websocket.ErrProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr := serve(t, func(c *websocket.Conn) { _, _ = c.Write(tt.sent) })
			c, _ := open(t, addr)
			if _, _, err := c.ReadFrame(); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestHandshakeThatIsNoneIsRefused(t *testing.T) {
	addr := serve(t, func(*websocket.Conn) {})
	tests := []struct{ name, header string }{
		{"a plain request", ""},
		{"no key", "Connection: upgrade\r\nUpgrade: websocket\r\n"},
		{"a short key", "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: aGk=\r\n"},
		{"another protocol", "Connection: upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, addr)
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n"+tt.header+"\r\n"); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 12)
			if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 400" {
				t.Errorf("answer %q, error %v; want 400", answer, err)
			}
		})
	}
}

func TestHandshakeChecksTheServersAnswer(t *testing.T) {
	tests := []struct{ name, answer, want string }{
		{"another status", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502"},
		{"another key", "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: no\r\n\r\n", "wrong key"},
		{"nothing", "", "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := new(net.ListenConfig).Listen(context.WithoutCancel(t.Context()), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, tt.answer)
				_ = c.Close()
			}()
			_, _, err = websocket.Handshake(dial(t, l.Addr().String()), "x", "/")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}
