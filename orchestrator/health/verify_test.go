package health_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/health"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// dialed is a host that notes where a connection was asked for and makes it to
// addr instead.
type dialed struct {
	plugins.Host
	addr string
	got  *atomic.Value // a string
}

func (d dialed) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.got.Store(address)
	return d.Host.DialContext(ctx, network, d.addr)
}

func TestVerifyAsksTheHostsOwnListener(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example.com" && !strings.HasPrefix(r.Host, "192.0.2.7") {
			w.WriteHeader(http.StatusMisdirectedRequest)
		}
		_, _ = w.Write([]byte("release 2"))
	}))
	t.Cleanup(server.Close)
	for _, tt := range []struct{ url, body, dialed, err string }{
		{"http://shop.example.com/up", "release 2", "127.0.0.1:80", ""},
		{"http://192.0.2.7:8080/up", "", "192.0.2.7:8080", ""},
		{"http://other.example.com/up", "", "127.0.0.1:80", "verify http://other.example.com/up: status 421, want 200"},
		{"http://shop.example.com/up", "release 3", "127.0.0.1:80", `lacks "release 3"; body: "release 2"`},
	} {
		t.Run(tt.url+" "+tt.body, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && tt.err != "" {
				t.Skip("a wrong answer is tried for ten seconds")
			}
			var got atomic.Value
			h := dialed{plugintest.Local("web1"), server.Listener.Addr().String(), &got}
			err := health.Verify(t.Context(), h, spec.Verify{HTTP: tt.url, Status: []int{200}, Body: tt.body})
			if got.Load() != tt.dialed {
				t.Errorf("dialed %v, want %s", got.Load(), tt.dialed)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("err = %v, want %q", err, tt.err)
			}
		})
	}
}
