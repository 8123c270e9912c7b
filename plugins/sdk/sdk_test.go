package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
	"github.com/teal-deploy/teal/plugins/sdk"
)

// TestMain makes the test binary a plugin, or the teal that starts one.
func TestMain(m *testing.M) {
	name, ok := loader.BuiltinRequested(os.Args[1:])
	switch {
	case !ok:
		os.Exit(m.Run())
	case name == "core":
		core()
	default:
		sdk.Serve(pids{})
	}
}

// pids is a runtime that tells its process id.
type pids struct{ plugins.Runtime }

func (pids) Probe(context.Context, plugins.Host) (plugins.Info, error) {
	return plugins.Info{Name: strconv.Itoa(os.Getpid())}, nil
}

// core starts a plugin below a shell, so that the kernel does not end it with
// this process, tells the plugin's process id and waits to be killed.
func core() {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	p, err := loader.Start(context.Background(), loader.Spec{
		Name: "pids",
		Cmd:  append([]string{"/bin/sh", "-c", `"$@" & wait`, "sh", self}, builtinArgs("pids")...),
	})
	if err != nil {
		panic(err)
	}
	info, err := p.Runtime().Probe(context.Background(), plugintest.Local("here"))
	if err != nil {
		panic(err)
	}
	fmt.Println(info.Name)
	time.Sleep(time.Minute)
}

func builtinArgs(name string) []string {
	spec, err := loader.Builtin(name)
	if err != nil {
		panic(err)
	}
	return spec.Cmd[1:]
}

func TestPluginLeavesWhenTealIsKilled(t *testing.T) {
	teal := exec.Command(os.Args[0], builtinArgs("core")...)
	dir, err := os.MkdirTemp("", "sdk") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	teal.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := teal.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := teal.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = teal.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	proc := "/proc/" + strings.TrimSpace(line)
	if _, err := os.Stat(proc); err != nil {
		t.Fatal(err)
	}
	if err := teal.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := os.Stat(proc); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the plugin lives on")
}

func TestPluginStartedByHandSaysWhatItIs(t *testing.T) {
	cmd := exec.Command(os.Args[0], builtinArgs("pids")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(stderr.String(), "This binary is a plugin") {
		t.Errorf("%v: %s", err, &stderr)
	}
}
