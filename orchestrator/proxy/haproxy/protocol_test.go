package haproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
)

// greet speaks first, as mail and databases do, then gives back each line.
func greet(t testing.TB, slot string) netip.AddrPort {
	t.Helper()
	addr := proxytest.Loopback(proxytest.Port(t))
	l, err := net.Listen("tcp", addr.String())
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
				_, _ = fmt.Fprintln(c, slot)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return addr
}

func TestTCPConnectionsAreRouted(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := layout(t, d)
	l.Protocol = proxy.TCP
	for _, name := range []string{"db1", "db2"} {
		l.Members = append(l.Members, proxy.Member{
			Name: name, Stable: proxytest.Loopback(proxytest.Port(t)),
			Blue: []netip.AddrPort{greet(t, name+" blue")}, Green: []netip.AddrPort{greet(t, name+" green")},
		})
	}
	site := proxytest.Port(t)
	d.write("haproxy.cfg", d.file("haproxy.cfg")+frontend(site, "shop")+"    mode tcp\n")
	prepare(t, d, l, true)
	prepare(t, d, l, false)
	greeting := func(addr string) (string, net.Conn, *bufio.Reader) {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		r := bufio.NewReader(c)
		line, _ := r.ReadString('\n')
		return line, c, r
	}
	public, first := proxytest.Loopback(site).String(), l.Members[0].Stable.String()
	if got, _, _ := greeting(first); got != "" {
		t.Errorf("all off: %q", got)
	}
	change(t.Context(), t, d, l, proxy.Route{"db2": 0})
	got, tunnel, r := greeting(first)
	if got != "db2 blue\n" {
		t.Errorf("by way of a member that is off: %q", got)
	}
	change(t.Context(), t, d, l, proxy.Route{"db1": 100, "db2": 100})
	observed(t, d, l, proxytest.All(l, 100))
	seen := map[string]bool{}
	for range 6 {
		got, _, _ := greeting(public)
		seen[got] = true
	}
	if len(seen) != 2 || !seen["db1 green\n"] || !seen["db2 green\n"] {
		t.Errorf("seen %v", seen)
	}
	_, _ = fmt.Fprintln(tunnel, "still here")
	if line, err := r.ReadString('\n'); line != "still here\n" {
		t.Errorf("the former connection: %q, %v", line, err)
	}
	if o := observe(t, d, l); o.Open["db2"][proxy.Blue] != 1 {
		t.Errorf("open %v", o.Open)
	}
}

func TestGRPCIsSpokenOnBothSides(t *testing.T) {
	t.Parallel()
	d := start(t)
	l := layout(t, d, "web1", "web2")
	l.Protocol = proxy.GRPC
	l.Up = &proxy.Up{Path: "/"}
	site := proxytest.Port(t)
	d.write("haproxy.cfg", d.file("haproxy.cfg")+frontend(site, "shop"))
	prepare(t, d, l, true)
	switchTo(t.Context(), t, d, l, proxy.Green)
	observed(t, d, l, proxytest.All(l, 100))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	feed, body := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/", site), feed)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 3 {
			_, _ = io.WriteString(body, "message")
			time.Sleep(20 * time.Millisecond)
		}
		_ = body.Close()
	}()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, _ := io.ReadAll(resp.Body); resp.ProtoMajor != 2 || string(got) != "green" {
		t.Errorf("%s %s %q", resp.Proto, resp.Status, got)
	}
}
