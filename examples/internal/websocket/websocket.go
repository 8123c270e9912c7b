// Package websocket is as much of RFC 6455 as the examples need: the two
// handshakes, and single frames of text, ping, pong and close. A frame that is
// split, binary, or larger than MaxPayload is refused. The libraries that do
// all of it retry, buffer and answer by themselves, and would hide what a
// measurement of connections is there to see.
package websocket

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// MaxPayload is the largest payload of a frame, in bytes.
const MaxPayload = 64 << 10

// An Opcode says what a frame is.
type Opcode byte

// The kinds of frames.
const (
	Text  Opcode = 1
	Close Opcode = 8
	Ping  Opcode = 9
	Pong  Opcode = 10
)

// GoingAway is the reason of a close frame from a server that stops.
const GoingAway uint16 = 1001

// ErrProtocol says that the other side does not speak the protocol, or more of
// it than this package does.
var ErrProtocol = errors.New("not the expected websocket protocol")

// A Conn is one side of an open connection. One goroutine may read while
// another writes.
type Conn struct {
	net.Conn
	r      *bufio.Reader
	client bool // clients mask what they send
}

// AcceptKey returns the answer that a server gives to a client's key.
func AcceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Accept answers a client's handshake with 101 and takes the connection over.
// What the handler has put into the header of w is sent as well. On an error
// the request has been answered.
func Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	key := r.Header.Get("Sec-WebSocket-Key")
	raw, err := base64.StdEncoding.DecodeString(key)
	if r.Method != http.MethodGet || err != nil || len(raw) != 16 ||
		!hasToken(r.Header.Get("Connection"), "upgrade") || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "a websocket handshake was expected", http.StatusBadRequest)
		return nil, fmt.Errorf("handshake: %w", ErrProtocol)
	}
	header := w.Header()
	header.Set("Upgrade", "websocket")
	header.Set("Connection", "Upgrade")
	header.Set("Sec-WebSocket-Accept", AcceptKey(key))
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return &Conn{Conn: conn, r: rw.Reader}, nil
}

// Handshake sends a client's handshake for a path on an open connection and
// returns the server's answer. The answer's status is 101, and the connection
// is usable, exactly when there is no error.
func Handshake(conn net.Conn, host, path string) (*Conn, *http.Response, error) {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	key := base64.StdEncoding.EncodeToString(raw[:])
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", path, host, key)
	if err != nil {
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, resp, fmt.Errorf("handshake: answered %s", resp.Status)
	}
	if got := resp.Header.Get("Sec-WebSocket-Accept"); got != AcceptKey(key) {
		return nil, resp, fmt.Errorf("handshake: accepted with the wrong key %q: %w", got, ErrProtocol)
	}
	return &Conn{Conn: conn, r: r, client: true}, resp, nil
}

// WriteFrame sends one frame.
func (c *Conn) WriteFrame(op Opcode, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("write a frame of %d bytes: %w", len(payload), ErrProtocol)
	}
	const final, masked = 0x80, 0x80
	frame := []byte{final | byte(op), 0}
	switch n := len(payload); {
	case n < 126:
		frame[1] = byte(n)
	case n <= 0xffff:
		frame[1] = 126
		frame = binary.BigEndian.AppendUint16(frame, uint16(n))
	default:
		frame[1] = 127
		frame = binary.BigEndian.AppendUint64(frame, uint64(n))
	}
	var mask [4]byte
	if c.client {
		_, _ = rand.Read(mask[:]) // never fails
		frame[1] |= masked
		frame = append(frame, mask[:]...)
	}
	body := len(frame)
	frame = append(frame, payload...)
	applyMask(mask, frame[body:])
	_, err := c.Write(frame)
	return err
}

// WriteClose sends a close frame with a reason.
func (c *Conn) WriteClose(reason uint16) error {
	return c.WriteFrame(Close, binary.BigEndian.AppendUint16(nil, reason))
}

// Reason returns the reason in the payload of a close frame, 0 when it has none.
func Reason(payload []byte) uint16 {
	if len(payload) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(payload)
}

// ReadFrame returns the next frame, whatever it is. The error is io.EOF when the
// other side has gone without a close frame, between two frames.
func (c *Conn) ReadFrame() (Opcode, []byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	op, final, masked, size := Opcode(head[0]&0x0f), head[0]&0x80 != 0, head[1]&0x80 != 0, uint64(head[1]&0x7f)
	var wide [8]byte
	switch size {
	case 126:
		if _, err := io.ReadFull(c.r, wide[6:]); err != nil {
			return 0, nil, cutOff(err)
		}
		size = binary.BigEndian.Uint64(wide[:])
	case 127:
		if _, err := io.ReadFull(c.r, wide[:]); err != nil {
			return 0, nil, cutOff(err)
		}
		size = binary.BigEndian.Uint64(wide[:])
	}
	known := op == Text || op == Close || op == Ping || op == Pong
	if !final || !known || masked == c.client || size > MaxPayload {
		return 0, nil, fmt.Errorf("read a frame %#x of %d bytes: %w", head[0], size, ErrProtocol)
	}
	var mask [4]byte
	if masked {
		if _, err := io.ReadFull(c.r, mask[:]); err != nil {
			return 0, nil, cutOff(err)
		}
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return 0, nil, cutOff(err)
	}
	applyMask(mask, payload)
	return op, payload, nil
}

// cutOff is the error for an end in the middle of a frame.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func applyMask(mask [4]byte, b []byte) {
	for i := range b {
		b[i] ^= mask[i%4]
	}
}

func hasToken(header, token string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if strings.EqualFold(strings.TrimSpace(part), token) {
			return true
		}
	}
	return false
}
