package proxytest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// A Load is clients of many kinds that work until it is stopped. None of them
// tries a request again: each that fails is counted.
type Load struct {
	addr string
	stop chan struct{}
	wg   sync.WaitGroup

	// serving is the slot that must answer a request begun now; nil while a
	// switch is under way.
	serving atomic.Pointer[proxy.Slot]

	requests, wrong atomic.Int64
	mu              sync.Mutex
	failures        []string
}

// NewLoad is a load without a client.
func NewLoad(url string) *Load {
	return &Load{addr: strings.TrimPrefix(url, "http://"), stop: make(chan struct{})}
}

// StartLoad starts sixteen clients of what answers at url, as Serve does.
func StartLoad(url string) *Load {
	l := NewLoad(url)
	for range 4 {
		l.Client(func() { l.kept(http.MethodGet, "/", "", 5*time.Millisecond) })
		l.Client(func() { l.kept(http.MethodPost, "/", strings.Repeat("x", 5000), 5*time.Millisecond) })
	}
	for range 2 {
		l.Client(l.fresh)
		l.Client(l.slowPost)
		l.Client(func() { l.kept(http.MethodGet, "/slow", "", 0) })
		l.Client(l.WebSocket)
	}
	return l
}

// Client lets another client work until the end.
func (l *Load) Client(work func()) {
	l.wg.Go(func() {
		for !l.stopped() {
			work()
		}
	})
}

func (l *Load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// End stops the clients and reports what they met, and when they made fewer
// requests than least.
func (l *Load) End(t testing.TB, least int64) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	t.Logf("%d requests", l.requests.Load())
	if l.requests.Load() < least {
		t.Errorf("only %d requests were made", l.requests.Load())
	}
	if n := l.wrong.Load(); n > 0 {
		t.Errorf("%d requests were answered by the wrong slot", n)
	}
	if n := len(l.failures); n > 0 {
		t.Errorf("%d requests failed, first:\n%s", n, strings.Join(l.failures[:min(n, 5)], "\n"))
	}
}

func (l *Load) failed(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, fmt.Sprintf(format, args...))
}

// answered judges an answer to a request that was begun under before.
func (l *Load) answered(before *proxy.Slot, resp *http.Response, what string) {
	l.requests.Add(1)
	if resp.StatusCode != http.StatusOK {
		l.failed("%s: status %d", what, resp.StatusCode)
	}
	if slot := resp.Header.Get("App"); before != nil && slot != "" && slot != string(*before) && l.serving.Load() == before {
		l.wrong.Add(1)
	}
}

func (l *Load) dial() (net.Conn, bool) {
	c, err := net.DialTimeout("tcp", l.addr, 5*time.Second)
	if err != nil {
		l.failed("dial: %v", err)
		return nil, false
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c, true
}

// once makes a request on c and reports whether c may be used again.
func (l *Load) once(c net.Conn, r *bufio.Reader, method, path string, body io.Reader) bool {
	req, err := http.NewRequest(method, "http://shop"+path, body)
	if err != nil {
		l.failed("%v", err)
		return false
	}
	before := l.serving.Load()
	if err := req.Write(c); err != nil {
		l.failed("%s %s: write: %v", method, path, err)
		return false
	}
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		l.failed("%s %s: read: %v", method, path, err)
		return false
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		l.failed("%s %s: body: %v", method, path, err)
		return false
	}
	l.answered(before, resp, method+" "+path)
	return !resp.Close
}

// kept makes requests on one connection until the proxy says that it closes it.
func (l *Load) kept(method, path, body string, think time.Duration) {
	c, ok := l.dial()
	if !ok {
		return
	}
	defer c.Close()
	for r := bufio.NewReader(c); !l.stopped(); time.Sleep(think) {
		if !l.once(c, r, method, path, strings.NewReader(body)) {
			return
		}
	}
}

// fresh makes one request on a connection of its own.
func (l *Load) fresh() {
	if c, ok := l.dial(); ok {
		l.once(c, bufio.NewReader(c), http.MethodGet, "/", http.NoBody)
		_ = c.Close()
	}
	time.Sleep(5 * time.Millisecond)
}

// slowPost sends a body over half a second.
func (l *Load) slowPost() {
	c, ok := l.dial()
	if !ok {
		return
	}
	defer c.Close()
	body, feed := io.Pipe()
	go func() {
		for range 10 {
			time.Sleep(50 * time.Millisecond)
			_, _ = feed.Write(make([]byte, 500))
		}
		_ = feed.Close()
	}()
	l.once(c, bufio.NewReader(c), http.MethodPost, "/slow", body)
}

// WebSocket holds an upgraded connection open and expects every line back.
func (l *Load) WebSocket() {
	c, ok := l.dial()
	if !ok {
		return
	}
	defer c.Close()
	r := bufio.NewReader(c)
	_, _ = io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		l.failed("websocket: %v, %v", resp, err)
		return
	}
	for i := 0; !l.stopped(); i++ {
		line := fmt.Sprintf("line %d\n", i)
		_, _ = io.WriteString(c, line)
		if got, err := r.ReadString('\n'); err != nil || got != line {
			l.failed("websocket: %q, %v", got, err)
			return
		}
		l.requests.Add(1)
		time.Sleep(20 * time.Millisecond)
	}
}

// Switch lets a test switch to a slot under the eyes of the load. Whatever is
// asked behind it must be answered by that slot, until Anyone or the next.
func (l *Load) Switch(slot proxy.Slot, turn func()) {
	l.serving.Store(nil)
	turn()
	l.serving.Store(&slot)
}

// Anyone lets both slots answer from here on.
func (l *Load) Anyone() { l.serving.Store(nil) }
