package orchestrator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/plugins"
)

// A fakeRuntime keeps a container as a folder of the host: the file spec says
// what it is, and it runs while there is a file running.
type fakeRuntime struct{}

var (
	_ plugins.Runtime             = fakeRuntime{}
	_ plugins.Restarter           = fakeRuntime{}
	_ plugins.RestartPolicySetter = fakeRuntime{}
	_ plugins.LogStreamer         = fakeRuntime{}
	_ plugins.LocalRemover        = fakeRuntime{}
)

func on(h plugins.Host) *fakeConn { return h.(*fakeConn) }

func (h *fakeHost) container(id string) string { return filepath.Join(h.dir, "containers", id) }

func (fakeRuntime) Probe(ctx context.Context, h plugins.Host) (plugins.Info, error) {
	return plugins.Info{Name: "fake"}, on(h).call(ctx, "probe", func(context.Context) error { return nil })
}

func (fakeRuntime) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	img := plugins.Image{Reference: req.Image, Digest: "sha256:" + fmt.Sprintf("%x", sha256.Sum256([]byte(req.Image)))}
	if name, digest, ok := strings.Cut(req.Image, "@"); ok {
		img = plugins.Image{Reference: name, Digest: digest}
	}
	return img, on(h).call(ctx, "pull", func(context.Context) error { return nil })
}

func (fakeRuntime) Create(ctx context.Context, h plugins.Host, s plugins.Spec) (plugins.Container, error) {
	c := on(h)
	err := c.call(ctx, "create", func(context.Context) error {
		dir := c.host.container(s.Name)
		data, err := json.Marshal(s)
		return errors.Join(
			err, os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "spec"), data, 0o600),
			os.WriteFile(filepath.Join(dir, "running"), nil, 0o600),
		)
	})
	return plugins.Container{ID: s.Name, Name: s.Name, Labels: s.Labels, Status: plugins.StatusRunning, PID: os.Getpid()}, err
}

func (fakeRuntime) Exec(ctx context.Context, h plugins.Host, id string, cmd *plugins.Command) error {
	c := on(h)
	line := cmd.Args[len(cmd.Args)-1]
	return c.call(ctx, line, func(context.Context) error {
		c.host.mu.Lock()
		defer c.host.mu.Unlock()
		if line != "selftest" {
			c.host.ran = append(c.host.ran, line)
		} else if c.host.sick != nil && c.host.sick(id) {
			return &plugins.ExitError{Host: c.host.name, Args: cmd.Args, Code: 3}
		}
		if cmd.Stdout != nil {
			fmt.Fprintf(cmd.Stdout, "%s with s3cr3t-value\n", line)
		}
		return nil
	})
}

func (fakeRuntime) List(ctx context.Context, h plugins.Host, labels map[string]string) (list []plugins.Container, err error) {
	c := on(h)
	err = c.call(ctx, "list", func(context.Context) (err error) {
		list, err = c.host.list(labels)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// list returns the containers with the labels. One that the teardown removes
// at this moment is gone.
func (h *fakeHost) list(labels map[string]string) ([]plugins.Container, error) {
	dirs, err := filepath.Glob(filepath.Join(h.dir, "containers", "*"))
	if err != nil {
		return nil, err
	}
	var list []plugins.Container
	for _, dir := range dirs {
		var s plugins.Spec
		data, err := os.ReadFile(filepath.Join(dir, "spec"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := errors.Join(err, json.Unmarshal(data, &s)); err != nil {
			return nil, err
		}
		if !contains(s.Labels, labels) {
			continue
		}
		c := plugins.Container{ID: s.Name, Name: s.Name, Image: s.Image, Labels: s.Labels, Status: plugins.StatusExited}
		if _, err := os.Stat(filepath.Join(dir, "running")); err == nil {
			c.Status, c.PID = plugins.StatusRunning, os.Getpid()
		}
		list = append(list, c)
	}
	return list, nil
}

func contains(labels, some map[string]string) bool {
	for k, v := range some {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (fakeRuntime) Stop(ctx context.Context, h plugins.Host, id string, _ time.Duration) error {
	c := on(h)
	return c.call(ctx, "stop", func(context.Context) error {
		c.host.notRouted(id)
		return removeFile(filepath.Join(c.host.container(id), "running"))
	})
}

func (fakeRuntime) Remove(ctx context.Context, h plugins.Host, id string) error {
	c := on(h)
	return c.call(ctx, "remove", func(context.Context) error {
		c.host.notRouted(id)
		return os.RemoveAll(c.host.container(id))
	})
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (fakeRuntime) Restart(ctx context.Context, h plugins.Host, _ string, _ time.Duration) error {
	return on(h).call(ctx, "restart", func(context.Context) error { return nil })
}

func (fakeRuntime) SetRestartPolicy(ctx context.Context, h plugins.Host, id string, p plugins.RestartPolicy) error {
	c := on(h)
	return c.call(ctx, "policy "+string(p), func(context.Context) error {
		err := os.WriteFile(filepath.Join(c.host.container(id), "policy"), []byte(p), 0o600)
		if errors.Is(err, os.ErrNotExist) {
			return &plugins.Error{Op: "set the restart policy", Kind: plugins.NotFound, Err: err}
		}
		return err
	})
}

func (fakeRuntime) Logs(ctx context.Context, h plugins.Host, _ string, _ int, w io.Writer) error {
	return on(h).call(ctx, "logs", func(context.Context) error {
		_, err := io.WriteString(w, "starting\nfatal: s3cr3t-value\n")
		return err
	})
}

// The commands of the teardown note in the file wrong when they end what the
// proxy routes to.
const (
	pidCommand    = `[ ! -e "$1/running" ] || echo "$2"`
	stopCommand   = `read -r routed <"$3"; [ "$routed" != "$2" ] || echo "$1 stopped" >>"$4"; rm -f "$1/running"`
	removeCommand = `read -r routed <"$3"; [ "$routed" != "$2" ] || echo "$1 removed" >>"$4"; rm -rf "$1"`
)

func (fakeRuntime) LocalCommands(ctx context.Context, h plugins.Host, id string, _ time.Duration) (plugins.LocalCommands, error) {
	c := on(h)
	dir := c.host.container(id)
	found, err := c.host.list(nil)
	i := slices.IndexFunc(found, func(c plugins.Container) bool { return c.ID == id })
	if err != nil || i < 0 {
		return plugins.LocalCommands{}, errors.Join(err, plugins.NotFound)
	}
	args := []string{"teal", dir, found[i].Labels[LabelSlot], c.host.route("disk"), filepath.Join(c.host.dir, "wrong")}
	script := func(s string) []string { return append([]string{"sh", "-c", s}, args...) }
	return plugins.LocalCommands{
		PID:    []string{"sh", "-c", pidCommand, "teal", dir, strconv.Itoa(os.Getpid())},
		Stop:   script(stopCommand),
		Remove: script(removeCommand),
	}, c.call(ctx, "commands", func(context.Context) error { return nil })
}

// A fakeProxy keeps the slot that serves in two files: disk, which teal
// writes, and live, which follows it.
type fakeProxy struct{ w *world }

var _ proxy.Proxy = fakeProxy{}

func (h *fakeHost) route(which string) string { return filepath.Join(h.dir, "proxy", which) }

func (h *fakeHost) slot(which string) proxy.Slot {
	data, _ := os.ReadFile(h.route(which))
	return proxy.Slot(strings.TrimSpace(string(data)))
}

func (h *fakeHost) setRoute(which string, s proxy.Slot) error {
	next := h.route(".new")
	return cmp.Or(os.WriteFile(next, []byte(s+"\n"), 0o600), os.Rename(next, h.route(which)))
}

func (fakeProxy) Check(ctx context.Context, h plugins.Host, _ proxy.Layout) ([]string, error) {
	return nil, on(h).call(ctx, "check", func(context.Context) error { return nil })
}

func (fakeProxy) Prepare(ctx context.Context, h plugins.Host, _ proxy.Layout) (changed bool, err error) {
	c := on(h)
	err = c.call(ctx, "prepare", func(context.Context) error {
		if changed = c.host.slot("disk") == ""; !changed {
			return nil
		}
		return cmp.Or(c.host.setRoute("disk", proxy.Blue), c.host.setRoute("live", proxy.Blue))
	})
	return err == nil && changed, err
}

func (fakeProxy) Observe(ctx context.Context, h plugins.Host, l proxy.Layout) (o proxy.Observation, err error) {
	c := on(h)
	err = c.call(ctx, "ask", func(context.Context) error {
		if disk := c.host.slot("disk"); disk != "" {
			o = proxy.Observation{
				Prepared: true, Disk: proxy.Route{App: l.App, Slot: disk, Share: 100},
				Live: proxy.Route{App: l.App, Slot: c.host.slot("live"), Share: 100},
			}
		}
		return nil
	})
	if err != nil {
		return proxy.Observation{}, err
	}
	return o, nil
}

func (fakeProxy) Switch(ctx context.Context, h plugins.Host, _ proxy.Layout, r proxy.Route) error {
	c := on(h)
	return c.call(ctx, "switch", func(context.Context) error {
		if c.host.serving(r.Slot) == nil {
			c.host.note("switched to %s, where nothing runs", r.Slot)
		}
		err := cmp.Or(c.host.setRoute("disk", r.Slot), c.host.setRoute("live", r.Slot))
		c.host.mu.Lock()
		defer c.host.mu.Unlock()
		c.host.watching = true
		return err
	})
}

func (p fakeProxy) RoutedScript(l proxy.Layout, slot proxy.Slot) (string, []string) {
	return `read -r slot <"$1"; [ "$slot" = "$2" ]`, []string{p.w.host(l.Members[0].Name).route("disk"), string(slot)}
}

// serving returns the running container in a slot.
func (h *fakeHost) serving(s proxy.Slot) *plugins.Container {
	found, err := h.list(map[string]string{LabelSlot: string(s)})
	if err != nil {
		h.note("%v", err)
	}
	for _, c := range found {
		if c.Status == plugins.StatusRunning {
			return &c
		}
	}
	return nil
}

func (h *fakeHost) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = append(h.wrong, fmt.Sprintf(format, args...)+" in call "+strconv.Itoa(len(h.calls)))
}

// notRouted notes when a container that is about to end is routed to.
func (h *fakeHost) notRouted(id string) {
	found, _ := h.list(nil)
	for _, c := range found {
		if c.ID == id && h.isWatched() && proxy.Slot(c.Labels[LabelSlot]) == h.slot("disk") {
			h.note("%s is to end and is routed to", id)
		}
	}
}

func (h *fakeHost) isWatched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watching
}

// look checks that what the proxy routes to runs.
func (h *fakeHost) look() {
	if !h.isWatched() {
		return
	}
	for {
		slot := h.slot("disk")
		if h.serving(slot) != nil {
			return
		}
		if h.slot("disk") == slot {
			h.note("the proxy routes to %s, where nothing runs", slot)
			return
		}
	}
}

// version returns what is served on the host: the version of the release in
// the slot that the proxy routes to.
func (h *fakeHost) version(t *testing.T) string {
	t.Helper()
	c := h.serving(h.slot("disk"))
	if c == nil {
		return ""
	}
	var s plugins.Spec
	data, err := os.ReadFile(filepath.Join(h.container(c.ID), "spec"))
	if err := errors.Join(err, json.Unmarshal(data, &s)); err != nil {
		t.Fatal(err)
	}
	return s.Env["TEAL_VERSION"]
}

// versions returns the versions of all containers, running or not.
func (h *fakeHost) versions(t *testing.T) []string {
	t.Helper()
	specs, err := filepath.Glob(filepath.Join(h.dir, "containers", "*", "spec"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, path := range specs {
		var s plugins.Spec
		if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &s) == nil {
			list = append(list, s.Env["TEAL_VERSION"])
		}
	}
	slices.Sort(list)
	return list
}

// state returns the record.
func (h *fakeHost) state(t *testing.T) record.State {
	t.Helper()
	var s record.State
	data, err := os.ReadFile(filepath.Join(h.dir, "root", "shop", "state.json"))
	if err := errors.Join(err, json.Unmarshal(data, &s)); err != nil {
		t.Fatal(err)
	}
	return s
}

// holds fails the test for everything that did not hold on the hosts.
func (w *world) holds() {
	w.t.Helper()
	for _, h := range w.hosts {
		h.mu.Lock()
		wrong := slices.Clone(h.wrong)
		h.mu.Unlock()
		if data, err := os.ReadFile(filepath.Join(h.dir, "wrong")); err == nil {
			wrong = append(wrong, string(data))
		}
		for _, text := range wrong {
			w.t.Errorf("%s: %s", h.name, text)
		}
	}
}

// consistent fails the test unless version is all that there is on every host.
func (w *world) consistent(version string) {
	w.t.Helper()
	w.holds()
	for _, h := range w.hosts {
		s := h.state(w.t)
		got := map[string]any{
			"serves": h.version(w.t), "containers": strings.Join(h.versions(w.t), " "),
			"disk": h.slot("disk"), "live": h.slot("live"), "record": "none", "slot": proxy.Slot(""), "switching": s.Switching != nil,
		}
		want := maps.Clone(got)
		want["serves"], want["containers"], want["record"], want["switching"] = version, version, version, false
		want["live"], want["slot"] = got["disk"], got["disk"]
		if s.Active != nil {
			got["record"], got["slot"] = s.Active.Version, s.Active.Slot
		}
		if !maps.Equal(got, want) {
			w.t.Errorf("%s: %v, want %v", h.name, got, want)
		}
	}
}
