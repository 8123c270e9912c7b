package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/teal-deploy/teal/examples/internal/counter"
)

// speaking runs a release that is installed, or code that is not.
func speaking(t *testing.T, protocol, mode string, installed bool) (string, context.CancelFunc, <-chan int) {
	t.Helper()
	dir := code(t, "5", mode)
	if installed {
		if out, err := install(t, dir); err != nil {
			t.Fatal(err, out)
		}
	}
	return served(t, dir, "-protocol", protocol)
}

func dialGRPC(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func TestCounterAnswersCallsAndStillHTTP(t *testing.T) {
	addr, _, _ := speaking(t, "grpc", "", true)
	receipt, err := counter.Order(t.Context(), dialGRPC(t, addr), []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Release string `json:"release"`
		Bytes   int    `json:"bytes"`
	}
	if err := json.Unmarshal([]byte(receipt), &got); err != nil || got.Release != "5" || got.Bytes != 5 {
		t.Errorf("receipt %s, error %v; want 5 bytes by release 5", receipt, err)
	}
	if resp, body := do(t, http.MethodGet, "http://"+addr+"/up", ""); resp.StatusCode != http.StatusOK || resp.ProtoMajor != 1 {
		t.Errorf("/up over HTTP/1.1: %s %s", resp.Status, body)
	}
}

func TestStopFinishesTheStreamsThatAreOpen(t *testing.T) {
	addr, stop, ended := speaking(t, "grpc", "", true)
	next, err := counter.Brew(t.Context(), dialGRPC(t, addr), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	cups := 0
	for {
		release, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || release != "5" {
			t.Fatalf("cup %d of release %q: %v", cups, release, err)
		}
		if cups++; cups == 2 {
			stop()
		}
	}
	if cups != counter.Cups {
		t.Errorf("%d cups, want %d", cups, counter.Cups)
	}
	code0(t, ended)
}

func TestCounterRefusesWhatItCannotDo(t *testing.T) {
	addr, _, _ := speaking(t, "grpc", "", false)
	cc := dialGRPC(t, addr)
	if _, err := counter.Order(t.Context(), cc, nil); status.Code(err) != codes.Unavailable {
		t.Errorf("an order at a shop that is not installed: %v, want Unavailable", err)
	}
	brew := func(addr string, over time.Duration) error {
		next, err := counter.Brew(t.Context(), dialGRPC(t, addr), over)
		if err != nil {
			return err
		}
		_, err = next()
		return err
	}
	if err := brew(addr, time.Second); status.Code(err) != codes.Unavailable {
		t.Errorf("a brew at a shop that is not installed: %v, want Unavailable", err)
	}
	good, _, _ := speaking(t, "grpc", "", true)
	if err := brew(good, 24*time.Hour); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a brew of a day: %v, want InvalidArgument", err)
	}
}

// A teller speaks the line protocol.
type teller struct {
	net.Conn
	in *bufio.Reader
}

func dialLines(t *testing.T, addr string) teller {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return teller{c, bufio.NewReader(c)}
}

// ask sends lines and returns what comes back for as many.
func (c teller) ask(t *testing.T, lines ...string) string {
	t.Helper()
	if _, err := fmt.Fprint(c, strings.Join(lines, "\n")+"\n"); err != nil {
		t.Fatal(err)
	}
	var all []string
	for range lines {
		all = append(all, c.next(t))
	}
	return strings.Join(all, ", ")
}

func (c teller) next(t *testing.T) string {
	t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func TestLinesAreAnsweredInOrder(t *testing.T) {
	addr, _, _ := speaking(t, "tcp", "", true)
	c := dialLines(t, addr)
	if got, want := c.ask(t, "one sencha", "", "two"), "5 one sencha, 5 , 5 two"; got != want {
		t.Errorf("answers %q, want %q", got, want)
	}
	if got := c.ask(t, "more"); got != "5 more" {
		t.Errorf("answer %q", got)
	}
}

func TestStopAnswersOneMoreLineAndSaysBye(t *testing.T) {
	addr, stop, ended := speaking(t, "tcp", "", true)
	busy, idle := dialLines(t, addr), dialLines(t, addr)
	busy.ask(t, "one")
	idle.ask(t, "one")
	stop()
	time.Sleep(200 * time.Millisecond)
	if got := busy.ask(t, "two"); got != "5 two" {
		t.Errorf("answer %q", got)
	}
	for name, c := range map[string]teller{"busy": busy, "idle": idle} {
		if got := c.next(t); got != bye {
			t.Errorf("the %s connection ends with %q, want %q", name, got, bye)
		}
		if _, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("after that the %s connection gives %v, want EOF", name, err)
		}
		_ = c.Close()
	}
	code0(t, ended)
}

func TestShopThatIsNotReadyAnswersNoLine(t *testing.T) {
	tests := []struct {
		name, mode string
		installed  bool
	}{
		{"not installed", "", false},
		{"never up", "never-up", true},
		{"slow to start", "slow-start 100", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, _, _ := speaking(t, "tcp", tt.mode, tt.installed)
			c := dialLines(t, addr)
			_, _ = fmt.Fprintln(c, "anybody there?") // may be refused as well
			if line, err := c.in.ReadString('\n'); err == nil || line != "" {
				t.Errorf("answered %q, error %v", line, err)
			}
		})
	}
}
