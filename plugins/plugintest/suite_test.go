package plugintest_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/docker"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// engines is the engine that the tests of this package share.
type engines struct {
	once sync.Once
	e    *enginetest.Engine
	err  error
}

func (s *engines) start() (*enginetest.Engine, error) {
	s.once.Do(func() { s.e, s.err = enginetest.Start() })
	return s.e, s.err
}

var shared engines

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.e != nil {
		shared.e.Close()
	}
	os.Exit(code)
}

// wrong is a runtime that breaks many promises at once, each in its own way.
// What the suite needs for cleaning up works.
type wrong struct{ *docker.Runtime }

func (w wrong) Create(ctx context.Context, h plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	spec.Env = nil                                                                  // forgets the environment
	spec.Publish = netip.AddrPortFrom(netip.IPv4Unspecified(), spec.Publish.Port()) // publishes to all the world
	if spec.Labels["release"] != "" {
		spec.Labels = map[string]string{} // takes what is there for its own
		cs, err := w.List(ctx, h, nil)
		if err == nil && len(cs) > 0 {
			return cs[0], nil
		}
	}
	c, err := w.Runtime.Create(ctx, h, spec)
	if errors.Is(err, plugins.Conflict) {
		err = errors.New("something is wrong") // loses the kind
	}
	return c, err
}

func (w wrong) Exec(ctx context.Context, h plugins.Host, id string, cmd *plugins.Command) error {
	// Does not kill what is cancelled, and mixes the streams.
	return w.Runtime.Exec(context.WithoutCancel(ctx), h, id, &plugins.Command{
		Args: append([]string{"sh", "-c", `"$@" & p=$!; (sleep 2; kill $p) 2>/dev/null & wait $p`, "sh"}, cmd.Args...),
		Env:  cmd.Env, Stdout: cmd.Stdout, Stderr: cmd.Stdout,
	})
}

func (w wrong) Stop(ctx context.Context, h plugins.Host, id string, _ time.Duration) error {
	return w.Runtime.Stop(ctx, h, id, 0) // gives no grace
}

func (w wrong) Restart(ctx context.Context, h plugins.Host, id string, grace time.Duration) error {
	return w.Stop(ctx, h, id, grace) // and does not start it again
}

func (w wrong) SetRestartPolicy(context.Context, plugins.Host, string, plugins.RestartPolicy) error {
	return nil // does nothing
}

func (w wrong) Logs(_ context.Context, _ plugins.Host, _ string, _ int, out io.Writer) error {
	_, err := io.WriteString(out, "one\nthree\ntwo\n") // in another order
	return err
}

func (w wrong) LocalCommands(context.Context, plugins.Host, string, time.Duration) (plugins.LocalCommands, error) {
	return plugins.LocalCommands{PID: []string{"echo", "1"}, Stop: []string{"true"}, Remove: []string{"true"}}, nil
}

func TestSuiteFindsWhatIsWrong(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	ctx, cancel := context.WithTimeout(t.Context(), 18*time.Second)
	defer cancel()
	err := plugintest.TestRuntime(ctx, wrong{docker.New(e.Socket)}, e.Host("web1"), plugintest.Options{
		Image: enginetest.Image, Policy: plugins.PullNever, Publish: netip.MustParseAddrPort("127.0.0.1:20001"),
	})
	if err == nil {
		t.Fatal("it found nothing")
	}
	for _, want := range []string{
		"ports: a port that is taken is no error of kind",
		"create again: the same name with other labels is no error of kind",
		"environment, command and mounts: ",
		"1 MiB came back as 0 bytes",
		"exec that is cancelled: the error is",
		"stop: one that does not listen took",
		"restart: afterwards",
		"logs: the last two lines are",
		"local commands: the process id is",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in what it found", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
	if cs, err := docker.New(e.Socket).List(t.Context(), e.Host("web1"), nil); err != nil || len(cs) != 0 {
		t.Errorf("left behind: %+v, %v", cs, err)
	}
}

func TestSuiteEndsWhenTheRuntimeDoesNotWorkAtAll(t *testing.T) {
	err := plugintest.TestRuntime(t.Context(), docker.New("/no/such.sock"), plugintest.Local("web1"), plugintest.Options{})
	if !errors.Is(err, plugins.Unavailable) || strings.Count(err.Error(), "\n") > 2 {
		t.Error(err)
	}
}
