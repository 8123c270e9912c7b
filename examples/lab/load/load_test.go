package load_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab/load"
	"github.com/teal-deploy/teal/examples/shop"
)

// page is a good answer of a release.
func page(release string) string {
	body := fmt.Sprintf("<body data-release=%q>", release)
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Release: %s\r\nContent-Length: %d\r\n\r\n%s", release, len(body), body)
}

// listen serves connections one by one with handle, which ends them.
func listen(t *testing.T, handle func(net.Conn)) load.Host {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return host(l.Addr().String())
}

func host(addr string) load.Host { return load.Host{Name: "h1", Addr: netip.MustParseAddrPort(addr)} }

// once answers each request on a connection with what answer returns for its
// number, and ends when that is empty.
func once(answer func(n int) string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for n := 1; ; n++ {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			text := answer(n)
			if text == "" {
				return
			}
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

// answerOnce answers the first request on a connection.
func answerOnce(c net.Conn, text string) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, req.Body)
	_, _ = io.WriteString(c, text)
}

func run(t *testing.T, c load.Config) load.Report {
	t.Helper()
	var rec load.Recorder
	if c.Duration == 0 {
		c.Duration = 10 * time.Second
	}
	if err := load.Run(t.Context(), c, &rec); err != nil {
		t.Fatal(err)
	}
	return rec.Report()
}

// A running is the shop as a process of its own.
type running struct {
	host load.Host
	cmd  *exec.Cmd
}

// buildShop builds the shop once for all tests, in a folder that TestMain
// removes.
var buildShop = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "shop-test-")
	if err != nil {
		return "", err
	}
	return dir, shop.BuildApp(context.Background(), filepath.Join(dir, "shop"))
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := buildShop(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// startShop gives the shop a release made by hand and starts it.
func startShop(t *testing.T, args ...string) running {
	t.Helper()
	program, err := buildShop()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	built := filepath.Join(dir, "built")
	if err := os.Mkdir(built, 0o750); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"manifest": "release=1\nbuild=abc\n", "catalogue.json": "[]", "page.html": `<body data-release="{{.Release}}">`,
	} {
		if err := os.WriteFile(filepath.Join(built, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(program, "shop"), append([]string{"-dir", dir, "-listen", "127.0.0.1:0"}, args...)...)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	_, addr, found := strings.Cut(strings.TrimSpace(line), "address=")
	if err != nil || !found {
		t.Fatalf("the shop says %q, %v", line, err)
	}
	return running{host(addr), cmd}
}

func TestEveryClassOfClientIsServedByTheShop(t *testing.T) {
	grpc := load.MixGRPC()
	grpc[load.HTTP2] = 3
	for protocol, mix := range map[string]map[load.Class]int{"http": load.Mix(), "grpc": grpc, "tcp": load.MixTCP()} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := startShop(t, "-protocol", protocol)
			rep := run(t, load.Config{
				Hosts: []load.Host{s.host}, Clients: mix, Transfer: 500 * time.Millisecond, Duration: 2 * time.Second,
			})
			if !rep.OK() || len(rep.Classes) != len(mix) {
				t.Errorf("%d failed, %d wrong, %d classes: %v", rep.Failed, rep.Wrong(), len(rep.Classes), rep.Failures)
			}
			if len(rep.Releases) != 1 || rep.Releases[0].Release != "1" || rep.Releases[0].Requests != rep.Requests {
				t.Errorf("releases %+v, want all %d requests answered by 1", rep.Releases, rep.Requests)
			}
			for _, c := range rep.Classes {
				if slices.Contains(slow, c.Class) && c.Longest < 450*time.Millisecond {
					t.Errorf("%s took %s, want its transfer time", c.Class, c.Longest)
				}
			}
		})
	}
}

// slow are the classes that take the transfer time.
var slow = []load.Class{load.Download, load.Upload, load.WebSocket, load.GRPCStream, load.TCPSession}

// protocolOf returns what the shop has to speak for a class.
func protocolOf(class load.Class) string {
	switch class {
	case load.GRPC, load.GRPCStream, load.HTTP2:
		return "grpc"
	case load.TCP, load.TCPSession:
		return "tcp"
	}
	return "http"
}

func TestKilledShopFailsWhateverIsOpen(t *testing.T) {
	for _, class := range slow {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			s := startShop(t, "-protocol", protocolOf(class))
			time.AfterFunc(600*time.Millisecond, func() { _ = s.cmd.Process.Kill() })
			rep := run(t, load.Config{
				Hosts: []load.Host{s.host}, Clients: map[load.Class]int{class: 2}, Transfer: 5 * time.Second, Requests: 2,
			})
			if rep.Requests != 2 || rep.Failed != 2 || len(rep.Failures) != 2 {
				t.Errorf("%d of %d failed, want 2 of 2: %v", rep.Failed, rep.Requests, rep.Failures)
			}
		})
	}
}

func TestStoppedShopFailsNothingThatIsOpen(t *testing.T) {
	for _, class := range slow {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			s := startShop(t, "-protocol", protocolOf(class))
			time.AfterFunc(600*time.Millisecond, func() { _ = s.cmd.Process.Signal(syscall.SIGTERM) })
			rep := run(t, load.Config{
				Hosts: []load.Host{s.host}, Clients: map[load.Class]int{class: 2}, Transfer: 1500 * time.Millisecond, Requests: 2,
			})
			if rep.Requests != 2 || rep.Failed != 0 {
				t.Errorf("%d of %d failed, want none of 2: %v", rep.Failed, rep.Requests, rep.Failures)
			}
		})
	}
}

func TestEveryWayToFailIsCounted(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name, answer, want string
		class              load.Class
	}{
		{"no answer", "", "EOF", load.KeepAlive},
		{"half a head", ok + "X-Rel", "malformed", load.KeepAlive},
		{"half a body", ok + "X-Release: 1\r\nContent-Length: 9\r\n\r\nhalf", "not whole", load.KeepAlive},
		{"another status", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502", load.KeepAlive},
		{"no release", ok + "Content-Length: 2\r\n\r\nok", "which release", load.Fresh},
		{"two releases in one answer", strings.Replace(page("2"), "X-Release: 2", "X-Release: 1", 1), "different releases", load.KeepAlive},
		{"more than was asked for", page("1") + "more", "nobody has asked", load.KeepAlive},
		{"no answer to an order", "", "EOF", load.Post},
		{
			"a body that came in cut", "HTTP/1.1 201 Created\r\nX-Release: 1\r\nContent-Length: 25\r\n\r\n" + `{"release":"1","bytes":2}`,
			"as it was sent", load.Post,
		},
		{"an order answered with something else", "HTTP/1.1 201 Created\r\nX-Release: 1\r\nContent-Length: 2\r\n\r\nok", "read the answer", load.Post},
		{"a short download", page("1"), "not whole", load.Download},
		{"an upload refused", "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", "413", load.Upload},
		{"no websocket", page("1"), "200", load.WebSocket},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := listen(t, func(c net.Conn) { answerOnce(c, tt.answer) })
			rep := run(t, load.Config{
				Hosts: []load.Host{h}, Clients: map[load.Class]int{tt.class: 1}, Requests: 1, Transfer: 50 * time.Millisecond,
			})
			if rep.Requests != 1 || rep.Failed != 1 || len(rep.Failures) != 1 {
				t.Fatalf("%d of %d failed, want 1 of 1", rep.Failed, rep.Requests)
			}
			if f := rep.Failures[0]; !strings.Contains(f.Text, tt.want) || f.Class != tt.class || f.Host != "h1" {
				t.Errorf("failure %+v, want one with %q", f, tt.want)
			}
		})
	}
}

func TestRefusedConnectionIsAFailure(t *testing.T) {
	h := listen(t, func(net.Conn) {})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.Addr = netip.MustParseAddrPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rep := run(t, load.Config{Hosts: []load.Host{h}, Clients: map[load.Class]int{load.Fresh: 1}, Requests: 30})
	if rep.Failed != 30 || len(rep.Failures) != 20 {
		t.Errorf("%d failed and %d told, want 30 and 20", rep.Failed, len(rep.Failures))
	}
	if rep.OK() {
		t.Error("a run of failures is fine")
	}
}

func TestClosedIdleConnectionIsNotUsedAgain(t *testing.T) {
	var connections atomic.Int64
	h := listen(t, func(c net.Conn) {
		connections.Add(1)
		answerOnce(c, page("1")) // and then an end without a word, as after an idle timeout
	})
	rep := run(t, load.Config{
		Hosts: []load.Host{h}, Clients: map[load.Class]int{load.KeepAlive: 1}, Requests: 10, Pause: 40 * time.Millisecond,
	})
	// The far side closes with the answer, so a kept connection is found closed.
	if rep.Failed > 0 || connections.Load() != 10 {
		t.Errorf("%d failed over %d connections, want none over 10: %v", rep.Failed, connections.Load(), rep.Failures)
	}
}

func TestDroppedRequestOnAKeptConnectionIsNotRepeated(t *testing.T) {
	var requests atomic.Int64
	h := listen(t, once(func(n int) string {
		requests.Add(1)
		if n == 2 {
			return ""
		}
		return page("1")
	}))
	rep := run(t, load.Config{Hosts: []load.Host{h}, Clients: map[load.Class]int{load.KeepAlive: 1}, Requests: 10})
	if rep.Failed != 5 || requests.Load() != 10 {
		t.Errorf("%d of %d failed, want 5 of 10", rep.Failed, requests.Load())
	}
	for _, f := range rep.Failures {
		if !f.Reused {
			t.Errorf("failure on a new connection: %+v", f)
		}
	}
}

// TestWrongSideIsFoundOnKeptConnections has a proxy that switches new
// connections only, as one that hands its listener over does.
func TestWrongSideIsFoundOnKeptConnections(t *testing.T) {
	var release atomic.Value
	release.Store("1")
	h := listen(t, func(c net.Conn) {
		mine, ok := release.Load().(string)
		if !ok {
			return
		}
		once(func(int) string { return page(mine) })(c)
	})
	var rec load.Recorder
	rec.Switched(load.Switch{Host: "h1", Release: "1", Confirmed: time.Now()})
	time.AfterFunc(500*time.Millisecond, func() {
		began := time.Now()
		release.Store("2")
		rec.Switched(load.Switch{Host: "h1", Release: "2", Began: began, Confirmed: time.Now()})
	})
	err := load.Run(t.Context(), load.Config{
		Hosts: []load.Host{h}, Clients: map[load.Class]int{load.KeepAlive: 2, load.Fresh: 2}, Duration: time.Second,
	}, &rec)
	if err != nil {
		t.Fatal(err)
	}
	rep := rec.Report()
	if rep.WrongReused == 0 || rep.WrongNew != 0 || rep.Failed != 0 {
		t.Errorf("wrong side: %d on kept, %d on new connections, %d failed; want some, none, none",
			rep.WrongReused, rep.WrongNew, rep.Failed)
	}
	if requests, failed := rec.Count(); requests != rep.Requests || failed != rep.Failed {
		t.Errorf("count %d, %d; report %d, %d", requests, failed, rep.Requests, rep.Failed)
	}
}

func TestRightSwitchIsNotBlamed(t *testing.T) {
	var release atomic.Value
	release.Store("1")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		now := release.Load().(string) //nolint:forcetypeassert // stored above
		time.Sleep(20 * time.Millisecond)
		w.Header().Set("X-Release", now)
		fmt.Fprintf(w, "<body data-release=%q>", now)
	}))
	t.Cleanup(s.Close)
	var rec load.Recorder
	for i, name := range []string{"1", "2", "1"} {
		time.AfterFunc(time.Duration(i)*300*time.Millisecond, func() {
			began := time.Now()
			release.Store(name)
			rec.Switched(load.Switch{Host: "h1", Release: name, Began: began, Confirmed: time.Now()})
		})
	}
	err := load.Run(t.Context(), load.Config{
		Hosts:   []load.Host{host(strings.TrimPrefix(s.URL, "http://"))},
		Clients: map[load.Class]int{load.KeepAlive: 4, load.Fresh: 4}, Duration: time.Second,
	}, &rec)
	if err != nil {
		t.Fatal(err)
	}
	if rep := rec.Report(); !rep.OK() || len(rep.Releases) != 2 {
		t.Errorf("%d failed, %d wrong, releases %+v; want 0, 0 and two", rep.Failed, rep.Wrong(), rep.Releases)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	h := listen(t, once(func(int) string { return page("1") }))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	var rec load.Recorder
	err := load.Run(ctx, load.Config{Hosts: []load.Host{h}, Clients: map[load.Class]int{load.KeepAlive: 2}, Duration: time.Minute}, &rec)
	if took := time.Since(began); err != nil || took > 2*time.Second {
		t.Errorf("ended after %s with %v", took, err)
	}
	if requests, failed := rec.Count(); requests == 0 || failed != 0 {
		t.Errorf("%d requests, %d failed; want some, none", requests, failed)
	}
}

func TestRunRefusesWhatIsNotBounded(t *testing.T) {
	good := func() load.Config {
		return load.Config{
			Hosts:   []load.Host{host("127.0.0.1:80")},
			Clients: map[load.Class]int{load.KeepAlive: 1}, Duration: time.Second,
		}
	}
	tests := []struct {
		name, want string
		change     func(*load.Config)
	}{
		{"no time", "duration", func(c *load.Config) { c.Duration = 0 }},
		{"too long", "duration", func(c *load.Config) { c.Duration = 2 * time.Hour }},
		{"no clients", "no clients", func(c *load.Config) { c.Clients = nil }},
		{"no hosts", "no clients or no hosts", func(c *load.Config) { c.Hosts = nil }},
		{"too many clients", "at most", func(c *load.Config) { c.Clients[load.Post] = 5000 }},
		{"less than none", "-1 clients", func(c *load.Config) { c.Clients[load.Post] = -1 }},
		{"an unknown class", "unknown class", func(c *load.Config) { c.Clients["quic"] = 1 }},
		{"no pause", "pause", func(c *load.Config) { c.Pause = time.Microsecond }},
		{"an endless transfer", "transfer", func(c *load.Config) { c.Transfer = 2 * time.Hour }},
		{"a negative number", "requests", func(c *load.Config) { c.Requests = -1 }},
		{"somebody else's address", "neither loopback", func(c *load.Config) { c.Hosts[0].Addr = netip.MustParseAddrPort("192.0.2.1:80") }},
		{"somebody else's TLS", "neither loopback", func(c *load.Config) { c.Hosts[0].TLS = netip.MustParseAddrPort("192.0.2.1:443") }},
		{"outside the lab", "neither loopback", func(c *load.Config) {
			c.Net = netip.MustParsePrefix("10.46.1.0/24")
			c.Hosts[0].Addr = netip.MustParseAddrPort("10.46.2.1:80")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good()
			tt.change(&c)
			var rec load.Recorder
			err := load.Run(t.Context(), c, &rec)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if requests, _ := rec.Count(); requests != 0 {
				t.Errorf("%d requests were sent", requests)
			}
		})
	}
}
