package load_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/teal-deploy/teal/examples/internal/counter"
	"github.com/teal-deploy/teal/examples/lab/load"
)

// pages answers as the shop does, and counts requests and connections.
type pages struct {
	release           func(n int64) string
	requests, dialled atomic.Int64
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := p.requests.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	release := p.release(n)
	if release == "" {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Release", release)
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, receiptOf(release, body))
		return
	}
	fmt.Fprintf(w, "<body data-release=%q>", release)
}

// secure serves pages over TLS with HTTP/2 and returns where, and whom to trust.
func (p *pages) secure(t *testing.T, http2 bool) (load.Host, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(p)
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			p.dialled.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	h := host("127.0.0.1:1") // nobody is there: HTTP/2 goes to TLS
	h.TLS = netip.MustParseAddrPort(s.Listener.Addr().String())
	return h, roots
}

func TestHTTP2GoesToTLSOnOneConnection(t *testing.T) {
	p := &pages{release: func(int64) string { return "1" }}
	h, roots := p.secure(t, true)
	rep := run(t, load.Config{Hosts: []load.Host{h}, Roots: roots, Clients: map[load.Class]int{load.HTTP2: 2}, Requests: 40})
	if !rep.OK() || rep.Requests != 40 {
		t.Errorf("%d requests, %d failed: %v", rep.Requests, rep.Failed, rep.Failures)
	}
	if n := p.dialled.Load(); n != 2 {
		t.Errorf("%d connections, want one a client", n)
	}
}

func TestHTTP2IsNotRepeatedWhenTheOtherSideBreaksIt(t *testing.T) {
	p := &pages{release: func(n int64) string {
		if n%5 == 0 {
			return ""
		}
		return "1"
	}}
	h, roots := p.secure(t, true)
	rep := run(t, load.Config{Hosts: []load.Host{h}, Roots: roots, Clients: map[load.Class]int{load.HTTP2: 1}, Requests: 20})
	if rep.Failed != 4 || p.requests.Load() != 20 {
		t.Errorf("%d failed of %d that came in, want 4 of 20: %v", rep.Failed, p.requests.Load(), rep.Failures)
	}
}

func TestWrongSideIsFoundOverHTTP2(t *testing.T) {
	p := &pages{release: func(int64) string { return "1" }}
	h, roots := p.secure(t, true)
	var rec load.Recorder
	rec.Switched(load.Switch{Release: "2", Confirmed: time.Now()})
	err := load.Run(t.Context(), load.Config{
		Hosts: []load.Host{h}, Roots: roots, Clients: map[load.Class]int{load.HTTP2: 1}, Requests: 10, Duration: 10 * time.Second,
	}, &rec)
	if err != nil {
		t.Fatal(err)
	}
	if rep := rec.Report(); rep.WrongNew != 1 || rep.WrongReused != 9 || rep.Failed != 0 {
		t.Errorf("wrong side: %d on new, %d on kept connections, %d failed; want 1, 9, 0: %v", rep.WrongNew, rep.WrongReused, rep.Failed, rep.Failures)
	}
}

func TestTLSThatCannotBeTrustedIsAFailure(t *testing.T) {
	good := func(int64) string { return "1" }
	p, old := &pages{release: good}, &pages{release: good}
	h, _ := p.secure(t, true)
	without, roots := old.secure(t, false)
	tests := []struct {
		name, want string
		host       load.Host
		roots      *x509.CertPool
		class      load.Class
	}{
		{"an unknown certificate", "certificate", h, x509.NewCertPool(), load.HTTP2},
		{"an unknown certificate of gRPC", "certificate", h, x509.NewCertPool(), load.GRPC},
		{"no HTTP/2", "", without, roots, load.HTTP2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rep := run(t, load.Config{
				Hosts: []load.Host{tt.host}, Roots: tt.roots, Clients: map[load.Class]int{tt.class: 1}, Requests: 1,
			})
			if rep.Failed != 1 || !strings.Contains(rep.Failures[0].Text, tt.want) {
				t.Errorf("%d failed, want 1 with %q: %v", rep.Failed, tt.want, rep.Failures)
			}
		})
	}
	if p.requests.Load()+old.requests.Load() > 0 {
		t.Error("a request was sent to somebody who is not trusted")
	}
}

// A badCounter is wrong in one way.
type badCounter struct {
	counter.Server
	receipt string
	cups    []string
}

func (b badCounter) Order(context.Context, []byte) (string, error) { return b.receipt, nil }

func (b badCounter) Brew(_ context.Context, _ time.Duration, pour func(string) error) error {
	for _, cup := range b.cups {
		if err := pour(cup); err != nil {
			return err
		}
	}
	return nil
}

func TestEveryWayToFailOverGRPCIsCounted(t *testing.T) {
	full := strings.Split(strings.Repeat("1 ", counter.Cups), " ")[:counter.Cups]
	tests := []struct {
		name, want string
		class      load.Class
		server     badCounter
	}{
		{"a receipt that is none", "read the answer", load.GRPC, badCounter{receipt: "ok"}},
		{"a receipt for less", "as it was sent", load.GRPC, badCounter{receipt: receiptOf("1", []byte("less"))}},
		{"no cup", "not whole", load.GRPCStream, badCounter{}},
		{"a cup too few", "not whole", load.GRPCStream, badCounter{cups: full[1:]}},
		{"a cup of another release", "different releases", load.GRPCStream, badCounter{cups: append([]string{"2"}, full[1:]...)}},
		{"a cup of nobody", "which release", load.GRPCStream, badCounter{cups: append([]string{""}, full[1:]...)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := grpc.NewServer()
			counter.Register(s, tt.server)
			go func() { _ = s.Serve(l) }()
			t.Cleanup(s.Stop)
			rep := run(t, load.Config{
				Hosts: []load.Host{host(l.Addr().String())}, Clients: map[load.Class]int{tt.class: 1}, Requests: 2,
			})
			if rep.Failed != 2 || !strings.Contains(rep.Failures[0].Text, tt.want) {
				t.Errorf("%d failed, want 2 with %q: %v", rep.Failed, tt.want, rep.Failures)
			}
		})
	}
}

func TestEveryWayToFailOverLinesIsCounted(t *testing.T) {
	tests := []struct {
		name, want string
		class      load.Class
		answers    []string // to each line in turn; after the last the connection ends
	}{
		{"no answer", "EOF", load.TCP, nil},
		{"half an answer", "EOF", load.TCP, []string{"1 one"}},
		{"no release", "which release", load.TCP, []string{" one line\n"}},
		{"another text", "as it was sent", load.TCP, []string{"1 two lines\n"}},
		{"bye without an answer", "says bye", load.TCP, []string{"bye\n"}},
		{"bye before a session", "says bye", load.TCPSession, []string{"bye\n"}},
		{"a session that is cut", "EOF", load.TCPSession, []string{"1 line 0\n", "1 line 1\n"}},
		{"a session of two releases", "different releases", load.TCPSession, []string{"1 line 0\n", "2 line 1\n"}},
		{"a session that ends with bye", "", load.TCPSession, []string{"1 line 0\n", "1 line 1\nbye\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := listen(t, func(c net.Conn) {
				in := bufio.NewReader(c)
				for _, answer := range tt.answers {
					if _, err := in.ReadString('\n'); err != nil {
						return
					}
					if _, err := io.WriteString(c, answer); err != nil {
						return
					}
				}
				switch {
				case strings.HasSuffix(strings.Join(tt.answers, ""), "bye\n"):
					_, _ = io.Copy(io.Discard, in)
				case tt.class == load.TCPSession || tt.answers == nil:
					_, _ = in.ReadString('\n') // one more is read, and not answered
				}
			})
			rep := run(t, load.Config{
				Hosts: []load.Host{h}, Clients: map[load.Class]int{tt.class: 1}, Requests: 1, Transfer: 200 * time.Millisecond,
			})
			if tt.want == "" {
				if rep.Requests != 1 || rep.Failed != 0 {
					t.Errorf("%d of %d failed, want none: %v", rep.Failed, rep.Requests, rep.Failures)
				}
				return
			}
			if rep.Failed != 1 || !strings.Contains(rep.Failures[0].Text, tt.want) {
				t.Errorf("%d failed, want 1 with %q: %v", rep.Failed, tt.want, rep.Failures)
			}
		})
	}
}

// receiptOf is what the shop answers to an order.
func receiptOf(release string, body []byte) string {
	sum := sha256.Sum256(body)
	return fmt.Sprintf(`{"release":%q,"bytes":%d,"sha256":"%x"}`, release, len(body), sum)
}
