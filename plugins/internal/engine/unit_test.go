package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func dockerEngine() *Engine {
	return &Engine{
		Name: "docker", Program: "docker", Sockets: []string{"/var/run/docker.sock"},
		Rootless: "docker.sock", Start: "systemctl start docker", Group: "docker",
	}
}

// Engine 20.10 and Podman speak 1.41. A client that asks for more is refused
// by them, and must not come in with an update.
func TestClientSpeaksToOldEngines(t *testing.T) {
	_, minor, ok := strings.Cut(client.MinAPIVersion, ".")
	n, err := strconv.Atoi(minor)
	if !ok || err != nil || !strings.HasPrefix(client.MinAPIVersion, "1.") || n > 41 {
		t.Errorf("the client asks for %s or later", client.MinAPIVersion)
	}
}

func TestCreateOptions(t *testing.T) {
	got, err := createOptions(plugins.Spec{
		Name: "shop-blue", Image: "shop@sha256:1", Command: []string{"bin/web"},
		Env: map[string]string{"B": "2", "A": "1"}, Labels: map[string]string{"teal.app": "shop"},
		Mounts: []plugins.Mount{{Source: "/srv/app", Target: "/app", ReadOnly: true}, {Source: "uploads", Target: "/up"}},
		Port:   8080, Publish: netip.MustParseAddrPort("127.0.0.1:20001"),
		Memory: 512 << 20, CPUs: 1.5, StopGrace: 1500 * time.Millisecond, Restart: plugins.RestartAlways,
	})
	if err != nil {
		t.Fatal(err)
	}
	port := network.MustParsePort("8080/tcp")
	two := 2
	want := client.ContainerCreateOptions{
		Name: "shop-blue",
		Config: &container.Config{
			Image: "shop@sha256:1", Cmd: []string{"bin/web"}, Env: []string{"A=1", "B=2"},
			Labels: map[string]string{"teal.app": "shop"}, ExposedPorts: network.PortSet{port: {}}, StopTimeout: &two,
		},
		HostConfig: &container.HostConfig{
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways},
			Resources:     container.Resources{Memory: 512 << 20, NanoCPUs: 1_500_000_000},
			PortBindings:  network.PortMap{port: {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: "20001"}}},
			Mounts: []mount.Mount{
				{Type: mount.TypeBind, Source: "/srv/app", Target: "/app", ReadOnly: true},
				{Type: mount.TypeVolume, Source: "uploads", Target: "/up"},
			},
		},
	}
	same := []cmp.Option{
		cmp.Comparer(func(a, b network.Port) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	}
	if diff := cmp.Diff(want, got, same...); diff != "" {
		t.Error(diff)
	}
}

func TestSpecThatNoEngineTakesIsInvalid(t *testing.T) {
	e := dockerEngine()
	for name, spec := range map[string]plugins.Spec{
		"name of one character": {Name: "a"},
		"port without address":  {Name: "ab", Port: 80},
		"address without port":  {Name: "ab", Port: 80, Publish: netip.MustParseAddrPort("127.0.0.1:0")},
		"restart policy":        {Name: "ab", Restart: "sometimes"},
	} {
		if _, err := e.Create(t.Context(), plugintest.Local("web1"), spec); !errors.Is(err, plugins.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := e.SetRestartPolicy(t.Context(), plugintest.Local("web1"), "id", "sometimes"); !errors.Is(err, plugins.Invalid) {
		t.Error(err)
	}
	if _, err := e.Pull(t.Context(), plugintest.Local("web1"), plugins.PullRequest{Image: "Not An Image"}); !errors.Is(err, plugins.Invalid) {
		t.Error(err)
	}
}

func TestGraceIsRoundedUpToSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int{-1: 0, 0: 0, 1: 1, time.Second: 1, 1001 * time.Millisecond: 2} {
		if got := *seconds(d); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}

func TestFromInspect(t *testing.T) {
	for _, tt := range []struct {
		state container.State
		want  plugins.Container
	}{
		{container.State{Status: "running", Pid: 7, ExitCode: 3}, plugins.Container{Status: plugins.StatusRunning, PID: 7}},
		{container.State{Status: "exited", Pid: 0, ExitCode: 3}, plugins.Container{Status: plugins.StatusExited, ExitCode: 3}},
		{container.State{Status: "created"}, plugins.Container{Status: plugins.StatusOther}},
		{container.State{Status: "restarting", Running: true, Pid: 7}, plugins.Container{Status: plugins.StatusOther}},
		{container.State{Status: "paused", Running: true, Pid: 7}, plugins.Container{Status: plugins.StatusOther}},
		{
			container.State{Status: "running", Pid: 7, Health: &container.Health{Status: "healthy"}},
			plugins.Container{Status: plugins.StatusRunning, PID: 7, Health: plugins.HealthHealthy},
		},
		{
			container.State{Status: "running", Pid: 7, Health: &container.Health{Status: "unhealthy"}},
			plugins.Container{Status: plugins.StatusRunning, PID: 7, Health: plugins.HealthUnhealthy},
		},
		{
			container.State{Status: "running", Pid: 7, Health: &container.Health{Status: "starting"}},
			plugins.Container{Status: plugins.StatusRunning, PID: 7, Health: plugins.HealthStarting},
		},
		{
			container.State{Status: "running", Pid: 7, Health: &container.Health{Status: "none"}},
			plugins.Container{Status: plugins.StatusRunning, PID: 7},
		},
	} {
		tt.want.ID, tt.want.Name, tt.want.Image = "id", "shop", "shop@sha256:1"
		tt.want.Labels = map[string]string{"a": "b"}
		tt.want.Created = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		got := fromInspect(container.InspectResponse{
			ID: "id", Name: "/shop", Created: "2026-01-02T03:04:05.000000006Z", State: &tt.state,
			Config: &container.Config{Image: "shop@sha256:1", Labels: map[string]string{"a": "b"}},
		})
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%+v: %s", tt.state, diff)
		}
	}
}

const (
	sum1 = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	sum2 = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func TestDigestIsTheRepositorysOwn(t *testing.T) {
	for _, tt := range []struct {
		name, image string
		known       []string
		want        string
	}{
		{"never pushed", "shop:1", nil, ""},
		{"only elsewhere", "shop:1", []string{"registry.test/shop@" + sum1}, ""},
		{"one of two repositories", "registry.test/shop:1", []string{"other.test/shop@" + sum1, "registry.test/shop@" + sum2}, sum2},
		{"short name", "busybox", []string{"busybox@" + sum1}, sum1},
		{"two tags of one image", "shop:1", []string{"shop@" + sum2, "shop@" + sum1}, sum1},
		{"pinned", "shop@" + sum2, []string{"shop@" + sum1, "shop@" + sum2}, sum2},
		{"registry with a port", "127.0.0.1:5000/shop:1", []string{"127.0.0.1:5000/shop@" + sum1}, sum1},
	} {
		name, err := reference.ParseNormalizedNamed(tt.image)
		if err != nil {
			t.Fatal(err)
		}
		if got := digestOf(tt.known, name); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestParseImage(t *testing.T) {
	for image, isID := range map[string]bool{
		"shop:1": false, "registry.test:5000/a/b:1": false, "shop@" + sum1: false,
		sum1: true, strings.TrimPrefix(sum1, "sha256:"): true,
	} {
		name, id, err := dockerEngine().parseImage(image)
		if err != nil || (id != "") != isID || (name == nil) != isID {
			t.Errorf("%s: %v, %q, %v", image, name, id, err)
		}
	}
}

func testSession() *session {
	return &session{engine: dockerEngine(), host: plugintest.Local("web1"), dialer: &dialer{}}
}

func TestPullErrorsAreToldApartByTheirText(t *testing.T) {
	for text, want := range map[string]plugins.Kind{
		"Error response from daemon: Get \"https://r.test/v2/\": no basic auth credentials":                                      plugins.Denied,
		"unauthorized: authentication required":                                                                                  plugins.Denied,
		"pull access denied for shop, repository does not exist or may require 'docker login'":                                   plugins.Denied,
		"denied: requested access to the resource is denied":                                                                     plugins.Denied,
		"manifest for r.test/shop:9 not found: manifest unknown: manifest unknown":                                               plugins.NotFound,
		"Get \"https://r.test/v2/\": dial tcp 10.0.0.1:443: connect: connection refused":                                         plugins.Unavailable,
		"Get \"https://r.test/v2/\": dial tcp: lookup r.test on 10.0.0.2:53: no such host":                                       plugins.Unavailable,
		"Get \"https://r.test/v2/\": net/http: request canceled while waiting for connection (Client.Timeout exceeded while aw)": plugins.Unavailable,
		"toomanyrequests: You have reached your pull rate limit":                                                                 plugins.Unavailable,
		"failed to register layer: no space left on device":                                                                      "",
	} {
		if got := plugins.KindOf(testSession().pullError(t.Context(), "pull shop", errors.New(text))); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestErrorsOfTheClientAreClassed(t *testing.T) {
	lost := &plugins.Error{Op: "run", Host: "web1", Kind: plugins.Lost, Err: errors.New("the cable was cut")}
	for _, tt := range []struct {
		name   string
		err    error
		broken error // what the dialer saw
		want   plugins.Kind
	}{
		{"missing", errdefs.ErrNotFound, nil, plugins.NotFound},
		{"conflict", errdefs.ErrConflict, nil, plugins.Conflict},
		{"nonsense", errdefs.ErrInvalidArgument, nil, plugins.Invalid},
		{"rights", errdefs.ErrPermissionDenied, nil, plugins.Denied},
		{"too old", errdefs.ErrNotImplemented, nil, plugins.Unsupported},
		{"overloaded", errdefs.ErrUnavailable, nil, plugins.Unavailable},
		{"internal", errdefs.ErrInternal, nil, ""},
		{"port", fmt.Errorf("%w: driver failed: Bind for 127.0.0.1:80 failed: port is already allocated", errdefs.ErrInternal), nil, plugins.Conflict},
		{"broken off", io.ErrUnexpectedEOF, nil, plugins.Lost},
		{"closed", fmt.Errorf("read: %w", net.ErrClosed), nil, plugins.Lost},
		{"lost by the host", io.EOF, lost, plugins.Lost},
		{"classed already", &plugins.Error{Kind: plugins.Exists}, nil, plugins.Exists},
	} {
		s := testSession()
		s.dialer.err = tt.broken
		if got := plugins.KindOf(s.wrap(t.Context(), "op", tt.err)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if err := testSession().wrap(t.Context(), "op", nil); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("Ctrl-C")
	cancel(cause)
	if err := testSession().wrap(ctx, "op", io.EOF); !errors.Is(err, cause) {
		t.Error(err)
	}
	err := testSession().wrap(t.Context(), "stop shop", errors.New("Error response from daemon: cannot stop"))
	if err.Error() != "web1: stop shop: cannot stop" {
		t.Error(err)
	}
}

func TestProgressIsAFewLines(t *testing.T) {
	var out bytes.Buffer
	p := progress{w: &out, layers: make(map[string]layer)}
	p.see(jsonstream.Message{Status: "Pulling from shop", ID: "1"})
	p.see(jsonstream.Message{Status: "Pulling fs layer", ID: "a"})
	p.see(jsonstream.Message{Status: "Pulling fs layer", ID: "b"})
	for i := range 1000 {
		p.see(jsonstream.Message{Status: "Downloading", ID: "a", Progress: &jsonstream.Progress{Current: int64(i) * 1e6, Total: 1e9}})
	}
	p.see(jsonstream.Message{Status: "Already exists", ID: "b"})
	p.see(jsonstream.Message{Status: "Download complete", ID: "a"})
	p.see(jsonstream.Message{Status: "Pull complete", ID: "a"})
	p.see(jsonstream.Message{Status: "Digest: " + sum1})
	want := "0 of 2 layers, 1 of 1000 MB\n1 of 2 layers, 999 of 1000 MB\n2 of 2 layers\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestParseFacts(t *testing.T) {
	got := parseFacts([]byte("user deploy\ngroups deploy adm\nprogram /usr/bin/docker\nclosed /var/run/docker.sock\nopen /run/user/7/a b.sock\nnoise\n"))
	want := facts{
		user: "deploy", groups: "deploy adm", program: "/usr/bin/docker",
		sockets: []socket{{"/var/run/docker.sock", false}, {"/run/user/7/a b.sock", true}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(facts{}, socket{})); diff != "" {
		t.Error(diff)
	}
}

func TestRoutesAfterTheFirst(t *testing.T) {
	const rootless = "/run/user/7/docker.sock"
	for _, tt := range []struct {
		name string
		f    facts
		want []string
	}{
		{"nothing there", facts{}, nil},
		{
			"become",
			facts{program: "/usr/bin/docker", sockets: []socket{{"/var/run/docker.sock", false}}},
			[]string{"/var/run/docker.sock by a command with become"},
		},
		{"become without the program", facts{sockets: []socket{{"/var/run/docker.sock", false}}}, nil},
		{
			"forwarding is off",
			facts{program: "/usr/bin/docker", sockets: []socket{{"/var/run/docker.sock", true}}},
			[]string{"/var/run/docker.sock by a command"},
		},
		{
			"rootless beside a closed one",
			facts{program: "/usr/bin/docker", sockets: []socket{{"/var/run/docker.sock", false}, {rootless, true}}},
			[]string{rootless, rootless + " by a command", "/var/run/docker.sock by a command with become"},
		},
	} {
		var got []string
		for _, r := range dockerEngine().routes(tt.f) {
			got = append(got, r.String())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestEngineThatNamesImagesInFullRefusesShortNames(t *testing.T) {
	e := dockerEngine()
	e.Qualified = true
	for image, want := range map[string]string{
		"registry.test:5000/a/b:1": "registry.test:5000/a/b",
		"localhost/shop:1":         "localhost/shop",
		"docker.io/library/shop":   "docker.io/library/shop",
		"docker.io/team/shop":      "docker.io/team/shop",
		sum1:                       "",
		"shop":                     "docker.io/library/shop",
		"team/shop:1":              "docker.io/team/shop:1",
		"library/shop@" + sum1:     "docker.io/library/shop@" + sum1,
	} {
		name, id, err := e.parseImage(image)
		switch {
		case err != nil:
			if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "localhost/"+image) {
				t.Errorf("%s: %v", image, err)
			}
		case id == "" && e.nameOf(name) != want:
			t.Errorf("%s: %s, not %s", image, e.nameOf(name), want)
		case id != "" && want != "":
			t.Errorf("%s is an id", image)
		}
	}
	name, _, err := dockerEngine().parseImage("docker.io/library/shop:1")
	if err != nil || dockerEngine().nameOf(name) != "shop" {
		t.Errorf("Docker calls it %s, %v", dockerEngine().nameOf(name), err)
	}
}

func TestLimitThatWasLeftOutIsFound(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec plugins.Spec
		got  container.HostConfig
		want string // in the error; "": none
	}{
		{"none asked for", plugins.Spec{}, container.HostConfig{}, ""},
		{"memory", plugins.Spec{Memory: 1}, container.HostConfig{}, "memory"},
		{"processors", plugins.Spec{CPUs: 1}, container.HostConfig{}, "processors"},
		{
			"both kept",
			plugins.Spec{Memory: 1, CPUs: 1},
			container.HostConfig{Resources: container.Resources{Memory: 1, NanoCPUs: 1e9}},
			"",
		},
		{"processors as a quota", plugins.Spec{CPUs: 1}, container.HostConfig{Resources: container.Resources{CPUQuota: 1}}, ""},
	} {
		err := ignored(tt.spec, &tt.got)
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestImageOfAContainerStandsInAHiddenLabel(t *testing.T) {
	labels := map[string]string{imageLabel: "shop@sha256:1", "a": "b"}
	got := fromInspect(container.InspectResponse{ID: "id", Config: &container.Config{Image: "other:2", Labels: labels}})
	want := plugins.Container{ID: "id", Image: "shop@sha256:1", Labels: map[string]string{"a": "b"}, Status: plugins.StatusOther}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(labels) != 2 {
		t.Errorf("the engine's labels were changed: %v", labels)
	}
}

// located is an engine whose routes lead to what commands of this machine do.
func located(routes ...Route) *Engine {
	e := dockerEngine()
	e.Locate = func(context.Context, plugins.Host) ([]Route, error) { return routes, nil }
	return e
}

func TestServiceThatDoesNotStartSaysWhy(t *testing.T) {
	e := located(Route{Serve: []string{"sh", "-c", "echo no space left >&2; exit 3"}})
	_, err := e.Probe(t.Context(), plugintest.Local("web1"))
	if !errors.Is(err, plugins.Unavailable) || !strings.Contains(err.Error(), "no space left") {
		t.Error(err)
	}
}

func TestServiceThatNeverListensIsNotWaitedForBeyondTheContext(t *testing.T) {
	e := located(Route{Serve: []string{"sh", "-c", "cat"}})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := e.Probe(ctx, plugintest.Local("web1"))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestRoutesAreTriedUntilOneWorks(t *testing.T) {
	dir := t.TempDir()
	lis, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.41")
	})}
	go func() { _ = srv.Serve(lis) }()
	defer srv.Close()
	e := located(
		Route{Socket: filepath.Join(dir, "stale")},
		Route{Serve: []string{"sh", "-c", "exit 1"}},
		Route{Serve: []string{"sh", "-c", `echo "$1"; cat >/dev/null; : >"$2"`, "sh", lis.Addr().String(), filepath.Join(dir, "ended")}},
	)
	got, err := e.Route(t.Context(), plugintest.Local("web1"))
	if err != nil || got.Serve == nil {
		t.Fatalf("%v, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ended")); err != nil {
		t.Errorf("the service's command was not ended in order: %v", err)
	}
}

func TestNoRouteIsTriedThatCannotBeFound(t *testing.T) {
	e := dockerEngine()
	want := &plugins.Error{Kind: plugins.Denied}
	e.Locate = func(context.Context, plugins.Host) ([]Route, error) { return nil, want }
	if _, err := e.Probe(t.Context(), plugintest.Local("web1")); !errors.Is(err, plugins.Denied) {
		t.Error(err)
	}
}

// An engine is a moment late to know that a process has ended.
func TestRestartPolicyOfAContainerThatHasJustEndedIsSetLater(t *testing.T) {
	for _, tt := range []struct {
		says  []string // what an update is answered with; "": it went well
		tries int
		want  string
	}{
		{[]string{"cannot update a deleted process: unknown", "cannot update a stopped container: unknown", ""}, 3, ""},
		{[]string{"marked for removal"}, 1, "marked for removal"},
		{slices.Repeat([]string{"cannot update a stopped container: unknown"}, 11), 10, "cannot update a stopped container"},
	} {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		tries := 0
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/containers/shop/update") {
				w.Header().Set("Api-Version", "1.41")
				return
			}
			if tries++; tt.says[tries-1] != "" {
				w.WriteHeader(http.StatusInternalServerError)
			}
			fmt.Fprintf(w, `{"message":"Cannot update container shop: %s"}`, tt.says[tries-1])
		})}
		go func() { _ = srv.Serve(l) }()
		err = (&Engine{Name: "docker", Sockets: []string{socket}}).SetRestartPolicy(t.Context(), plugintest.Local("web1"), "shop", plugins.RestartNever)
		_ = srv.Close()
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) || tries != tt.tries {
			t.Errorf("%v after %d tries, want %q after %d", err, tries, tt.want, tt.tries)
		}
	}
}
