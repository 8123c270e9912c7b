package podman_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/podman"
)

func TestPullFromARegistry(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	p.Serve(t, "")
	login := &plugins.Auth{Username: "ci", Password: "s3cret"}
	open := p.Registry(t, 5001, "", "")
	closed := p.Registry(t, 5002, login.Username, login.Password)
	p.Push(t, open+"/shop:1", nil)
	p.Push(t, closed+"/shop:1", login)
	rt, h := podman.New(), p.Host("web1", "")
	for _, tt := range []struct {
		name string
		req  plugins.PullRequest
		kind plugins.Kind
	}{
		{"never, before", plugins.PullRequest{Image: open + "/shop:1", Policy: plugins.PullNever}, plugins.NotFound},
		{"missing", plugins.PullRequest{Image: open + "/shop:1", Policy: plugins.PullMissing}, ""},
		{"never, after", plugins.PullRequest{Image: open + "/shop:1", Policy: plugins.PullNever}, ""},
		{"always", plugins.PullRequest{Image: open + "/shop:1", Policy: plugins.PullAlways}, ""},
		{"no such tag", plugins.PullRequest{Image: open + "/shop:9", Policy: plugins.PullAlways}, plugins.NotFound},
		{"no such repository", plugins.PullRequest{Image: open + "/nothing:1", Policy: plugins.PullMissing}, plugins.NotFound},
		{"no registry", plugins.PullRequest{Image: "127.0.0.1:5999/shop:1", Policy: plugins.PullAlways}, plugins.Unavailable},
		{"no login", plugins.PullRequest{Image: closed + "/shop:1", Policy: plugins.PullAlways}, plugins.Denied},
		{"wrong login", plugins.PullRequest{Image: closed + "/shop:1", Policy: plugins.PullAlways, Auth: &plugins.Auth{Username: "ci", Password: "wrong"}}, plugins.Denied},
		{"without TLS and a setting", plugins.PullRequest{Image: strings.Replace(open, "127.0.0.1", "localhost", 1) + "/shop:1", Policy: plugins.PullAlways}, ""},
		{"login", plugins.PullRequest{Image: closed + "/shop:1", Policy: plugins.PullAlways, Auth: login}, ""},
	} {
		img, err := rt.Pull(t.Context(), h, tt.req)
		if plugins.KindOf(err) != tt.kind || (err != nil) != (tt.kind != "") {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wrong") {
				t.Errorf("%s: the password is in the error", tt.name)
			}
			continue
		}
		if want := strings.TrimSuffix(tt.req.Image, ":1") + "@" + img.Digest; img.Reference != want {
			t.Errorf("%s: %+v, not %s", tt.name, img, want)
		}
		policy := plugins.PullNever
		if tt.req.Policy == plugins.PullAlways {
			policy = plugins.PullAlways // the registry knows it too
		}
		pinned, err := rt.Pull(t.Context(), h, plugins.PullRequest{Image: img.Reference, Policy: policy, Auth: tt.req.Auth})
		if err != nil || pinned != img {
			t.Errorf("%s, pinned: %+v, %v", tt.name, pinned, err)
		}
	}
}

func TestMovedTagMeansWhatTheRegistrySays(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	// Root pushes: its storage knows the image by digests of its own, too.
	p.Serve(t, enginetest.User)
	name := p.Registry(t, 5003, "", "") + "/moved:1"
	p.Push(t, name, nil)
	rt, h := podman.New(), p.Host("web1", enginetest.User)
	h.Env = enginetest.Session(enginetest.User)
	var lines bytes.Buffer
	pull := func(policy plugins.PullPolicy) plugins.Image {
		t.Helper()
		img, err := rt.Pull(t.Context(), h, plugins.PullRequest{Image: name, Policy: policy, Progress: &lines})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	first := pull(plugins.PullAlways)
	p.PushOther(t, name)
	if _, err := p.Podman(enginetest.User, nil, "tag", first.Reference, name); err != nil { // the host still has the old one
		t.Fatal(err)
	}
	if got := pull(plugins.PullMissing); got != first {
		t.Errorf("missing: %+v, not %+v", got, first)
	}
	second := pull(plugins.PullAlways)
	if second.Digest == first.Digest {
		t.Errorf("always: still %+v", second)
	}
	c, err := rt.Create(t.Context(), h, plugins.Spec{Name: "moved", Image: first.Reference, Command: []string{"sleep", "100"}})
	if err != nil {
		t.Fatal(err)
	}
	defer remove(t, rt, h, c.ID)
	if c.Image != first.Reference {
		t.Errorf("the container's image is %s", c.Image)
	}
	if got := lines.String(); got != "1 of 1 layers\n2 of 2 layers\n" { // the other one has a layer more
		t.Errorf("progress is %q", got)
	}
}

// What is pinned is pinned to the list, as registries and Docker have it: each
// host takes from it what fits.
func TestImageForSeveralArchitecturesKeepsTheDigestOfItsList(t *testing.T) {
	p := enginetest.RequirePodman(t, shared.start)
	p.Serve(t, "")
	name := p.Registry(t, 5004, "", "") + "/list"
	file := filepath.Join(p.Dir, "list-digest")
	for _, args := range [][]string{
		{"manifest", "create", "list"},
		{"manifest", "add", "list", "containers-storage:" + enginetest.Image},
		{"manifest", "push", "--all", "--digestfile", file, "list", "docker://" + name + ":1"},
		{"manifest", "rm", "list"},
	} {
		if _, err := p.Podman("", nil, args...); err != nil {
			t.Fatal(err)
		}
	}
	list, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rt, h := podman.New(), p.Host("web1", "")
	want := plugins.Image{Reference: name + "@" + string(list), Digest: string(list)}
	for _, policy := range []plugins.PullPolicy{plugins.PullMissing, plugins.PullAlways, plugins.PullNever} {
		img, err := rt.Pull(t.Context(), h, plugins.PullRequest{Image: want.Reference, Policy: policy})
		if err != nil || img != want {
			t.Errorf("%s: %+v, %v, not %+v", policy, img, err, want)
		}
	}
	c, err := rt.Create(t.Context(), h, plugins.Spec{Name: "of-a-list", Image: want.Reference, Command: []string{"sleep", "100"}})
	if err != nil {
		t.Fatal(err)
	}
	remove(t, rt, h, c.ID)
}

func TestShortNameOfAnImageIsRefused(t *testing.T) {
	rt := podman.New()
	for image, want := range map[string]string{
		"busybox":     "docker.io/library/busybox",
		"team/shop:1": "docker.io/team/shop:1",
		"shop@" + "sha256:1111111111111111111111111111111111111111111111111111111111111111": "localhost/shop@sha256:1",
	} {
		_, err := rt.Pull(t.Context(), nowhere{}, plugins.PullRequest{Image: image, Policy: plugins.PullMissing})
		if !errors.Is(err, plugins.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", image, err)
		}
	}
}

// nowhere is a host that must not be asked.
type nowhere struct{ plugins.Host }

func (nowhere) String() string { return "web1" }
