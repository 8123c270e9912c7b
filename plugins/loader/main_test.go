package loader_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
	"github.com/teal-deploy/teal/plugins/sdk"
)

// TestMain makes the test binary a plugin when it is started as one. The name
// of the built-in says what kind of plugin it is.
func TestMain(m *testing.M) {
	name, ok := loader.BuiltinRequested(os.Args[1:])
	if !ok {
		goleak.VerifyTestMain(m)
		return
	}
	switch name {
	case "full":
		sdk.Serve(&full{})
	case "plain":
		sdk.Serve(struct{ plugins.Runtime }{&full{}})
	case "settings":
		sdk.Serve(&configured{})
	case "flood":
		sdk.Serve(&flood{})
	case "exits":
		fmt.Fprintln(os.Stderr, "cannot find my settings")
		os.Exit(3)
	case "panics":
		panic("no settings")
	case "silent":
		fmt.Fprintln(os.Stderr, "thinking")
		time.Sleep(time.Minute)
	case "rubbish":
		fmt.Println("hello, world")
	case "liar":
		fmt.Println("1|1|unix|/nonexistent/socket|grpc|")
		time.Sleep(time.Minute)
	case "newer":
		fmt.Println("1|99|unix|/nonexistent/socket|grpc|")
		time.Sleep(time.Minute)
	case "parent", "detaching parent":
		cmd := exec.Command("sleep", "20")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: name != "parent"}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		sdk.Serve(&full{})
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
	if _, err := p.Runtime().Probe(context.Background(), plugintest.Local("here")); err != nil {
		panic(err)
	}
	fmt.Println(p.PID())
	time.Sleep(time.Minute)
}

// configured is a runtime with settings.
type configured struct {
	full

	settings map[string]any
}

func (c *configured) Configure(_ context.Context, settings map[string]any) error {
	into := struct {
		OptLevel int    `json:"opt_level"`
		Crash    string `json:"crash"`
		Store    struct {
			Path string `json:"path"`
		} `json:"store"`
	}{OptLevel: 1}
	if err := plugins.DecodeSettings(settings, &into); err != nil {
		return err
	}
	if into.Crash != "" {
		panic(into.Crash)
	}
	if into.OptLevel > 3 {
		return &plugins.SettingError{Path: []string{"opt_level"}, Err: fmt.Errorf("%d is more than 3", into.OptLevel)}
	}
	c.settings = settings
	return nil
}

// Probe tells the settings.
func (c *configured) Probe(context.Context, plugins.Host) (plugins.Info, error) {
	return plugins.Info{Name: fmt.Sprintf("%#v", c.settings)}, nil
}

// flood is a runtime that writes more than anybody reads.
type flood struct{ full }

func (*flood) Remove(context.Context, plugins.Host, string) error {
	line := strings.Repeat("x", 100)
	for range 10_000 {
		fmt.Fprintln(os.Stderr, line)
	}
	fmt.Fprint(os.Stderr, strings.Repeat("y", 1<<20)) // without an end
	return nil
}

// full is a runtime with a behaviour for each fault.
type full struct{}

// Probe tells about the process that it runs in.
func (*full) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	log.Print("a line of the log package")
	fmt.Fprintln(os.Stderr, "a line of standard error")
	fmt.Println("a line of standard output")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	out, err := plugins.Output(ctx, h, "echo", "from the host")
	return plugins.Info{
		Name:     line,
		Version:  strings.Join(os.Environ(), "\n"),
		Settings: out,
	}, err
}

func (*full) Pull(context.Context, plugins.Host, plugins.PullRequest) (plugins.Image, error) {
	return plugins.Image{Reference: "an image"}, nil
}

func (*full) Create(_ context.Context, _ plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	if spec.Name == "exit" {
		log.Print("giving up")
		os.Exit(4)
	}
	panic("the runtime is broken")
}

func (*full) Exec(ctx context.Context, h plugins.Host, _ string, cmd *plugins.Command) error {
	return h.Run(ctx, cmd)
}

func (*full) List(context.Context, plugins.Host, map[string]string) ([]plugins.Container, error) {
	return nil, &plugins.Error{Op: "list", Kind: plugins.Denied, Err: errors.New("not allowed")}
}

// Stop hangs and does not listen.
func (*full) Stop(context.Context, plugins.Host, string, time.Duration) error {
	time.Sleep(time.Minute)
	return nil
}

func (*full) Remove(context.Context, plugins.Host, string) error { return nil }

func (*full) Restart(context.Context, plugins.Host, string, time.Duration) error { return nil }
