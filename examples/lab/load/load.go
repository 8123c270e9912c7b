package load

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Class is a kind of client.
type Class string

// The classes of clients.
const (
	KeepAlive Class = "get"       // GETs on a connection that is kept
	Post      Class = "post"      // POSTs on a connection that is kept
	Fresh     Class = "fresh"     // a connection for each GET
	Download  Class = "download"  // an answer of 1 MiB that takes its time
	Upload    Class = "upload"    // a body that takes its time
	WebSocket Class = "websocket" // a socket with an echo every now and then

	HTTP2 Class = "h2" // GETs and POSTs in turn on one connection of HTTP/2

	GRPC       Class = "grpc"        // calls on one connection
	GRPCStream Class = "grpc-stream" // a call with a stream of answers that takes its time

	// For an app that speaks lines; a connection, not a line, is what a proxy
	// directs, so a connection is what counts.
	TCP        Class = "tcp"         // a connection for each line
	TCPSession Class = "tcp-session" // a connection with a line every now and then
)

// Classes returns all classes, in the order of reports.
func Classes() []Class {
	return []Class{
		KeepAlive, Post, Fresh, Download, Upload, WebSocket,
		HTTP2, GRPC, GRPCStream, TCP, TCPSession,
	}
}

// multiplexed reports whether the class speaks HTTP/2, and so goes to the
// listener with TLS where there is one.
func (c Class) multiplexed() bool { return c == HTTP2 || c == GRPC || c == GRPCStream }

// Limits of a run; more is refused.
const (
	maxClients  = 500
	maxDuration = time.Hour
	minPause    = time.Millisecond
	// answerTimeout is how long an answer may take beyond what a class asks for.
	answerTimeout = 30 * time.Second
)

// A Host is where requests go: a server with a proxy of its own, or a load
// balancer behind which several serve.
type Host struct {
	Name string
	Addr netip.AddrPort // of the public listener

	// TLS is the public listener with TLS, where clients of HTTP/2 and gRPC go.
	// Without one they go to Addr, and speak HTTP/2 without TLS.
	TLS netip.AddrPort
}

// A Config says what to send.
type Config struct {
	Hosts   []Host
	Net     netip.Prefix   // the only network, besides loopback, that hosts may be in
	Clients map[Class]int  // for each host
	Roots   *x509.CertPool // of the hosts' certificates; nil: the machine's own

	// Pause is between two requests of a client, at least a millisecond; it
	// varies by half. Default: 10 ms. With the clients it bounds the rate.
	Pause time.Duration

	// Transfer is how long a download, an upload and a socket last. Default: 4 s.
	Transfer time.Duration

	Duration time.Duration // of the whole run, at most an hour; required
	Requests int           // 0: no limit but the time
}

// Mix returns clients of all classes, a few of each, as a busy site has them.
func Mix() map[Class]int {
	return map[Class]int{KeepAlive: 6, Post: 6, Fresh: 3, Download: 2, Upload: 2, WebSocket: 2}
}

// MixGRPC returns clients of the classes that speak gRPC.
func MixGRPC() map[Class]int { return map[Class]int{GRPC: 6, GRPCStream: 3} }

// MixTCP returns clients of the classes that speak lines.
func MixTCP() map[Class]int { return map[Class]int{TCP: 4, TCPSession: 4} }

// Run sends requests until the configured time or number is over or ctx ends.
// Requests that are open then are brought to their end. What became of them is
// in rec; an error says only that the configuration is refused.
func Run(ctx context.Context, c Config, rec *Recorder) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("run load: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Duration)
	defer cancel()
	r := &run{Config: c, rec: rec}
	r.left.Store(int64(c.Requests))
	var clients sync.WaitGroup
	for _, h := range c.Hosts {
		for class, n := range c.Clients {
			for range n {
				clients.Go(func() { r.client(ctx, h, class) })
			}
		}
	}
	clients.Wait()
	return nil
}

func (c *Config) check() error {
	if c.Pause == 0 {
		c.Pause = 10 * time.Millisecond
	}
	if c.Transfer == 0 {
		c.Transfer = 4 * time.Second
	}
	clients := 0
	for class, n := range c.Clients {
		if _, err := exchangeOf(class); err != nil {
			return err
		}
		if n < 0 {
			return fmt.Errorf("%d clients of class %s", n, class)
		}
		clients += n * len(c.Hosts)
	}
	switch {
	case clients == 0:
		return errors.New("no clients or no hosts")
	case clients > maxClients:
		return fmt.Errorf("%d clients: at most %d are allowed", clients, maxClients)
	case c.Duration <= 0 || c.Duration > maxDuration:
		return fmt.Errorf("a duration of %s: more than 0 and at most %s is allowed", c.Duration, maxDuration)
	case c.Pause < minPause:
		return fmt.Errorf("a pause of %s: at least %s is required", c.Pause, minPause)
	case c.Transfer < 0 || c.Transfer > maxDuration:
		return fmt.Errorf("a transfer of %s: at most %s is allowed", c.Transfer, maxDuration)
	case c.Requests < 0:
		return fmt.Errorf("%d requests", c.Requests)
	}
	for _, h := range c.Hosts {
		for _, a := range []netip.AddrPort{h.Addr, h.TLS} {
			if a.IsValid() && !a.Addr().IsLoopback() && !c.Net.Contains(a.Addr()) {
				return fmt.Errorf("host %s: %s is neither loopback nor in the lab's network", h.Name, a)
			}
		}
	}
	return nil
}

// run is one call of Run.
type run struct {
	Config
	rec  *Recorder
	left atomic.Int64 // requests to go, when Requests is set
}

// client sends requests of one class, one after the other.
func (r *run) client(ctx context.Context, h Host, class Class) {
	do, err := exchangeOf(class)
	if err != nil {
		return // check has seen to that
	}
	c := &client{host: h, class: class, transfer: r.Transfer, roots: r.Roots}
	defer c.close()
	for r.pause(ctx) {
		if r.Requests > 0 && r.left.Add(-1) < 0 {
			return
		}
		r.rec.add(c.exchange(ctx, do))
	}
}

// pause waits between two requests; it returns false when there is to be no
// other. Clients drift apart, so that they do not knock in step.
func (r *run) pause(ctx context.Context) bool {
	jitter := time.Duration(rand.Int64N(int64(r.Pause)))
	t := time.NewTimer(r.Pause/2 + jitter)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
