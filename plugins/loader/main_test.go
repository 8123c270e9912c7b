package loader_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
	"github.com/teal-deploy/teal/plugins/sdk"
)

// TestMain makes the test binary a plugin when it is started as one.
func TestMain(m *testing.M) {
	name, ok := loader.BuiltinRequested(os.Args[1:])
	if !ok {
		os.Exit(m.Run())
	}
	switch name {
	case "full":
		sdk.Serve(&full{})
	case "plain":
		sdk.Serve(plain{&full{}})
	case "loggers":
		sdk.Serve(logger{plain{&full{}}, &full{}})
	case "exits":
		fmt.Fprintln(os.Stderr, "cannot find my settings")
		os.Exit(3)
	case "silent":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		fmt.Fprintln(os.Stderr, "thinking")
		<-ctx.Done()
	case "rubbish":
		fmt.Println("hello, world")
	case "liar":
		fmt.Println("1|1|unix|/nonexistent/socket|grpc|")
		time.Sleep(time.Minute)
	case "core":
		core()
	}
}

// core stands for teal: it starts a plugin, tells its process id and waits to
// be killed.
func core() {
	spec, err := loader.Builtin("full")
	if err != nil {
		panic(err)
	}
	p, err := loader.Start(context.Background(), spec)
	if err != nil {
		panic(err)
	}
	fmt.Println(p.PID())
	_, _ = p.Runtime().Probe(context.Background(), plugintest.Local("here"))
	time.Sleep(time.Minute)
}

// plain hides the optional interfaces.
type plain struct{ plugins.Runtime }

// logger has one optional interface.
type logger struct {
	plugins.Runtime
	plugins.LogStreamer
}

// full is a runtime whose answers say what arrived. Names choose what it does.
type full struct {
	mu   sync.Mutex
	kept plugins.Host // of an earlier call
	log  bytes.Buffer
}

func (f *full) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	out, err := plugins.Output(ctx, h, "sh", "-c", `read -r x </dev/tty 2>/dev/null; env; echo "stdin: $(cat)"`)
	return plugins.Info{Name: h.String(), Version: string(out), Settings: []byte(fmt.Sprintf(`{"environ":%d}`, len(os.Environ())))}, err
}

func (f *full) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch req.Image {
	case "keep":
		f.kept = h
	case "use kept":
		_, err := plugins.Output(ctx, f.kept, "true")
		return plugins.Image{}, err
	case "dial kept":
		_, err := f.kept.DialContext(ctx, "tcp", "127.0.0.1:1")
		return plugins.Image{}, err
	case "missing":
		return plugins.Image{}, &plugins.Error{Op: "pull", Host: h.String(), Kind: plugins.NotFound, Err: errors.New("no such image")}
	}
	if req.Progress != nil {
		fmt.Fprintln(req.Progress, "1 of 2 layers")
		fmt.Fprintln(req.Progress, "2 of 2 layers")
	}
	return plugins.Image{Reference: fmt.Sprintf("%s %s %v", req.Image, req.Policy, req.Auth), Digest: "sha256:1"}, nil
}

func (f *full) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	if spec.Name == "panic" {
		panic("the runtime is broken")
	}
	if spec.Name == "slow" {
		<-ctx.Done()
		// What a call does to clean up, it does with its host.
		_, err := plugins.Output(context.WithoutCancel(ctx), h, "touch", spec.Labels["cleaned"])
		return plugins.Container{}, errors.Join(ctx.Err(), err)
	}
	return plugins.Container{ID: "id", Name: fmt.Sprintf("%+v", spec), Labels: spec.Labels, Created: time.Unix(1, 2).UTC()}, nil
}

func (f *full) Exec(ctx context.Context, h plugins.Host, _ string, cmd *plugins.Command) error {
	return h.Run(ctx, cmd)
}

func (f *full) List(_ context.Context, h plugins.Host, labels map[string]string) ([]plugins.Container, error) {
	if len(labels) == 0 {
		return nil, nil
	}
	return []plugins.Container{{ID: h.String(), Labels: labels, PID: 7, ExitCode: 3, Status: plugins.StatusExited, Health: plugins.HealthHealthy}}, nil
}

// Stop sends a line to the address in id, reads the answer to its end and
// reports it as an error.
func (f *full) Stop(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	conn, err := h.DialContext(ctx, "tcp", id)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "grace %v", grace)
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	return errors.Join(errors.New(string(answer)), err)
}

// Remove leaves a connection open.
func (f *full) Remove(ctx context.Context, h plugins.Host, id string) error {
	_, err := h.DialContext(ctx, "tcp", id)
	return err
}

func (f *full) Restart(context.Context, plugins.Host, string, time.Duration) error {
	return fmt.Errorf("wrapped: %w", errors.Join(errors.New("first"), &plugins.ExitError{Host: "web1", Args: []string{"a", "b"}, Code: 9, Stderr: []byte("oh\n")}))
}

func (f *full) SetRestartPolicy(_ context.Context, _ plugins.Host, _ string, policy plugins.RestartPolicy) error {
	return &plugins.Error{Op: string(policy), Kind: plugins.Conflict}
}

func (f *full) Logs(_ context.Context, _ plugins.Host, _ string, lines int, w io.Writer) error {
	_, err := io.WriteString(w, strings.Repeat("line\n", lines))
	return err
}

func (f *full) LocalCommands(_ context.Context, _ plugins.Host, id string, grace time.Duration) (plugins.LocalCommands, error) {
	return plugins.LocalCommands{PID: []string{"pid", id}, Stop: []string{"stop", grace.String()}, Remove: []string{"rm"}}, nil
}

var _ net.Conn = net.Conn(nil)
