package counter_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/teal-deploy/teal/examples/internal/counter"
)

// parrot is a server that gives back what it gets.
type parrot struct{}

func (parrot) Order(_ context.Context, order []byte) (string, error) {
	if len(order) == 0 {
		return "", status.Error(codes.InvalidArgument, "nothing ordered")
	}
	return strings.ToUpper(string(order)), nil
}

func (parrot) Brew(_ context.Context, over time.Duration, pour func(string) error) error {
	if over < 0 {
		return errors.New("the past is brewed")
	}
	for range counter.Cups {
		if err := pour(over.String()); err != nil {
			return err
		}
	}
	return nil
}

// open connects a client to a parrot.
func open(t *testing.T) *grpc.ClientConn {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	counter.Register(s, parrot{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func TestOrderGetsItsReceipt(t *testing.T) {
	cc := open(t)
	receipt, err := counter.Order(t.Context(), cc, []byte("one sencha"))
	if err != nil || receipt != "ONE SENCHA" {
		t.Errorf("receipt %q, error %v", receipt, err)
	}
	if _, err := counter.Order(t.Context(), cc, nil); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an empty order: %v, want InvalidArgument", err)
	}
}

func TestBrewIsPouredToItsEnd(t *testing.T) {
	next, err := counter.Brew(t.Context(), open(t), 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var cups []string
	for {
		cup, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		cups = append(cups, cup)
	}
	if want := slices.Repeat([]string{"3s"}, counter.Cups); !slices.Equal(cups, want) {
		t.Errorf("cups %q, want %q", cups, want)
	}
}

func TestBrewThatFailsSaysSo(t *testing.T) {
	next, err := counter.Brew(t.Context(), open(t), -time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next(); err == nil || !strings.Contains(err.Error(), "the past is brewed") {
		t.Errorf("error %v", err)
	}
}
