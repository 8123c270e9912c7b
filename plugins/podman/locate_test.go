package podman

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoutesFollowTheLoginUser(t *testing.T) {
	for _, tt := range []struct {
		name string
		said string
		want []string
	}{
		{
			"root with a socket", "program /usr/bin/podman\nuid 0\nsocket /run/podman/podman.sock\n",
			[]string{
				"/run/podman/podman.sock", "/run/podman/podman.sock by a command",
				"a service started for each operation", "a service started for each operation by a command",
			},
		},
		{
			"rootless without one", "program /usr/bin/podman\nuid 7\nruntime /run/user/7\n",
			[]string{"a service started for each operation", "a service started for each operation by a command"},
		},
	} {
		var got []string
		for _, r := range routes(parse([]byte(tt.said))) {
			got = append(got, r.String())
			if r.Become {
				t.Errorf("%s: %v becomes another user", tt.name, r)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestServiceLivesInTheUsersRuntimeFolder(t *testing.T) {
	for said, want := range map[string][]string{
		"program /bin/podman\nuid 0\n":                               {"/bin/podman", "/run", ""},
		"program /bin/podman\nuid 7\nruntime /run/user/7\n":          {"/bin/podman", "/run/user/7", "/run/user/7"},
		"program /bin/podman\nuid 7\nruntime\n":                      {"/bin/podman", "/tmp", ""},
		"program /bin/podman\nuid 7\nruntime /home/a b/run\nnoise\n": {"/bin/podman", "/home/a b/run", "/home/a b/run"},
	} {
		serve := routes(parse([]byte(said)))[0].Serve
		if diff := cmp.Diff(want, serve[len(serve)-3:]); diff != "" {
			t.Errorf("%q: %s", said, diff)
		}
	}
}

func TestProgramIsToldTheRuntimeFolder(t *testing.T) {
	for dir, want := range map[string]string{
		"":            "/bin/podman",
		"/run/user/7": "env XDG_RUNTIME_DIR=/run/user/7 /bin/podman",
	} {
		got := strings.Join(program(facts{"program": "/bin/podman", "runtime": dir}), " ")
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
