package nginx

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
	"github.com/teal-deploy/teal/plugins"
)

// serveGRPC runs an app that speaks HTTP/2 without TLS: it sends each message
// back as it comes, and its slot in a trailer.
func serveGRPC(t testing.TB, slot string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", proxytest.Loopback(proxytest.Port(t)).String())
	if err != nil {
		t.Fatal(err)
	}
	var speaks http.Protocols
	speaks.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: &speaks, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, App")
		w.WriteHeader(http.StatusOK)
		out := http.NewResponseController(w)
		_ = out.Flush()
		for {
			msg, err := readMessage(r.Body)
			if err != nil {
				break
			}
			_, _ = w.Write(message(msg))
			_ = out.Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("App", slot)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return netip.MustParseAddrPort(l.Addr().String())
}

// message frames a message as gRPC does.
func message(text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

func readMessage(r io.Reader) (string, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r, b)
	return string(b), err
}

func grpcClient() *http.Client {
	var speaks http.Protocols
	speaks.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: &speaks}}
}

// call sends one message and returns the slot that sent it back.
func call(ctx context.Context, c *http.Client, url, text string) (slot string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/echo.Echo/One", bytes.NewReader(message(text)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return "", err
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("status %s: %s", resp.Status, b)
	case !bytes.Equal(b, message(text)) || resp.Trailer.Get("Grpc-Status") != "0":
		return "", fmt.Errorf("answer %.40q, trailer %v", b, resp.Trailer)
	}
	return resp.Trailer.Get("App"), nil
}

// A stream is a call that goes on.
type stream struct {
	in   *io.PipeWriter
	resp *http.Response
}

func open(ctx context.Context, c *http.Client, url string) (*stream, error) {
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/echo.Echo/Many", r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return &stream{w, resp}, nil
}

func (s *stream) say(text string) error {
	if _, err := s.in.Write(message(text)); err != nil {
		return err
	}
	got, err := readMessage(s.resp.Body)
	if err == nil && got != text {
		err = fmt.Errorf("said %q, heard %q", text, got)
	}
	return err
}

// end closes the stream and returns the slot that it was with.
func (s *stream) end() (slot string, err error) {
	_ = s.in.Close()
	if _, err := io.Copy(io.Discard, s.resp.Body); err != nil {
		return "", err
	}
	if s.resp.Trailer.Get("Grpc-Status") != "0" {
		return "", fmt.Errorf("trailer %v", s.resp.Trailer)
	}
	return s.resp.Trailer.Get("App"), s.resp.Body.Close()
}

func grpcFleet(t testing.TB, n int) proxy.Layout {
	t.Helper()
	l := fleet(t, "rpc", n)
	l.Protocol = proxy.GRPC
	for i := range l.Members {
		l.Members[i].Blue = []netip.AddrPort{serveGRPC(t, "blue")}
		l.Members[i].Green = []netip.AddrPort{serveGRPC(t, "green")}
	}
	return l
}

func TestAppThatSpeaksGRPC(t *testing.T) {
	t.Parallel()
	d, l := start(t), grpcFleet(t, 2)
	l.Members[1].Green = nobody(t)
	at := proxytest.Port(t)
	usage := new(Proxy).Usage(l)
	d.write("sites-enabled/rpc", fmt.Sprintf("server {\n listen 127.0.0.1:%d http2;\n%s}\n", at, usage))
	site := fmt.Sprintf("http://127.0.0.1:%d", at)
	prepare(t, d, l, true)
	prepare(t, d, l, false)
	if warnings, err := d.proxy().Check(t.Context(), host(), l); err != nil || len(warnings) > 0 {
		t.Errorf("%q, %v", warnings, err)
	}
	c := grpcClient()

	t.Run("is unavailable while all are off", func(t *testing.T) {
		if _, err := call(t.Context(), c, site, "x"); err == nil || !strings.Contains(err.Error(), "status 503") {
			t.Error(err)
		}
	})
	t.Run("switches, with streams that stay where they are", func(t *testing.T) {
		switchTo(t.Context(), t, d, l, proxy.Blue)
		if diff := cmp.Diff(serving(proxytest.All(l, 0)), observe(t, d, l)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		s, err := open(t.Context(), c, site)
		if err != nil {
			t.Fatal(err)
		}
		for i, slot := range []proxy.Slot{proxy.Green, proxy.Blue, proxy.Green} {
			switchTo(t.Context(), t, d, l, slot)
			// Nobody listens at web2's green, and a call is a POST: it moves on.
			for range 10 {
				if got, err := call(t.Context(), c, site, strings.Repeat("y", 200<<10)); err != nil || got != string(slot) {
					t.Fatalf("%q, %v", got, err)
				}
			}
			if err := s.say(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if slot, err := s.end(); err != nil || slot != "blue" {
			t.Errorf("the stream was with %q, %v", slot, err)
		}
	})
	t.Run("one that is off leads to the other", func(t *testing.T) {
		change(t.Context(), t, d, l, proxy.Route{"web1": 0, "web2": proxy.Off})
		for range 10 {
			if got, err := call(t.Context(), c, "http://"+l.Members[1].Stable.String(), "z"); err != nil || got != "blue" {
				t.Errorf("%q, %v", got, err)
			}
		}
	})
	t.Run("loses no call in a storm of switches", func(t *testing.T) {
		l.Members[1].Green = []netip.AddrPort{serveGRPC(t, "green")}
		prepare(t, d, l, true)
		grpcStorm(t, d, l, site)
	})
}

func grpcStorm(t *testing.T, d *daemon, l proxy.Layout, site string) {
	switchTo(t.Context(), t, d, l, proxy.Blue)
	var calls atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			c := grpcClient()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := oneOrMany(t.Context(), c, site, i%2 == 0); err != nil {
					t.Errorf("client %d, call %d: %v", i, n, err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for i := range 20 {
		switchTo(t.Context(), t, d, l, []proxy.Slot{proxy.Green, proxy.Blue}[i%2])
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d calls", calls.Load())
}

// oneOrMany makes a call, or one of several messages that takes its time.
func oneOrMany(ctx context.Context, c *http.Client, site string, one bool) error {
	if one {
		_, err := call(ctx, c, site, "hello")
		time.Sleep(2 * time.Millisecond)
		return err
	}
	s, err := open(ctx, c, site)
	if err != nil {
		return err
	}
	for i := range 5 {
		if err := s.say(fmt.Sprint(i)); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, err = s.end()
	return err
}

func TestReloadLosesNoCall(t *testing.T) {
	t.Parallel()
	d, l := start(t), grpcFleet(t, 1)
	site := proxytest.Loopback(proxytest.Port(t))
	l.Site = &proxy.Site{Listen: []netip.AddrPort{site}, Names: []string{"rpc"}}
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Blue)
	stop := make(chan struct{})
	var calls atomic.Int64
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			c := grpcClient()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := oneOrMany(t.Context(), c, "http://"+site.String(), i%2 == 0); err != nil {
					t.Errorf("call %d: %v", calls.Load(), err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for range 2 {
		l.Members[0].Green = append(l.Members[0].Green, serveGRPC(t, "green"))
		prepare(t, d, l, true)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d calls", calls.Load())
}

func TestProtocolsThatNginxCannotSwitch(t *testing.T) {
	l := layout()
	l.Protocol = proxy.TCP
	for name, err := range map[string]error{
		"Check":   func() error { _, err := new(Proxy).Check(t.Context(), host(), l); return err }(),
		"Prepare": func() error { _, err := new(Proxy).Prepare(t.Context(), host(), l); return err }(),
		"Observe": func() error { _, err := new(Proxy).Observe(t.Context(), host(), l); return err }(),
		"Switch":  new(Proxy).Switch(t.Context(), host(), l, green, nil),
	} {
		if plugins.KindOf(err) != plugins.Unsupported || !strings.Contains(err.Error(), "use haproxy") {
			t.Errorf("%s: kind %q, %v", name, plugins.KindOf(err), err)
		}
	}
	l.Protocol = proxy.GRPC
	for build, says := range map[string]string{
		"nginx version: nginx/1.22.1\nconfigure arguments: --with-http_v2_module":                            "",
		"nginx version: nginx/1.22.1\nconfigure arguments: --with-http_ssl_module":                           "without HTTP/2",
		"nginx version: nginx/1.22.1\nconfigure arguments: --with-http_v2_module --without-http_grpc_module": "without gRPC",
		"nginx version: nginx/1.17.7\nconfigure arguments: --with-http_v2_module":                            "1.17.8 is needed",
		"nginx version: nginx\n": "",
	} {
		s := survey{build: build, good: true, place: "/etc/nginx/conf.d/teal-shop.conf"}
		err := s.refuse(host(), l)
		if (err == nil) != (says == "") || err != nil && (plugins.KindOf(err) != plugins.Unsupported || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", build, err)
		}
	}
}
