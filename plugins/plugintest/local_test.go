package plugintest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestLocalRunsCommands(t *testing.T) {
	silent, w := io.Pipe()
	defer w.Close()
	for _, tt := range []struct {
		name     string
		cmd      plugins.Command
		out, err string
		code     int
	}{
		{"arguments", plugins.Command{Args: []string{"printf", "%s|", "a b", "$x", ""}}, "a b|$x||", "", 0},
		{"environment", plugins.Command{Args: []string{"sh", "-c", `echo "$A"`}, Env: map[string]string{"A": "x y"}}, "x y\n", "", 0},
		{"standard input", plugins.Command{Args: []string{"cat"}, Stdin: strings.NewReader("in")}, "in", "", 0},
		{"standard input without an end", plugins.Command{Args: []string{"true"}, Stdin: silent}, "", "", 0},
		{"code", plugins.Command{Args: []string{"sh", "-c", "echo oh >&2; exit 3"}}, "", "oh\n", 3},
		{"signal", plugins.Command{Args: []string{"sh", "-c", "kill -KILL $$"}}, "", "", 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			tt.cmd.Stdout, tt.cmd.Stderr = &out, &errs
			err := plugintest.Local("here").Run(t.Context(), &tt.cmd)
			if out.String() != tt.out || errs.String() != tt.err {
				t.Errorf("it wrote %q and %q", &out, &errs)
			}
			var exit *plugins.ExitError
			if errors.As(err, &exit) != (tt.code != 0) || exit != nil && (exit.Code != tt.code || string(exit.Stderr) != tt.err || exit.Host != "here") {
				t.Errorf("the error is %#v", err)
			}
		})
	}
}

func TestLocalKeepsTheEndOfStandardError(t *testing.T) {
	err := plugintest.Local("here").Run(t.Context(), &plugins.Command{Args: []string{"sh", "-c", "head -c 200000 /dev/zero >&2; echo end >&2; exit 1"}})
	var exit *plugins.ExitError
	if !errors.As(err, &exit) || len(exit.Stderr) != 64<<10 || !strings.HasSuffix(string(exit.Stderr), "end\n") {
		t.Errorf("%d bytes, %v", len(exit.Stderr), err)
	}
}

func TestLocalEndsACancelledCommandWithItsChildren(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := plugintest.Local("here").Run(ctx, &plugins.Command{Args: []string{"sh", "-c", "sleep 60 & wait"}, Stdout: io.Discard})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestLocalRefusesNoProgram(t *testing.T) {
	if err := plugintest.Local("here").Run(t.Context(), &plugins.Command{}); !errors.Is(err, plugins.Invalid) {
		t.Error(err)
	}
}

func TestLocalDials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := plugintest.Local("here")
	conn, err := h.DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.Close(), lis.Close()); err != nil {
		t.Error(err)
	}
	if _, err := h.DialContext(t.Context(), "unix", path); !errors.Is(err, plugins.Unavailable) {
		t.Error(err)
	}
	if h.String() != "here" {
		t.Error(h)
	}
}
