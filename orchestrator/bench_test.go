package orchestrator

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// BenchmarkDeploy measures what a deployment costs on the operator's side:
// hosts answer at once, from memory. calls/host is what would be a round trip
// or more to a real one.
func BenchmarkDeploy(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(strconv.Itoa(n)+" hosts", func(b *testing.B) {
			file, err := spec.Parse("teal.toml", []byte(worldApp), spec.Options{})
			if err != nil {
				b.Fatal(err)
			}
			req := Request{File: file, Detach: true}
			hosts := map[string]*quickHost{}
			for i := range n {
				h := inventory.Host{Name: fmt.Sprintf("web%04d", i)}
				hosts[h.Name] = &quickHost{name: h.Name, containers: map[string]plugins.Container{}}
				req.Hosts = append(req.Hosts, h)
			}
			d := &Deployer{
				Dial: func(_ context.Context, h inventory.Host) (Connection, error) {
					return &quickConn{quickHost: hosts[h.Name], done: make(chan struct{})}, nil
				},
				Runtime: func(context.Context, spec.App) (plugins.Runtime, error) { return quickRuntime{}, nil },
				Proxy:   func(string) (proxy.Proxy, error) { return quickProxy{}, nil },
				Emit:    func(Event) {},
			}
			deploy := func(version int) {
				req.Version = strconv.Itoa(version)
				if res := d.Deploy(b.Context(), req); res.Outcome != OutcomeDone {
					b.Fatalf("%s: %s", res.Outcome, explain(res))
				}
			}
			deploy(0)
			for _, h := range hosts {
				h.calls.Store(0)
			}
			b.ReportAllocs()
			version := 0
			for b.Loop() {
				version++
				deploy(version)
			}
			calls := 0
			for _, h := range hosts {
				calls += int(h.calls.Load())
			}
			b.ReportMetric(float64(calls)/float64(version*n), "calls/host")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(version*n), "µs/host")
		})
	}
}

// A quickHost is a host in memory that answers at once and well.
type quickHost struct {
	name       string
	calls      atomic.Int64
	mu         sync.Mutex
	state      []byte
	slot       proxy.Slot
	containers map[string]plugins.Container
}

type quickConn struct {
	*quickHost
	done chan struct{}
	once sync.Once
}

func (c *quickConn) String() string        { return c.name }
func (c *quickConn) Done() <-chan struct{} { return c.done }

func (c *quickConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// DialContext is the public listener.
func (c *quickConn) DialContext(context.Context, string, string) (net.Conn, error) {
	c.calls.Add(1)
	near, far := net.Pipe()
	go (&fakeHost{answers: 200}).answer(far)
	return near, nil
}

// Listen is for uploads, of which there are none.
func (c *quickConn) Listen(context.Context, string) (net.Listener, error) {
	return nil, errors.New("nothing is to be uploaded")
}

func (c *quickConn) Run(_ context.Context, cmd *plugins.Command) error {
	c.calls.Add(1)
	var input []byte
	op := opOf(cmd)
	if op == "lock" {
		fmt.Fprintln(cmd.Stdout, "locked 1")
		for in := bufio.NewReader(cmd.Stdin); ; {
			if _, err := in.ReadByte(); err != nil {
				return nil
			}
			fmt.Fprint(cmd.Stdout, ".")
		}
	}
	if cmd.Stdin != nil {
		var err error
		if input, err = io.ReadAll(cmd.Stdin); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch op {
	case "observe":
		fmt.Fprintf(cmd.Stdout, "now %d\nuser ann\nuid 0\nboot b\nrange 32768 60999\nwritable\nepoch 1\n", time.Now().Unix())
		for line := range bytes.Lines(c.state) {
			fmt.Fprintf(cmd.Stdout, "state %s", line)
		}
	case "write":
		c.state = input
	case "let": // the teardown, at once
		for id, container := range c.containers {
			if container.Labels[LabelSlot] != string(c.slot) {
				delete(c.containers, id)
			}
		}
	default:
	}
	return nil
}

type quickRuntime struct{}

func quick(h plugins.Host) *quickHost {
	q := h.(*quickConn).quickHost
	q.calls.Add(1)
	return q
}

func (quickRuntime) Probe(_ context.Context, h plugins.Host) (plugins.Info, error) {
	quick(h)
	return plugins.Info{}, nil
}

func (quickRuntime) Pull(_ context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	quick(h)
	return plugins.Image{Reference: req.Image, Digest: "sha256:" + req.Image}, nil
}

func (quickRuntime) Create(_ context.Context, h plugins.Host, s plugins.Spec) (plugins.Container, error) {
	q := quick(h)
	q.mu.Lock()
	defer q.mu.Unlock()
	c := plugins.Container{ID: s.Name, Name: s.Name, Labels: s.Labels, Status: plugins.StatusRunning, PID: 1}
	q.containers[c.ID] = c
	return c, nil
}

func (quickRuntime) Exec(_ context.Context, h plugins.Host, _ string, _ *plugins.Command) error {
	quick(h)
	return nil
}

func (quickRuntime) List(_ context.Context, h plugins.Host, labels map[string]string) ([]plugins.Container, error) {
	q := quick(h)
	q.mu.Lock()
	defer q.mu.Unlock()
	var list []plugins.Container
	for _, c := range q.containers {
		if contains(c.Labels, labels) {
			list = append(list, c)
		}
	}
	return list, nil
}

func (quickRuntime) Stop(context.Context, plugins.Host, string, time.Duration) error {
	return errors.New("nothing is to be stopped")
}

func (quickRuntime) Remove(context.Context, plugins.Host, string) error {
	return errors.New("nothing is to be removed")
}

func (quickRuntime) Restart(_ context.Context, h plugins.Host, _ string, _ time.Duration) error {
	quick(h)
	return nil
}

func (quickRuntime) SetRestartPolicy(_ context.Context, h plugins.Host, _ string, _ plugins.RestartPolicy) error {
	quick(h)
	return nil
}

func (quickRuntime) LocalCommands(_ context.Context, h plugins.Host, id string, _ time.Duration) (plugins.LocalCommands, error) {
	quick(h)
	args := []string{"true", id}
	return plugins.LocalCommands{PID: args, Stop: args, Remove: args}, nil
}

type quickProxy struct{}

func (quickProxy) Check(_ context.Context, h plugins.Host, _ proxy.Layout) ([]string, error) {
	quick(h)
	return nil, nil
}

func (quickProxy) Prepare(_ context.Context, h plugins.Host, _ proxy.Layout) (bool, error) {
	quick(h)
	return false, nil
}

func (quickProxy) Observe(_ context.Context, h plugins.Host, l proxy.Layout) (proxy.Observation, error) {
	q := quick(h)
	q.mu.Lock()
	defer q.mu.Unlock()
	route := proxy.Route{}
	if q.slot != "" {
		for _, m := range l.Members {
			route[m.Name] = q.slot.All()
		}
	}
	return proxy.Observation{Prepared: q.slot != "", Disk: route, Live: route}, nil
}

func (quickProxy) Switch(_ context.Context, h plugins.Host, _ proxy.Layout, r proxy.Route, _ proxy.Releases) error {
	q := quick(h)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, share := range r {
		q.slot, _ = share.Slot()
	}
	return nil
}

func (quickProxy) RoutedScript(proxy.Layout, string, proxy.Slot) (string, []string) {
	return "false", nil
}

func (quickProxy) Usage(proxy.Layout) string { return "" }
