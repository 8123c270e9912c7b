package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestIsLoopback(t *testing.T) {
	for domain, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.4.5.6:5000": true, "localhost:5000": true, "[::1]:5000": true,
		"localhost": false, "127.0.0.1": false, "10.0.0.1:5000": false, "registry.example.com:5000": false, "docker.io": false,
	} {
		if got := isLoopback(domain); got != want {
			t.Errorf("%s: %v", domain, got)
		}
	}
}

// An answering host has an engine that answers pulls of Podman's own.
type answering struct {
	plugins.Host
	address string
}

func (a answering) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", a.address)
}

func TestPlainPullReadsWhatTheEngineSays(t *testing.T) {
	const image = "127.0.0.1:5000/shop:1"
	for _, tt := range []struct {
		name   string
		status int
		answer string
		kind   plugins.Kind
		says   string
	}{
		{"good", 200, `{"stream":"Copying blob sha256:1\n"}{"stream":"Copying blob sha256:2\n"}{"id":"1","images":["1"]}`, "", ""},
		{"an error in the stream", 200, `{"stream":"Trying\n"}{"error":"initializing source: manifest unknown"}`, plugins.NotFound, "manifest unknown"},
		{"a refusal", 401, `{"cause":"x","message":"unauthorized: who are you?","response":401}`, plugins.Denied, "who are you?"},
		{"a refusal without words", 502, ``, plugins.Unavailable, "502 Bad Gateway"},
		{"half an answer", 200, `{"stream":`, plugins.Lost, "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked *http.Request
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.URL.Path, "/libpod/") {
					w.Header().Set("Api-Version", "1.41")
					return
				}
				asked = r
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.answer)
			}))
			defer server.Close()
			e := &Engine{Name: "podman", Sockets: []string{"/s"}, PullsPlain: true}
			s, err := e.open(t.Context(), answering{plugintest.Local("web1"), server.Listener.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			name, _, err := e.parseImage(image)
			if err != nil {
				t.Fatal(err)
			}
			var lines strings.Builder
			_, err = s.pull(t.Context(), name, plugins.PullRequest{Image: image, Auth: &plugins.Auth{Username: "a", Password: "b"}, Progress: &lines})
			if plugins.KindOf(err) != tt.kind || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v of kind %q", err, plugins.KindOf(err))
			}
			if q := asked.URL.Query(); q.Get("reference") != image || q.Get("tlsVerify") != "false" || asked.Header.Get("X-Registry-Auth") == "" {
				t.Errorf("it was asked %s with %v", asked.URL, asked.Header)
			}
			if tt.kind == "" && lines.String() != "2 of 2 layers\n" {
				t.Errorf("progress is %q", lines.String())
			}
		})
	}
}

func TestPlainPullEndsWithItsContext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/libpod/") {
			<-r.Context().Done()
		}
	}))
	defer server.Close()
	e := &Engine{Name: "podman", Sockets: []string{"/s"}, PullsPlain: true}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	s, err := e.open(ctx, answering{plugintest.Local("web1"), server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	name, _, err := e.parseImage("localhost:5000/shop:1")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.pull(ctx, name, plugins.PullRequest{Image: name.String()})
		ended <- err
	}()
	cancel(stop)
	if err := <-ended; !errors.Is(err, stop) {
		t.Errorf("it ended with %v", err)
	}
}
