package orchestrator

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// A pulling runtime pulls as an engine does: from the registry that a reference
// names, and only what the host lacks.
type pulling struct {
	fakeRuntime
	loaded atomic.Int64 // bytes of blobs that came
	pulls  atomic.Int64 // that asked a registry
	deaf   bool         // it does not reach the host's loopback address
	linger func()       // before it says that it has pulled
}

func (p *pulling) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (img plugins.Image, err error) {
	c := on(h)
	err = c.call(ctx, "pull", func(ctx context.Context) error {
		_, digest, _ := strings.Cut(req.Image, "@")
		img = plugins.Image{Reference: req.Image, Digest: digest}
		// An engine knows a manifest by the name that it came under.
		if _, err := os.Stat(c.host.blob(req.Image)); err == nil {
			return nil
		}
		fault := &plugins.Error{Op: "pull " + req.Image, Host: c.host.name}
		if fault.Kind = plugins.NotFound; req.Policy == plugins.PullNever {
			return fault
		}
		if fault.Kind = plugins.Unavailable; p.deaf {
			return fault
		}
		p.pulls.Add(1)
		if p.linger != nil {
			defer p.linger()
		}
		return p.download(ctx, c.host, req)
	})
	return img, err
}

// blob is the file of what an engine has under a name.
func (h *fakeHost) blob(name string) string {
	return filepath.Join(h.dir, "containers", "..", "blobs", strings.NewReplacer("/", "_", ":", "_").Replace(name))
}

func (p *pulling) download(ctx context.Context, h *fakeHost, req plugins.PullRequest) error {
	address, rest, _ := strings.Cut(req.Image, "/")
	repository, digest, _ := strings.Cut(rest, "@")
	get := func(kind, digest string) ([]byte, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v2/"+repository+"/"+kind+"/"+digest, nil)
		if err != nil {
			return nil, err
		}
		r.SetBasicAuth(req.Auth.Username, req.Auth.Password)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if got := fmt.Sprintf("sha256:%x", sha256.Sum256(b)); err == nil && got != digest {
			err = fmt.Errorf("%s is %s: %s", digest, got, b)
		}
		return b, err
	}
	text, err := get("manifests", digest)
	if err != nil {
		return err
	}
	type descriptor struct{ Digest string }
	var m struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(h.blob("x")), 0o700); err != nil {
		return err
	}
	for _, d := range append(m.Layers, m.Config) {
		if _, err := os.Stat(h.blob(d.Digest)); err == nil {
			continue
		}
		b, err := get("blobs", d.Digest)
		if err != nil {
			return err
		}
		p.loaded.Add(int64(len(b)))
		if err := os.WriteFile(h.blob(d.Digest), b, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(h.blob(req.Image), text, 0o600)
}

// An uploading teal has the runtime that pulls.
func (w *world) uploading(p plugins.Runtime) *teal {
	t := w.teal()
	t.Runtime = func(context.Context, spec.App) (plugins.Runtime, error) { return p, nil }
	t.Images = filepath.Join(filepath.Dir(w.hosts[0].dir), "images")
	return t
}

// newUploadWorld makes hosts for an image that is an archive beside the app
// file.
func newUploadWorld(t *testing.T, hosts int, replace ...string) *world {
	t.Helper()
	replace = append(replace, "pull = \"never\"\n", "pull = \"upload\"\narchive = \"shop.tar\"\n", `name = "shop:${version}"`, `name = "shop:1"`)
	w := newWorld(t, hosts, replace...)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return w
}

// build writes an image of layers, a text each.
func (w *world) build(layers ...string) (digest string) {
	w.t.Helper()
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	add := func(name string, content []byte) {
		err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))})
		if _, wrong := archive.Write(content); err != nil || wrong != nil {
			w.t.Fatal(err, wrong)
		}
	}
	sum := func(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
	var names, ids []string
	for i, text := range layers {
		names = append(names, fmt.Sprintf("%d.tar", i))
		ids = append(ids, sum([]byte(text)))
		add(names[i], []byte(text))
	}
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		return b
	}
	config := encode(map[string]any{"os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	add("config", config)
	add("manifest.json", encode([]any{map[string]any{"Config": "config", "Layers": names}}))
	if err := errors.Join(archive.Close(), os.WriteFile(filepath.Join(filepath.Dir(w.hosts[0].dir), "shop.tar"), out.Bytes(), 0o600)); err != nil {
		w.t.Fatal(err)
	}
	return sum(config)
}

// random is a text that cannot be made smaller by much.
func random(n int, seed string) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%x", sha256.Sum256(fmt.Append(nil, seed, i)))
	}
	return b.String()
}

func TestUploadSendsOnlyWhatAHostLacks(t *testing.T) {
	t.Parallel()
	w, p := newUploadWorld(t, 1), &pulling{}
	deploy := func(version string) *teal {
		t.Helper()
		teal := w.uploading(p)
		if res := teal.deploy(t.Context(), version, detached); res.Outcome != OutcomeDone {
			t.Fatalf("%s: %s", res.Outcome, explain(res))
		}
		w.quiet()
		return teal
	}
	base, first, second := random(100_000, "base"), random(10_000, "first"), random(10_000, "second")
	one := w.build(base, first)
	req := w.req
	req.Version = "1"
	plan, err := w.uploading(p).Plan(t.Context(), req)
	if want := "upload what the host lacks of shop:1 at " + short(one); err != nil || !strings.Contains(plan.String(), want) {
		t.Errorf("the plan before it, %v:\n%s\nwant %s", err, plan, want)
	}
	deploy("1")
	whole := p.loaded.Swap(0)
	if whole < 50_000 {
		t.Errorf("%d bytes are less than the image", whole)
	}
	two := w.build(base, second)
	teal := deploy("2")
	if part := p.loaded.Swap(0); part == 0 || part > whole/5 {
		t.Errorf("%d bytes were sent for a change, and %d for the whole", part, whole)
	}
	if !slices.ContainsFunc(teal.events, func(e Event) bool {
		return e.Step == StepImage && e.Status == StatusDone && strings.Contains(e.Text, short(two)) && strings.Contains(e.Text, "kB sent")
	}) {
		t.Errorf("no event says what was sent: %v", teal.events)
	}

	// Nothing differs, and a plan has no need to pack anything.
	req.Version = "2"
	plan, err = w.uploading(p).Plan(t.Context(), req)
	if err != nil || plan.Changes() || plan.Digest != two {
		t.Errorf("the plan after it: %v\n%s", err, plan)
	}

	// A host that has the image is asked for it by its former name: no port is
	// opened, nothing is pulled.
	p.pulls.Store(0)
	for _, h := range w.hosts {
		h.calls = nil
	}
	teal = w.uploading(p)
	if res := teal.Rollback(t.Context(), w.req, "1"); res.Outcome != OutcomeDone || res.Digest != one {
		t.Fatalf("%s: %s", res.Outcome, explain(res))
	}
	w.quiet()
	for _, h := range w.hosts {
		if p.pulls.Load() > 0 || slices.Contains(h.calls, "listen") {
			t.Errorf("%d pulls to go back, calls of %s are %v", p.pulls.Load(), h.name, h.calls)
		}
	}
	deploy("3") // the second image once more
	if p.pulls.Load() > 0 || p.loaded.Load() > 0 {
		t.Errorf("%d pulls and %d bytes for what is there already", p.pulls.Load(), p.loaded.Load())
	}

	// A host that has lost it gets it again, by whatever way it was to get it.
	if err := os.RemoveAll(filepath.Dir(w.hosts[0].blob("x"))); err != nil {
		t.Fatal(err)
	}
	w.build(base, first)
	if res := w.uploading(p).Rollback(t.Context(), w.req, "1"); res.Outcome != OutcomeDone || p.pulls.Load() != 1 {
		t.Errorf("%d pulls: %s", p.pulls.Load(), explain(res))
	}
	w.quiet()
	if err := os.RemoveAll(filepath.Dir(w.hosts[0].blob("x"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(filepath.Dir(w.hosts[0].dir), "shop.tar"), filepath.Join(t.TempDir(), "shop.tar")); err != nil {
		t.Fatal(err)
	}
	res := w.uploading(p).Rollback(t.Context(), w.req, "3")
	if want := "web1 no longer has " + short(two) + ": upload shop:1 from "; res.Outcome != OutcomeFailed || !strings.Contains(res.Err.Error(), want) {
		t.Errorf("%s: %s\nwant %s", res.Outcome, explain(res), want)
	}
	w.build(base, first)
	res = w.uploading(p).Rollback(t.Context(), w.req, "3")
	if want := "web1 no longer has " + short(two) + ", and this machine has " + short(one); res.Outcome != OutcomeFailed ||
		!strings.Contains(res.Err.Error(), want) {
		t.Errorf("%s: %s\nwant %s", res.Outcome, explain(res), want)
	}
}

func TestUploadSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	w, p := newUploadWorld(t, 1), &pulling{}
	w.build("x")
	said := make(chan struct{})
	p.linger = func() { <-said }
	teal := w.uploading(p)
	teal.telling = time.Millisecond
	tell := sync.OnceFunc(func() { close(said) })
	teal.Emit = func(e Event) {
		if e.Step == StepImage && strings.HasSuffix(e.Text, " sent so far") {
			tell()
		}
	}
	if res := teal.deploy(t.Context(), "1", detached); res.Outcome != OutcomeDone {
		t.Errorf("%s: %s", res.Outcome, explain(res))
	}
}

func TestUploadThatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*world, *pulling)
		outcome Outcome
		says    string
	}{
		{"no archive", func(w *world, _ *pulling) { w.edit("shop.tar", "none.tar") }, OutcomeFailed, "none.tar: no such file"},
		{"an engine that does not reach its host", func(_ *world, p *pulling) { p.deaf = true }, OutcomeFailed, "give it the image by a registry"},
		{
			"forbidden",
			func(w *world, _ *pulling) { w.hosts[0].fault = &fault{kind: failing, op: "listen", nth: 1} },
			OutcomeFailed, "injected failure",
		},
		{
			"the connection goes while it is sent",
			func(w *world, _ *pulling) {
				w.hosts[0].fault = &fault{kind: lostAfter, op: "listen", nth: 1}
			},
			OutcomeUnreachable, "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, p := newUploadWorld(t, 1), &pulling{}
			w.build("x")
			tt.prepare(w, p)
			res := w.uploading(p).deploy(t.Context(), "1", detached)
			if res.Outcome != tt.outcome || !strings.Contains(explain(res), tt.says) {
				t.Errorf("%s: %s", res.Outcome, explain(res))
			}
		})
	}
}

// A counting runtime notes how many hosts pull at the same time.
type counting struct {
	fakeRuntime
	now, most atomic.Int64
	mu        sync.Mutex
	order     []string
	auths     map[string]plugins.Auth
}

func (c *counting) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	if req.Policy == plugins.PullNever {
		return plugins.Image{}, &plugins.Error{Op: "pull", Kind: plugins.NotFound}
	}
	now := c.now.Add(1)
	defer c.now.Add(-1)
	c.mu.Lock()
	c.most.Store(max(c.most.Load(), now))
	c.order = append(c.order, h.String())
	if req.Auth != nil {
		c.auths[h.String()] = *req.Auth
	}
	c.mu.Unlock()
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
		return plugins.Image{}, context.Cause(ctx)
	}
	return c.fakeRuntime.Pull(ctx, h, req)
}

func TestNeverMoreHostsPullAtOnceThanAreToldTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 9, `pull = "never"`, "pull = \"always\"\npull_parallel = 2", "shop:${version}", "127.0.0.1:1/shop:${version}")
	c := &counting{}
	teal := w.uploading(c)
	if res := teal.deploy(t.Context(), "1", detached); res.Outcome != OutcomeDone {
		t.Fatalf("%s: %s", res.Outcome, explain(res))
	}
	w.quiet()
	if c.most.Load() != 2 || len(c.order) != 9 {
		t.Errorf("%d hosts pulled at once, %d in all", c.most.Load(), len(c.order))
	}
	// Who waited first went first.
	var waited []string
	for _, e := range teal.events {
		if e.Step == StepImage && e.Text == "waits for its turn to pull, 2 at a time" {
			waited = append(waited, e.Host)
		}
	}
	if len(waited) < 4 || !sameOrder(waited, c.order) {
		t.Errorf("%v waited, and pulled in the order %v", waited, c.order)
	}
}

// A host that has the image does not wait for those that pull.
func TestHostThatHasTheImageDoesNotWait(t *testing.T) {
	t.Parallel()
	_, name, _ := registryOf(t)
	w := newWorld(t, 2, `pull = "never"`, "pull = \"always\"\npull_parallel = 1", "shop:${version}", name+":${version}")
	other := make(chan struct{})
	b := &blocking{free: other}
	teal := w.uploading(b)
	free := sync.OnceFunc(func() { close(other) })
	teal.Emit = func(e Event) {
		if e.Host == "web2" && e.Step == StepImage && e.Status == StatusDone {
			free()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if res := teal.deploy(ctx, "1", detached); res.Outcome != OutcomeDone {
		t.Errorf("%s: %s", res.Outcome, explain(res))
	}
}

// A blocking runtime lets web1 pull only when it is told to; web2 has the image.
type blocking struct {
	fakeRuntime
	free <-chan struct{}
}

func (b *blocking) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	if h.String() == "web1" {
		if req.Policy == plugins.PullNever {
			return plugins.Image{}, &plugins.Error{Op: "pull", Kind: plugins.NotFound}
		}
		select {
		case <-b.free:
		case <-ctx.Done():
			return plugins.Image{}, context.Cause(ctx)
		}
	}
	return b.fakeRuntime.Pull(ctx, h, req)
}

// sameOrder reports whether a few come in the order of some, in which the next
// of those that go at the same time may be first by a moment.
func sameOrder(some, all []string) bool {
	last := -1
	for _, s := range some {
		at := slices.Index(all, s)
		if at < last-1 {
			return false
		}
		last = max(last, at)
	}
	return true
}

func TestLoginsAreThoseOfEachHost(t *testing.T) {
	t.Setenv("EAST_PASSWORD", "pass-of-the-east")
	t.Setenv("WEST_PASSWORD", "pass-of-the-west")
	w := newWorld(t, 3, `pull = "never"`, `pull = "always"
username = "${region}"
password = { env = "${region}_PASSWORD" }`, "shop:${version}", "127.0.0.1:1/shop:${version}")
	for i, region := range []string{"EAST", "WEST", "EAST"} {
		w.req.Hosts[i].Vars["region"] = region
	}
	c := &counting{auths: map[string]plugins.Auth{}}
	teal := w.uploading(c)
	if res := teal.deploy(t.Context(), "1", detached); res.Outcome != OutcomeDone {
		t.Fatalf("%s: %s", res.Outcome, explain(res))
	}
	w.quiet()
	east, west := plugins.Auth{Username: "EAST", Password: "pass-of-the-east"}, plugins.Auth{Username: "WEST", Password: "pass-of-the-west"}
	if diff := cmp.Diff(map[string]plugins.Auth{"web1": east, "web2": west, "web3": east}, c.auths); diff != "" {
		t.Error(diff)
	}
	if err := os.Unsetenv("WEST_PASSWORD"); err != nil {
		t.Fatal(err)
	}
	res := w.uploading(c).deploy(t.Context(), "2", detached)
	if res.Outcome != OutcomeUsage || !strings.Contains(explain(res), "WEST_PASSWORD: it is not set") {
		t.Errorf("%s: %s", res.Outcome, explain(res))
	}
}

// registryOf starts a registry with one image, and counts how often it is asked
// for it.
func registryOf(t *testing.T) (asked *atomic.Int64, name, digest string) {
	t.Helper()
	const manifest = `{"schemaVersion":2}`
	asked = new(atomic.Int64)
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		asked.Add(1)
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
		_, _ = io.WriteString(w, manifest)
	}))
	t.Cleanup(registry.Close)
	return asked, strings.TrimPrefix(registry.URL, "http://") + "/shop", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest)))
}

// A noting runtime notes what it is asked to pull. A host may have another
// image than the one that it was asked for.
type noting struct {
	fakeRuntime
	mu    sync.Mutex
	asked map[string]plugins.PullRequest
	wrong string // the host
}

func (n *noting) Pull(ctx context.Context, h plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	n.mu.Lock()
	req.Progress = nil
	n.asked[h.String()] = req
	n.mu.Unlock()
	if req.Policy == plugins.PullNever {
		return plugins.Image{}, &plugins.Error{Op: "pull", Kind: plugins.NotFound}
	}
	img, err := n.fakeRuntime.Pull(ctx, h, req)
	if h.String() == n.wrong {
		img.Digest = "sha256:" + strings.Repeat("0", 64)
	}
	return img, err
}

func TestDigestIsResolvedOnceAndProvenOnEveryHost(t *testing.T) {
	t.Parallel()
	asked, name, digest := registryOf(t)
	w := newWorld(t, 3, `pull = "never"`, `pull = "always"`, "shop:${version}", name+":${version}")
	n := &noting{asked: map[string]plugins.PullRequest{}}
	if res := w.uploading(n).deploy(t.Context(), "1", detached); res.Outcome != OutcomeDone || res.Digest != digest {
		t.Fatalf("%s with %s: %s", res.Outcome, res.Digest, explain(res))
	}
	w.quiet()
	same := plugins.PullRequest{Image: name + "@" + digest, Policy: plugins.PullMissing}
	if diff := cmp.Diff(map[string]plugins.PullRequest{"web1": same, "web2": same, "web3": same}, n.asked); diff != "" {
		t.Error(diff)
	}
	if asked.Load() != 1 {
		t.Errorf("the registry was asked %d times", asked.Load())
	}

	n.wrong = "web2"
	res := w.uploading(n).deploy(t.Context(), "2", detached)
	if res.Outcome != OutcomeFailed || !strings.Contains(explain(res), "they would not run the same image") {
		t.Errorf("%s: %s", res.Outcome, explain(res))
	}
	for _, h := range w.hosts {
		if slot := h.slot("live"); slot != proxy.Green {
			t.Errorf("%s serves from %q, and is to serve the first release from green", h.name, slot)
		}
	}
}
