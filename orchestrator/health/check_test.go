package health_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/teal-deploy/teal/orchestrator/health"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// once is a test that one good round passes. It has patience: a check is not
// to fail because the machine is busy.
func once(checks ...spec.Check) spec.Test {
	return spec.Test{Within: time.Minute, Interval: time.Second, Timeout: 20 * time.Second, Successes: 1, Checks: checks}
}

// round makes a single round of a test and returns which check failed and why,
// in a line; "" when all passed.
func round(t *testing.T, s health.Subject, test spec.Test) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := ""
	err := health.Wait(ctx, s, test, func(line string) {
		said = line
		cancel()
	})
	if e := new(health.Error); errors.As(err, &e) { // another round would not help
		return e.Check + ": " + e.Reason
	}
	if (err == nil) != (said == "") {
		t.Errorf("it said %q and returned %v", said, err)
	}
	return said
}

// roundOf is round for a single check, and returns only why it failed.
func roundOf(t *testing.T, s health.Subject, check spec.Check) string {
	t.Helper()
	_, why, _ := strings.Cut(round(t, s, once(check)), ": ")
	return why
}

// at is a subject that listens at addr on loopback.
func at(addr string) health.Subject {
	s := new(app).subject()
	s.Address = netip.MustParseAddrPort(addr)
	return s
}

func serve(t *testing.T) health.Subject {
	mux := http.NewServeMux()
	mux.HandleFunc("/up", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("all is ok\n")) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/up", http.StatusFound) })
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("no \x1b[31mdatabase\x07\nhunter2 " + strings.Repeat("x", 300)))
	})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Host + " " + r.Header.Get("X-Check") + " " + r.UserAgent()))
	})
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("token") != "a b" {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	mux.HandleFunc("/far", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat(" ", 64<<10) + "ok"))
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("data: begin\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/drop", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return at(server.Listener.Addr().String())
}

func TestHTTPCheck(t *testing.T) {
	s := serve(t)
	s.Redact = func(text string) string { return strings.ReplaceAll(text, "hunter2", "[redacted]") }
	tests := []struct {
		name  string
		check spec.Check
		want  string // reason, "" when it passes
	}{
		{"2xx passes", spec.Check{HTTP: "/up"}, ""},
		{"body is contained", spec.Check{HTTP: "/up", Body: "is ok"}, ""},
		{"body is missing", spec.Check{HTTP: "/up", Body: "fine"}, `status 200, but the body lacks "fine"; body: "all is ok"`},
		{"a redirect is not followed", spec.Check{HTTP: "/moved"}, `status 302, want 200 to 299; body: "<a href=\"/up\">Found</a>."`},
		{"a redirect may be wanted", spec.Check{HTTP: "/moved", Status: []int{301, 302}}, ""},
		{"an error may be wanted", spec.Check{HTTP: "/empty", Status: []int{404}}, ""},
		{"only listed statuses pass", spec.Check{HTTP: "/up", Status: []int{204, 206}}, `status 200, want 204 or 206; body: "all is ok"`},
		{"an empty body is not shown", spec.Check{HTTP: "/empty"}, "status 404, want 200 to 299"},
		{
			"the body is redacted, then shortened, and cannot steer a terminal",
			spec.Check{HTTP: "/busy"},
			`status 503, want 200 to 299; body: "no \x1b[31mdatabase\a [redacted] ` + strings.Repeat("x", 91) + `…"`,
		},
		{
			"host and headers are sent",
			spec.Check{HTTP: "/who", Host: "shop.example.com", Headers: map[string]string{"x-check": "1"}, Body: "shop.example.com 1 teal"},
			"",
		},
		{"a user agent may be given", spec.Check{HTTP: "/who", Headers: map[string]string{"User-Agent": "me"}, Body: " me"}, ""},
		{"a host header in the list counts", spec.Check{HTTP: "/who", Headers: map[string]string{"host": "a.example"}, Body: "a.example"}, ""},
		{"a query is sent", spec.Check{HTTP: "/query?token=a+b"}, ""},
		{"a body counts up to 64 KiB", spec.Check{HTTP: "/far", Body: "ok"}, `status 200, but the body lacks "ok"`},
		{"a stream passes by its status", spec.Check{HTTP: "/stream"}, ""},
		{"a dropped connection is named", spec.Check{HTTP: "/drop"}, "the connection was closed without an answer: EOF"},
		{"a path that is none", spec.Check{HTTP: "/%zz"}, `parse "http://` + s.Address.String() + `/%zz": invalid URL escape "%zz"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, roundOf(t, s, tt.check)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("no answer is a timeout", func(t *testing.T) {
		test := once(spec.Check{HTTP: "/hang"})
		test.Timeout = 300 * time.Millisecond
		if got, want := round(t, s, test), "GET /hang: no answer within 300ms"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestHTTPCheckNameHidesTheQuery(t *testing.T) {
	got := round(t, serve(t), once(spec.Check{HTTP: "/query?token=hunter2"}))
	if !strings.HasPrefix(got, "GET /query: status 403") || strings.Contains(got, "hunter2") {
		t.Error(got)
	}
}

func TestHTTPCheckIgnoresAProxySetting(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	if err := health.Wait(t.Context(), serve(t), once(spec.Check{HTTP: "/up"}), nil); err != nil {
		t.Error(err)
	}
}

// listen accepts connections and hands each to answer.
func listen(t *testing.T, answer func(net.Conn)) string {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answer(c)
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return l.Addr().String()
}

func TestTCPCheck(t *testing.T) {
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	_ = free.Close()
	gone := make(chan struct{}, 1)
	hangUp := func(c net.Conn) {
		_ = c.Close()
		gone <- struct{}{}
	}
	tests := []struct {
		name, addr, want string
		hangsUp          bool
	}{
		{"a connection that stays open passes", listen(t, func(net.Conn) {}), "", false},
		{"a greeting passes", listen(t, func(c net.Conn) { _, _ = c.Write([]byte("220 hello\r\n")) }), "", false},
		{
			"accepted and closed at once fails, as a port forwarder does for nobody", listen(t, hangUp),
			"the connection was closed at once, the app does not listen: EOF", true,
		},
		{
			"reset at once fails", listen(t, func(c net.Conn) {
				_ = c.(*net.TCPConn).SetLinger(0)
				hangUp(c)
			}),
			"the connection was closed at once, the app does not listen", true,
		},
		{"refused fails", closed, "connection refused", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := at(tt.addr)
			if tt.hangsUp {
				s.Host = lateHost{s.Host, gone}
			}
			got := roundOf(t, s, spec.Check{TCP: 8080})
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A lateHost hands out a connection when its other end has hung up: how long
// that takes is a matter of the machine.
type lateHost struct {
	plugins.Host
	gone <-chan struct{}
}

func (h lateHost) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := h.Host.DialContext(ctx, network, address)
	if err == nil {
		<-h.gone
	}
	return c, err
}

func TestEveryCheckMustPassInOneRound(t *testing.T) {
	s := serve(t)
	a := new(app)
	sub := a.subject()
	s.Exec = sub.Exec
	checks := []spec.Check{{HTTP: "/up"}, {TCP: 80}, {HTTP: "/busy", Status: []int{200}}, {Exec: []string{"never"}}}
	if got := round(t, s, once(checks...)); !strings.HasPrefix(got, "GET /busy: status 503") {
		t.Error(got)
	}
	if a.execs != 0 {
		t.Error("checks after the failed one were made")
	}
}

func TestExecCheckEndsWithItsTimeout(t *testing.T) {
	s := new(app).subject()
	s.Exec = func(ctx context.Context, argv []string) error {
		return s.Host.Run(ctx, &plugins.Command{Args: argv})
	}
	test := once(spec.Check{Exec: []string{"sleep", "20"}})
	test.Timeout = 300 * time.Millisecond
	start := time.Now()
	if got, want := round(t, s, test), "exec sleep: no answer within 300ms"; got != want || time.Since(start) > 3*time.Second {
		t.Errorf("got %q after %s, want %q", got, time.Since(start), want)
	}
	if got := roundOf(t, s, spec.Check{Exec: []string{"true"}}); got != "" {
		t.Error(got)
	}
	got := roundOf(t, s, spec.Check{Exec: []string{"sh", "-c", "echo 'it is hunter2' >&2; exit 9"}})
	if want := `exited with code 9: "it is hunter2"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLostConnectionInsideARequestIsNotAFailure(t *testing.T) {
	s := at("127.0.0.1:80")
	s.Host = lostHost{plugintest.Local("web1")}
	for _, check := range []spec.Check{{HTTP: "/up"}, {TCP: 80}} {
		err := health.Wait(t.Context(), s, once(check), nil)
		if !errors.Is(err, plugins.Lost) {
			t.Errorf("got %v, want it to be Lost", err)
		}
	}
	_ = health.Watch(t.Context(), s, once(spec.Check{TCP: 80}))
}

var _ plugins.Host = lostHost{}

type lostHost struct{ plugins.Host }

func (lostHost) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, &plugins.Error{Host: "web1", Op: "dial", Kind: plugins.Lost, Err: errors.New("the connection is lost")}
}
