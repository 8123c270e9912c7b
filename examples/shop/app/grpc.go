package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/teal-deploy/teal/examples/internal/counter"
)

// withGRPC serves the counter besides the routes, on the same port: HTTP/2
// without TLS for gRPC, and still HTTP/1.1 for whoever asks for /up.
func (s *store) withGRPC(routes http.Handler) http.Handler {
	calls := grpc.NewServer()
	counter.Register(calls, s)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			calls.ServeHTTP(w, r)
			return
		}
		routes.ServeHTTP(w, r)
	})
}

// Order is a call.
func (s *store) Order(_ context.Context, order []byte) (string, error) {
	if s.release == nil {
		return "", status.Error(codes.Unavailable, errNotInstalled.Error())
	}
	receipt, err := s.receipt(strings.NewReader(string(order)))
	return string(receipt), err
}

// Brew is a call with a stream of answers.
func (s *store) Brew(ctx context.Context, over time.Duration, pour func(string) error) error {
	switch {
	case s.release == nil:
		return status.Error(codes.Unavailable, errNotInstalled.Error())
	case over < 0 || over > maxSeconds*time.Second:
		return status.Error(codes.InvalidArgument, "that takes too long")
	}
	for range counter.Cups {
		if err := pour(s.release.Name); err != nil {
			return err
		}
		if !pause(ctx, over/counter.Cups) {
			return ctx.Err()
		}
	}
	return nil
}
