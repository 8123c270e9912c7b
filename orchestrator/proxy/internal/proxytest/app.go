// Package proxytest has what the tests of every proxy need: apps to switch
// between, clients that notice what is lost, and a host that counts what is
// asked of it and can be spoilt.
package proxytest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// nextPort keeps tests that run at the same time from each other's ports.
var nextPort atomic.Uint32

// Port returns one that is free and outside of the ephemeral range.
func Port(t testing.TB) uint16 {
	t.Helper()
	for range 2000 {
		p := uint16(10000 + (uint32(os.Getpid())*37+nextPort.Add(1))%20000)
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", p))
		if err == nil {
			_ = l.Close()
			return p
		}
	}
	t.Fatal("no free port")
	return 0
}

// Loopback is a port of 127.0.0.1.
func Loopback(p uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p)
}

// Member runs both slots of a member, a replica each.
func Member(t testing.TB, name string) proxy.Member {
	t.Helper()
	return proxy.Member{
		Name: name, Stable: Loopback(Port(t)),
		Blue:  []netip.AddrPort{Serve(t, name, "blue")},
		Green: []netip.AddrPort{Serve(t, name, "green")},
	}
}

// Serve runs a replica of a slot until the test ends.
func Serve(t testing.TB, member, slot string) netip.AddrPort {
	t.Helper()
	addr, s := ServeHTTP(t, member, slot)
	t.Cleanup(func() { _ = s.Close() })
	return addr
}

// ServeHTTP runs a replica that the test ends: / answers with its slot, /slow takes its time, /echo
// gives back what it reads as it comes, /headers what it was sent, and /accel
// tries to command the proxy.
func ServeHTTP(t testing.TB, member, slot string) (netip.AddrPort, *http.Server) {
	t.Helper()
	addr := Loopback(Port(t))
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("App", slot)
		w.Header().Set("Member", member)
		_, _ = io.WriteString(w, slot)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		for range 10 {
			time.Sleep(30 * time.Millisecond)
			_, _ = io.WriteString(w, slot+" ")
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = fmt.Fprint(w, n)
	})
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) { _ = r.Header.Write(w) })
	mux.HandleFunc("/accel", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Accel-Redirect", "/inside/of/the/site")
	})
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, Protocols: protocols}
	go func() { _ = s.Serve(l) }()
	return addr, s
}

// echo upgrades the connection and gives back every line, as a websocket would.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
		http.Error(w, "no upgrade", http.StatusBadRequest)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
	_ = rw.Flush()
	_, _ = io.Copy(conn, rw)
}

// Request asks with headers, given as name and value in turn, and reads all of
// the answer.
func Request(t testing.TB, url string, header ...string) (*http.Response, string) {
	t.Helper()
	return Send(t, http.MethodGet, url, http.NoBody, header...)
}

// Send is Request with a method and a body.
func Send(t testing.TB, method, url string, content io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, content)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// Get returns the body of the answer.
func Get(t testing.TB, url string) string {
	t.Helper()
	_, body := Request(t, url)
	return body
}

// All is the change that gives all members of l the same share.
func All(l proxy.Layout, share proxy.Share) proxy.Route {
	r := proxy.Route{}
	for _, m := range l.Members {
		r[m.Name] = share
	}
	return r
}
