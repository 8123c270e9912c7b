// Command app is the shop that the examples deploy: a web application of which
// every answer says which release gave it. It reads its release from the
// folder that the install step prepares, and without that it runs and answers
// 503. On SIGTERM it stops listening, finishes the requests that it has, and
// closes websockets with a close frame, as an application that is deployed
// without a lost request has to.
//
// What it speaks is up to the environment variable SHOP_PROTOCOL: http, which
// is the default; grpc, which adds the gRPC service of the counter; or tcp, a
// protocol of lines.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stderr))
}

// run serves until a SIGTERM, or until ctx ends, which means the same.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("shop", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "/srv/app", "folder of the installed code")
	listen := flags.String("listen", ":8080", "address to listen on")
	protocol := flags.String("protocol", cmp.Or(os.Getenv("SHOP_PROTOCOL"), protocolHTTP), "http, grpc or tcp")
	if flags.Parse(args) != nil {
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	r, err := loadRelease(*dir)
	if err != nil && !errors.Is(err, errNotInstalled) {
		log.Error("cannot load the release", "error", err)
		return 1
	}
	s := newStore(r, log)
	server, err := s.server(*protocol)
	if err != nil {
		log.Error("cannot serve", "error", err)
		return 2
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		log.Error("cannot listen", "error", err)
		return 1
	}
	if r == nil {
		log.Warn("waiting for the installation, and for a restart after it")
	} else {
		log.Info("serving", "release", r.Name, "build", r.Build, "address", l.Addr().String())
	}
	if err := s.serve(ctx, l, server); err != nil {
		log.Error("stopped", "error", err)
		return 1
	}
	log.Info("stopped: all requests are answered")
	return 0
}

// The protocols of the shop.
const (
	protocolHTTP = "http"
	protocolGRPC = "grpc"
	protocolTCP  = "tcp"
)

// A server answers on a listener until it is told to finish what it has.
type server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

// server returns the one for a protocol.
func (s *store) server(protocol string) (server, error) {
	web := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	switch protocol {
	case protocolHTTP:
		return web, nil
	case protocolGRPC:
		web.Protocols = new(http.Protocols)
		web.Protocols.SetHTTP1(true)
		web.Protocols.SetUnencryptedHTTP2(true)
		web.Handler = s.withGRPC(web.Handler)
		return web, nil
	case protocolTCP:
		return &lines{store: s}, nil
	}
	return nil, fmt.Errorf("unknown protocol %q", protocol)
}

// serve answers requests until it is told to stop, and returns when the last
// one is answered. How long that may take is up to whoever stops it.
func (s *store) serve(ctx context.Context, l net.Listener, server server) error {
	var m mode
	if s.release != nil {
		m = s.release.mode
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(stop)
	var dies <-chan time.Time
	if m.Fault == faultDies {
		dies = time.After(m.After)
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	for {
		select {
		case err := <-failed:
			return err
		case <-dies:
			return fmt.Errorf("mode %s", m.Fault)
		case <-ctx.Done():
		case <-stop:
			if m.Fault == faultStubborn {
				continue
			}
		}
		// Whoever stopped the shop waits as long as he wants to, then kills.
		rest := context.WithoutCancel(ctx)
		var sockets sync.WaitGroup
		sockets.Go(func() { s.closeSockets(rest) })
		err := server.Shutdown(rest)
		sockets.Wait()
		return err
	}
}
