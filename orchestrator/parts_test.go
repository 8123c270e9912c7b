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
	return plugins.Info{Name: "fake", Warnings: on(h).host.warns}, on(h).call(ctx, "probe", func(context.Context) error { return nil })
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
		// It is there as a whole or not at all: list reads at any moment.
		whole := filepath.Join(dir, "spec")
		return errors.Join(
			err, os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "running"), nil, 0o600),
			os.WriteFile(whole+".new", data, 0o600), os.Rename(whole+".new", whole),
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

// The commands of the teardown note in the file wrong when they end what a
// proxy routes to.
const (
	pidCommand = `[ ! -e "$1/running" ] || echo "$2"`
	ending     = `dir=$1 slot=$2 wrong=$3
shift 3
for route in "$@"; do
	read -r share <"$route" 2>/dev/null || continue
	case $slot/$share in
	*/-1 | blue/100 | green/0) ;;
	*) echo "$dir is to end, and $route says $share" >>"$wrong" ;;
	esac
done
`
	stopCommand   = ending + `rm -f "$dir/running"`
	removeCommand = ending + `rm -rf "$dir"`
)

func (fakeRuntime) LocalCommands(ctx context.Context, h plugins.Host, id string, _ time.Duration) (plugins.LocalCommands, error) {
	c := on(h)
	dir := c.host.container(id)
	found, err := c.host.list(nil)
	i := slices.IndexFunc(found, func(c plugins.Container) bool { return c.ID == id })
	if err != nil || i < 0 {
		return plugins.LocalCommands{}, errors.Join(err, plugins.NotFound)
	}
	args := append([]string{"teal", dir, found[i].Labels[LabelSlot], filepath.Join(c.host.dir, "wrong")}, c.host.routes("disk")...)
	script := func(s string) []string { return append([]string{"sh", "-c", s}, args...) }
	return plugins.LocalCommands{
		PID:    []string{"sh", "-c", pidCommand, "teal", dir, strconv.Itoa(os.Getpid())},
		Stop:   script(stopCommand),
		Remove: script(removeCommand),
	}, c.call(ctx, "commands", func(context.Context) error { return nil })
}

// A fakeProxy keeps for every member two files: disk, which teal writes, and
// live, which follows it.
type fakeProxy struct{ w *world }

var _ proxy.Proxy = fakeProxy{}

// route is the file of a member on a proxy's host.
func (h *fakeHost) route(which, member string) string {
	return filepath.Join(h.dir, "proxy", which+"-"+member)
}

// proxies are the hosts whose proxies lead to h.
func (h *fakeHost) proxies() []*fakeHost {
	if len(h.balancers) > 0 {
		return h.balancers
	}
	return []*fakeHost{h}
}

// routes are the files that say where the requests for h go to.
func (h *fakeHost) routes(which string) (files []string) {
	for _, p := range h.proxies() {
		files = append(files, p.route(which, h.name))
	}
	return files
}

// share is what a proxy does with a member; false: it does not know it.
func (h *fakeHost) share(which, member string) (proxy.Share, bool) {
	data, err := os.ReadFile(h.route(which, member))
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return proxy.Share(n), err == nil
}

// slot is the one that all proxies lead to; "" when none does, or not all.
func (h *fakeHost) slot(which string) proxy.Slot {
	found := proxy.Slot("")
	for i, p := range h.proxies() {
		share, _ := p.share(which, h.name)
		slot, whole := share.Slot()
		if _, err := os.Stat(p.route(which, h.name)); err != nil || !whole || i > 0 && slot != found {
			return ""
		}
		found = slot
	}
	return found
}

func (h *fakeHost) setRoute(which, member string, s proxy.Share) error {
	next := h.route(".new", member)
	if which == "live" {
		h.mu.Lock()
		if h.told == nil {
			h.told = map[string][]proxy.Share{}
		}
		if s != proxy.Off {
			h.told[member] = append(h.told[member], s)
		}
		h.mu.Unlock()
	}
	return cmp.Or(os.WriteFile(next, fmt.Appendln(nil, int(s)), 0o600), os.Rename(next, h.route(which, member)))
}

// names is what a proxy says of the releases in a member's slots.
func (h *fakeHost) names(member string) map[proxy.Slot]string {
	var names map[proxy.Slot]string
	data, _ := os.ReadFile(h.route("holds", member)) // none: nothing was named
	_ = json.Unmarshal(data, &names)
	return names
}

// setNames makes a proxy remember releases, beside those that it knows.
func (h *fakeHost) setNames(member string, releases map[proxy.Slot]string) error {
	names := map[proxy.Slot]string{}
	maps.Copy(names, h.names(member))
	maps.Copy(names, releases)
	data, err := json.Marshal(names)
	next := h.route(".named", member)
	return cmp.Or(err, os.WriteFile(next, data, 0o600), os.Rename(next, h.route("holds", member)))
}

func (h *fakeHost) setBoth(member string, s proxy.Share) error {
	return cmp.Or(h.setRoute("disk", member, s), h.setRoute("live", member, s))
}

func (fakeProxy) Check(ctx context.Context, h plugins.Host, _ proxy.Layout) ([]string, error) {
	return nil, on(h).call(ctx, "check", func(context.Context) error { return nil })
}

func (fakeProxy) Prepare(ctx context.Context, h plugins.Host, l proxy.Layout) (changed bool, err error) {
	c := on(h)
	err = c.call(ctx, "prepare", func(context.Context) error {
		layout, err := json.Marshal(l)
		if err != nil {
			return err
		}
		file := filepath.Join(c.host.dir, "proxy", "layout")
		had, _ := os.ReadFile(file)
		if changed = string(had) != string(layout); !changed {
			return nil
		}
		for _, m := range l.Members {
			if _, known := c.host.share("disk", m.Name); known {
				continue
			}
			if err := c.host.setBoth(m.Name, proxy.Off); err != nil {
				return err
			}
		}
		return os.WriteFile(file, layout, 0o600)
	})
	return err == nil && changed, err
}

func (fakeProxy) Observe(ctx context.Context, h plugins.Host, l proxy.Layout) (o proxy.Observation, err error) {
	c := on(h)
	err = c.call(ctx, "ask", func(context.Context) error {
		layout, err := json.Marshal(l)
		if err != nil {
			return err
		}
		had, _ := os.ReadFile(filepath.Join(c.host.dir, "proxy", "layout"))
		o = proxy.Observation{Outdated: string(had) != string(layout), Disk: proxy.Route{}, Live: proxy.Route{}, Holds: proxy.Releases{}}
		for _, m := range l.Members {
			if share, known := c.host.share("disk", m.Name); known {
				o.Prepared, o.Disk[m.Name] = true, share
				o.Live[m.Name], _ = c.host.share("live", m.Name)
				o.Holds[m.Name] = c.host.names(m.Name)
			}
		}
		return nil
	})
	if err != nil {
		return proxy.Observation{}, err
	}
	return o, nil
}

func (p fakeProxy) Switch(ctx context.Context, h plugins.Host, l proxy.Layout, change proxy.Route, holds proxy.Releases) error {
	c := on(h)
	return c.call(ctx, "switch", func(context.Context) error {
		for member, share := range change {
			server := p.w.host(member)
			if err := c.host.setNames(member, holds[member]); err != nil {
				return err
			}
			for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
				serving, named := server.serving(slot), holds.Of(member, slot)
				if share.Of(slot) > 0 && serving == nil {
					server.note("switched to %s, where nothing runs", slot)
				} else if share.Of(slot) > 0 && named != "" && serving.Labels[LabelRelease] != named {
					server.note("switched to %s with the name of %s, and %s runs there", slot, named, serving.Labels[LabelRelease])
				}
			}
			if !slices.ContainsFunc(l.Members, func(m proxy.Member) bool { return m.Name == member }) {
				c.host.note("switched %s, which is no member", member)
			}
			if err := c.host.setBoth(member, share); err != nil {
				return err
			}
			server.mu.Lock()
			server.watching = true
			server.mu.Unlock()
		}
		return nil
	})
}

func (p fakeProxy) RoutedScript(_ proxy.Layout, member string, slot proxy.Slot) (string, []string) {
	return `read -r share <"$1"; case $2/$share in */-1 | blue/100 | green/0) exit 1 ;; esac`,
		[]string{p.w.host(member).route("disk", member), string(slot)}
}

func (fakeProxy) Usage(proxy.Layout) string { return "" }

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

// routed reports whether any proxy gives the slot requests.
func (h *fakeHost) routed(slot proxy.Slot) bool {
	for _, p := range h.proxies() {
		if share, known := p.share("disk", h.name); known && share.Of(slot) > 0 {
			return true
		}
	}
	return false
}

// notRouted notes when a container that is about to end is routed to.
func (h *fakeHost) notRouted(id string) {
	found, _ := h.list(nil)
	for _, c := range found {
		if c.ID == id && h.isWatched() && h.routed(proxy.Slot(c.Labels[LabelSlot])) {
			h.note("%s is to end and is routed to", id)
		}
	}
}

func (h *fakeHost) isWatched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watching
}

// look checks that what the proxies route to runs.
func (h *fakeHost) look() {
	if !h.isWatched() {
		return
	}
	for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green} {
		if h.routed(slot) && h.serving(slot) == nil && h.routed(slot) {
			h.note("a proxy routes to %s, where nothing runs", slot)
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
	for _, h := range w.all() {
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
		for _, p := range h.proxies() {
			if slot := h.slot("live"); slot != "" && s.Active != nil && p.names(h.name)[slot] != s.Active.ID {
				w.t.Errorf("%s names %v for %s, want %s in %s", p.name, p.names(h.name), h.name, s.Active.ID, slot)
			}
		}
	}
}
