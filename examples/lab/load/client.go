package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/teal-deploy/teal/examples/internal/websocket"
)

// Sizes of what is sent and asked for, in bytes.
const (
	orderSize    = 512
	uploadSize   = 256 << 10
	downloadSize = 1 << 20
	pieces       = 40 // of a slow upload
)

// releaseHeader names the release that has answered.
const releaseHeader = "X-Release"

// Reasons for which an exchange has failed, besides those of the network.
var (
	errNoRelease = errors.New("the answer does not say which release gave it")
	errMixed     = errors.New("header and body come from different releases")
	errTruncated = errors.New("the answer is not whole")
	errMangled   = errors.New("the body did not come in as it was sent")
	errTold      = errors.New("told before")
	errUnasked   = errors.New("bytes that nobody has asked for")
)

// A client has at most one connection and uses it for one exchange at a time.
type client struct {
	host     Host
	class    Class
	transfer time.Duration
	roots    *x509.CertPool

	posts  bool // HTTP/2 has posted last
	reused bool // the exchange goes over a connection that has served before

	// The connection, by what is spoken: bytes, HTTP/2, gRPC.
	conn net.Conn
	r    *bufio.Reader
	web  *http.Transport
	rpc  *grpc.ClientConn
}

// an exchange is one request with its answer. It returns the release that has
// answered, if that is known, also with an error.
type exchange func(c *client, ctx context.Context) (release string, err error)

func exchangeOf(class Class) (exchange, error) {
	switch class {
	case KeepAlive:
		return (*client).get, nil
	case Post:
		return (*client).post, nil
	case Fresh:
		return (*client).fresh, nil
	case Download:
		return (*client).download, nil
	case Upload:
		return (*client).upload, nil
	case WebSocket:
		return (*client).socket, nil
	case HTTP2:
		return (*client).http2, nil
	case GRPC:
		return (*client).order, nil
	case GRPCStream:
		return (*client).brew, nil
	case TCP:
		return (*client).line, nil
	case TCPSession:
		return (*client).session, nil
	}
	return nil, fmt.Errorf("unknown class %q", class)
}

// exchange does one and measures it. The end of ctx ends a socket, which has
// no end of its own, and nothing else. It begins just before the first byte is
// sent, or, without a connection, before one is asked for: the proxy cannot
// have decided anything by then.
func (c *client) exchange(ctx context.Context, do exchange) sample {
	c.reused = c.usable()
	s := sample{host: c.host.Name, class: c.class, began: time.Now()}
	if !c.reused && !c.class.multiplexed() {
		s.err = c.dial(ctx)
	}
	if s.err == nil {
		s.release, s.err = do(c, ctx)
	}
	s.took, s.reused = time.Since(s.began), c.reused
	if s.err != nil {
		c.close()
	}
	return s
}

// usable reports whether there is a connection that the other side has not
// closed and has sent nothing on.
func (c *client) usable() bool {
	if c.conn == nil {
		return false
	}
	if c.r.Buffered() == 0 && open(c.conn) {
		return true
	}
	c.close()
	return false
}

// open looks, without waiting, whether a connection is open and silent.
func open(conn net.Conn) bool {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		silent = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && silent
}

func (c *client) dial(ctx context.Context) error {
	d := net.Dialer{Timeout: answerTimeout}
	conn, err := d.DialContext(context.WithoutCancel(ctx), "tcp", c.host.Addr.String())
	if err != nil {
		return err
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	return nil
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn, c.r = nil, nil
	}
	if c.web != nil {
		c.web.CloseIdleConnections()
		c.web = nil
	}
	if c.rpc != nil {
		_ = c.rpc.Close()
		c.rpc = nil
	}
}

func (c *client) get(context.Context) (string, error) {
	body, release, err := c.send(c.head(http.MethodGet, "/", 0, ""), http.StatusOK, 0)
	if err != nil {
		return release, err
	}
	if !strings.Contains(string(body), `data-release="`+release+`"`) {
		return release, errMixed
	}
	return release, nil
}

func (c *client) fresh(context.Context) (string, error) {
	defer c.close()
	_, release, err := c.send(c.head(http.MethodGet, "/", 0, "Connection: close\r\n"), http.StatusOK, 0)
	return release, err
}

func (c *client) post(context.Context) (string, error) {
	body := orderText()
	request := append(c.head(http.MethodPost, "/order", len(body), ""), body...)
	answer, release, err := c.send(request, http.StatusCreated, 0)
	if err != nil {
		return release, err
	}
	return release, received(answer, release, body)
}

// orderText is what an order consists of.
func orderText() []byte {
	return bytes.Repeat([]byte("one Sencha, please\n"), orderSize/19+1)[:orderSize]
}

func (c *client) download(context.Context) (string, error) {
	defer c.close()
	path := fmt.Sprintf("/download?bytes=%d&seconds=%.3f", downloadSize, c.transfer.Seconds())
	body, release, err := c.send(c.head(http.MethodGet, path, 0, ""), http.StatusOK, c.transfer)
	if err == nil && len(body) != downloadSize {
		err = fmt.Errorf("%w: %d bytes", errTruncated, len(body))
	}
	return release, err
}

// upload sends its body in even pieces over the transfer time. The answer may
// come, or the connection end, in the middle of it.
func (c *client) upload(context.Context) (string, error) {
	defer c.close()
	body := bytes.Repeat([]byte("a picture of a pot "), uploadSize/19+1)[:uploadSize]
	if err := c.conn.SetDeadline(time.Now().Add(c.transfer + answerTimeout)); err != nil {
		return "", err
	}
	if _, err := c.conn.Write(c.head(http.MethodPost, "/upload", len(body), "")); err != nil {
		return "", err
	}
	tick := time.NewTicker(max(c.transfer/pieces, minPause))
	defer tick.Stop()
	for i := range pieces {
		<-tick.C
		if _, err := c.conn.Write(body[i*len(body)/pieces : (i+1)*len(body)/pieces]); err != nil {
			return "", c.refusal(err)
		}
	}
	answer, release, err := c.receive(http.StatusCreated)
	if err != nil {
		return release, err
	}
	return release, received(answer, release, body)
}

// refusal looks for what the other side has said before it stopped reading.
func (c *client) refusal(cause error) error {
	if err := c.conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return cause
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return cause
	}
	_ = resp.Body.Close()
	return fmt.Errorf("%s in the middle of the body: %w", resp.Status, cause)
}

// socket opens a websocket and sends echoes over the transfer time. It ends
// well when this side closes it, or the other does with a close frame.
func (c *client) socket(ctx context.Context) (string, error) {
	defer c.close()
	if err := c.conn.SetDeadline(time.Now().Add(c.transfer + answerTimeout)); err != nil {
		return "", err
	}
	ws, resp, err := websocket.Handshake(c.conn, c.host.Addr.String(), "/ws") //nolint:bodyclose // such an answer has none
	release := ""
	if resp != nil {
		release = resp.Header.Get(releaseHeader)
	}
	if err != nil {
		return release, err
	}
	if release == "" {
		return "", errNoRelease
	}
	const echoes = 20
	tick := time.NewTicker(max(c.transfer/echoes, minPause))
	defer tick.Stop()
	for i := range echoes {
		if closed, err := echo(ws, fmt.Sprintf("echo %d", i)); closed || err != nil {
			return release, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return release, bye(ws)
		}
	}
	return release, bye(ws)
}

// echo sends a text and a ping and waits for both to come back, or for the
// other side to close in order.
func echo(ws *websocket.Conn, text string) (closed bool, err error) {
	for _, op := range []websocket.Opcode{websocket.Text, websocket.Ping} {
		if err := ws.WriteFrame(op, []byte(text)); err != nil {
			return farewell(ws, err)
		}
	}
	for _, want := range []websocket.Opcode{websocket.Text, websocket.Pong} {
		op, payload, err := ws.ReadFrame()
		switch {
		case err != nil:
			return false, fmt.Errorf("wait for an echo: %w", err)
		case op == websocket.Close:
			// Whoever is closed answers, and that ends it; the answer may find
			// nobody any more.
			_ = ws.WriteFrame(websocket.Close, payload)
			return true, nil
		case op != want || string(payload) != text:
			return false, fmt.Errorf("%w: sent %q, got %q", errMangled, text, payload)
		}
	}
	return false, nil
}

// farewell decides about a socket that takes nothing any more: it has been
// closed in order when a close frame is waiting.
func farewell(ws *websocket.Conn, cause error) (closed bool, err error) {
	for {
		op, _, err := ws.ReadFrame()
		if err != nil {
			return false, cause
		}
		if op == websocket.Close {
			return true, nil
		}
	}
}

// bye closes a socket in order and waits for the other side to agree.
func bye(ws *websocket.Conn) error {
	const normal = 1000
	if err := ws.WriteClose(normal); err != nil {
		_, err := farewell(ws, err)
		return err
	}
	for {
		op, _, err := ws.ReadFrame()
		if err != nil {
			return fmt.Errorf("wait for the close frame: %w", err)
		}
		if op == websocket.Close {
			return nil
		}
	}
}

// head returns the head of a request.
func (c *client) head(method, path string, length int, more string) []byte {
	if method == http.MethodPost {
		more += fmt.Sprintf("Content-Length: %d\r\n", length)
	}
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, path, c.host.Addr, more)
}

// send sends a request and reads the answer, which may take extra longer.
func (c *client) send(request []byte, status int, extra time.Duration) ([]byte, string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout + extra)); err != nil {
		return nil, "", err
	}
	if _, err := c.conn.Write(request); err != nil {
		return nil, "", c.refusal(err)
	}
	return c.receive(status)
}

// receive reads an answer to its end.
func (c *client) receive(status int) (body []byte, release string, err error) {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, "", fmt.Errorf("read the answer: %w", err)
	}
	defer resp.Body.Close()
	body, release, err = whole(resp, status)
	switch {
	case err != nil:
		return nil, release, err
	case c.r.Buffered() > 0:
		return nil, release, errUnasked
	}
	if resp.Close {
		c.close()
	}
	return body, release, nil
}

// whole reads the body of an answer and checks its head.
func whole(resp *http.Response, status int) (body []byte, release string, err error) {
	release = resp.Header.Get(releaseHeader)
	body, err = io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, release, fmt.Errorf("%w: %w after %d bytes", errTruncated, err, len(body))
	case resp.StatusCode != status:
		return nil, release, fmt.Errorf("answered %s", resp.Status)
	case release == "":
		return nil, "", errNoRelease
	}
	return body, release, nil
}

// A receipt is what the shop says it has got.
type receipt struct {
	Release string `json:"release"`
	Bytes   int    `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// readReceipt reads a receipt and checks it against what was sent.
func readReceipt(answer, body []byte) (receipt, error) {
	var got receipt
	if err := json.Unmarshal(answer, &got); err != nil {
		return got, fmt.Errorf("read the answer: %w", err)
	}
	sum := sha256.Sum256(body)
	if got.Bytes != len(body) || got.SHA256 != hex.EncodeToString(sum[:]) {
		return got, fmt.Errorf("%w: %d of %d bytes", errMangled, got.Bytes, len(body))
	}
	return got, nil
}

// received checks the receipt that a release has given.
func received(answer []byte, release string, body []byte) error {
	got, err := readReceipt(answer, body)
	if err == nil && got.Release != release {
		err = errMixed
	}
	return err
}
