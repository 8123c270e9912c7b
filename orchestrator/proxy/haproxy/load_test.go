package haproxy

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

// A load is clients of many kinds that work until it is stopped. None of them
// tries a request again: each that fails is counted.
type load struct {
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

func startLoad(url string) *load {
	l := &load{addr: strings.TrimPrefix(url, "http://"), stop: make(chan struct{})}
	for range 4 {
		l.client(func() { l.kept(http.MethodGet, "/", "", 5*time.Millisecond) })
		l.client(func() { l.kept(http.MethodPost, "/", strings.Repeat("x", 5000), 5*time.Millisecond) })
	}
	for range 2 {
		l.client(l.fresh)
		l.client(l.slowPost)
		l.client(func() { l.kept(http.MethodGet, "/slow", "", 0) })
		l.client(l.websocket)
	}
	return l
}

func (l *load) client(work func()) {
	l.wg.Go(func() {
		for !l.stopped() {
			work()
		}
	})
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// end stops the clients and reports what they met.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	t.Logf("%d requests", l.requests.Load())
	if l.requests.Load() < 100 {
		t.Errorf("only %d requests were made", l.requests.Load())
	}
	if n := l.wrong.Load(); n > 0 {
		t.Errorf("%d requests were answered by the wrong slot", n)
	}
	if n := len(l.failures); n > 0 {
		t.Errorf("%d requests failed, first:\n%s", n, strings.Join(l.failures[:min(n, 5)], "\n"))
	}
}

func (l *load) failed(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, fmt.Sprintf(format, args...))
}

// answered judges an answer to a request that was begun under before.
func (l *load) answered(before *proxy.Slot, resp *http.Response, what string) {
	l.requests.Add(1)
	if resp.StatusCode != http.StatusOK {
		l.failed("%s: status %d", what, resp.StatusCode)
	}
	if slot := resp.Header.Get("App"); before != nil && slot != "" && slot != string(*before) && l.serving.Load() == before {
		l.wrong.Add(1)
	}
}

func (l *load) dial() (net.Conn, bool) {
	c, err := net.DialTimeout("tcp", l.addr, 5*time.Second)
	if err != nil {
		l.failed("dial: %v", err)
		return nil, false
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c, true
}

// once makes a request on c and reports whether c may be used again.
func (l *load) once(c net.Conn, r *bufio.Reader, method, path string, body io.Reader) bool {
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

// kept makes requests on one connection until haproxy says that it closes it.
func (l *load) kept(method, path, body string, think time.Duration) {
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
func (l *load) fresh() {
	if c, ok := l.dial(); ok {
		l.once(c, bufio.NewReader(c), http.MethodGet, "/", http.NoBody)
		_ = c.Close()
	}
	time.Sleep(5 * time.Millisecond)
}

// slowPost sends a body over half a second.
func (l *load) slowPost() {
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

// websocket holds an upgraded connection open and expects every line back.
func (l *load) websocket() {
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

// flip switches under the eyes of the load.
func (l *load) flip(t *testing.T, d *daemon, a proxy.Layout, slot proxy.Slot) {
	t.Helper()
	l.serving.Store(nil)
	switchTo(t.Context(), t, d, a, slot)
	l.serving.Store(&slot)
}

func TestFiftySwitchesUnderLoadFailNoRequest(t *testing.T) {
	t.Parallel()
	d, a, url := prepared(t, "web1")
	worker := d.worker()
	l := startLoad(url)
	slot := proxy.Green
	for range 50 {
		l.flip(t, d, a, slot)
		slot = slot.Other()
		time.Sleep(40 * time.Millisecond)
	}
	l.end(t)
	if got := d.worker(); got != worker {
		t.Errorf("worker %s became %s: something reloaded", worker, got)
	}
}

func TestRollbackStormFailsNoRequest(t *testing.T) {
	t.Parallel()
	d, a, url := prepared(t, "web1")
	l := startLoad(url)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	slot := proxy.Green
	for range 40 {
		<-tick.C
		l.flip(t, d, a, slot)
		slot = slot.Other()
	}
	l.end(t)
}

func TestReloadUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	d, a, url := prepared(t, "web1")
	l := startLoad(url)
	time.Sleep(300 * time.Millisecond)
	for range 2 {
		worker := d.worker()
		a.Members[0].Green = append(a.Members[0].Green, serve(t, "web1", "green"))
		prepare(t, d, a, true)
		if d.worker() == worker {
			t.Error("nothing reloaded")
		}
		l.flip(t, d, a, proxy.Green)
		time.Sleep(200 * time.Millisecond)
	}
	l.end(t)
}
