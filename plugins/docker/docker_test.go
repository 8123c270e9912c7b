package docker_test

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/docker"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
)

var started *enginetest.Engine

var start = sync.OnceValues(func() (*enginetest.Engine, error) {
	e, err := enginetest.Start()
	started = e
	return e, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if started != nil {
		started.Close()
	}
	os.Exit(code)
}

func TestVertical(t *testing.T) {
	e := enginetest.Require(t, start)
	rt := docker.New(e.Socket)
	for _, h := range []*enginetest.Host{{Engine: e}, {Engine: e, NoUnix: true}, {Engine: e, User: "nobody"}} {
		h.Host = e.Host("web1").(*enginetest.Host).Host
		ctx := context.Background()
		rt := docker.New(e.Socket)
		info, err := rt.Probe(ctx, h)
		t.Logf("%v %s %v", info.Version, info.Settings, err)
		img, err := rt.Pull(ctx, h, plugins.PullRequest{Image: enginetest.Image, Policy: plugins.PullNever})
		t.Log(img, err)
		c, err := rt.Create(ctx, h, plugins.Spec{
			Name: "ab", Image: img.Reference, Command: []string{"httpd", "-f", "-p", "8080"}, Labels: map[string]string{"x": "y"},
			Port: 8080, Publish: netip.MustParseAddrPort("127.0.0.1:20001"),
		})
		t.Log(c, err)
		conn, err := h.DialContext(ctx, "tcp", "127.0.0.1:20001")
		t.Log(conn, err)
		var out, errb bytes.Buffer
		err = rt.Exec(ctx, h, "ab", &plugins.Command{Args: []string{"sh", "-c", "cat; echo oh >&2; exit 3"}, Stdin: strings.NewReader("hi"), Stdout: &out, Stderr: &errb})
		t.Log(out.String(), errb.String(), err)
		cctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		t.Log(rt.Exec(cctx, h, "ab", &plugins.Command{Args: []string{"sleep", "77"}}))
		cancel()
		errb.Reset()
		_ = rt.Exec(ctx, h, "ab", &plugins.Command{Args: []string{"ps"}, Stdout: &errb})
		t.Log(errb.String())
		l, err := rt.List(ctx, h, map[string]string{"x": "y"})
		t.Log(l, err)
		cmds, err := rt.LocalCommands(ctx, h, c.ID, time.Second)
		t.Log(cmds, err)
		t0 := time.Now()
		t.Log(rt.Stop(ctx, h, c.ID, time.Second), rt.Remove(ctx, h, c.ID), time.Since(t0))
	}
	_ = rt
}
