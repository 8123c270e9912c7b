package source_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/source"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

func TestResolve(t *testing.T) {
	r := newRepo(t)
	first := r.commit(t, map[string]string{"n": "1"})
	r.run(t, "tag", "light")
	r.run(t, "tag", "-a", "-m", "one", "v1.0.0")
	r.run(t, "branch", "same")
	r.run(t, "tag", "same")
	r.run(t, "branch", "both")
	second := r.commit(t, map[string]string{"n": "2"})
	r.run(t, "tag", "both")
	r.run(t, "branch", "feature/main")
	r.run(t, "branch", "ünï")
	tests := []struct {
		ref, want string
		kind      plugins.Kind // with want as a part of the error
	}{
		{ref: "main", want: second},
		{ref: "HEAD", want: second},
		{ref: "light", want: first},
		{ref: "v1.0.0", want: first},
		{ref: "same", want: first},
		{ref: "feature/main", want: second},
		{ref: "ünï", want: second},
		{ref: "refs/heads/both", want: first},
		{ref: "refs/tags/both", want: second},
		{ref: "refs/tags/v1.0.0", want: first},
		{ref: first, want: first},
		{ref: strings.Repeat("ab", 32), want: strings.Repeat("ab", 32)},
		{ref: "both", kind: plugins.Invalid, want: "both is a branch and a tag: write refs/heads/both or refs/tags/both"},
		{ref: "v1.0.1", kind: plugins.NotFound, want: "there is no such branch or tag; the nearest: v1.0.0"},
		{ref: "mian", kind: plugins.NotFound, want: "the nearest: main"},
		{ref: "mai", kind: plugins.NotFound, want: "the nearest: main, feature/main"},
		{ref: "nothing-like-it", kind: plugins.NotFound, want: "there is no such branch or tag"},
		{ref: "refs/heads/light", kind: plugins.NotFound, want: "there is no such branch or tag"},
		{ref: first[:10], kind: plugins.NotFound, want: "a git server finds a commit only by its whole id"},
	}
	for _, via := range vias {
		for _, tt := range tests {
			t.Run(via+" "+tt.ref, func(t *testing.T) {
				got, err := open(t, spec.Code{Repository: string(r), Ref: tt.ref, Via: via}).Resolve(t.Context(), web1)
				if tt.kind == "" && (err != nil || got != tt.want) {
					t.Errorf("got %s, %v; want %s", got, err, tt.want)
				}
				if tt.kind != "" && (!errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("got %v, want kind %s and %q", err, tt.kind, tt.want)
				}
			})
		}
	}
}

func TestResolveSaysWhereAndWhat(t *testing.T) {
	r := newRepo(t)
	_, err := open(t, spec.Code{Repository: string(r)}).Resolve(t.Context(), web1)
	if want := "web1: resolve main of " + string(r) + ": the repository is empty"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	_, err = open(t, spec.Code{Repository: "/no/such/repository", Via: "controller"}).Resolve(t.Context(), nil)
	if want := "controller: resolve main of /no/such/repository: repository /no/such/repository was not found, or this login may not see it"; !errors.Is(err, plugins.NotFound) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestResolveTellsAServerThatDoesNotAnswer(t *testing.T) {
	for _, address := range []string{"http://127.0.0.1:1/x.git", "git://127.0.0.1:1/x.git", "ssh://127.0.0.1:1/x.git"} {
		_, err := open(t, spec.Code{Repository: address}).Resolve(t.Context(), web1)
		if !errors.Is(err, plugins.Unavailable) {
			t.Errorf("%s: got %v, want Unavailable", address, err)
		}
	}
}

func TestNewRefusesWhatGitWouldMisunderstand(t *testing.T) {
	tests := []struct {
		name string
		code spec.Code
		want string
	}{
		{"an option as repository", spec.Code{Repository: "--upload-pack=touch /tmp/x"}, "is not an address"},
		{"a program as repository", spec.Code{Repository: "ext::sh -c touch% /tmp/x"}, "remote helpers are not supported"},
		{"an option as host", spec.Code{Repository: "ssh://-oProxyCommand=x/y"}, "names no host"},
		{"an option as host, short form", spec.Code{Repository: "-oProxyCommand=x:y"}, "is not an address"},
		{"an option as user", spec.Code{Repository: "-l@host:y"}, "is not an address"},
		{"a new line", spec.Code{Repository: "https://a/\nb"}, "is not an address"},
		{"a password", spec.Code{Repository: "https://ci:hunter2@git.example.com/x"}, "use ssh with an agent"},
		{"a token", spec.Code{Repository: "https://hunter2@git.example.com/x"}, "a login in the address"},
		{"a password for ssh", spec.Code{Repository: "ssh://git:hunter2@git.example.com/x"}, "a login in the address"},
		{"a broken URL with a password", spec.Code{Repository: "https://ci:hunter2@git.example.com:x/y"}, "cannot be parsed"},
		{"an unknown scheme", spec.Code{Repository: "ftp://git.example.com/x"}, `scheme "ftp" is not supported`},
		{"a relative path", spec.Code{Repository: "../shop"}, "neither a URL"},
		{"nothing", spec.Code{}, "no repository"},
		{"an option as ref", spec.Code{Repository: "/x", Ref: "--all"}, "is not a branch, tag or commit"},
		{"a pattern as ref", spec.Code{Repository: "/x", Ref: "rel*"}, "is not a branch"},
		{"a refspec as ref", spec.Code{Repository: "/x", Ref: "a:refs/heads/b"}, "is not a branch"},
		{"a range as ref", spec.Code{Repository: "/x", Ref: "a..b"}, "is not a branch"},
		{"a lock as ref", spec.Code{Repository: "/x", Ref: "a.lock/b"}, "is not a branch"},
		{"a subdir above", spec.Code{Repository: "/x", Ref: "main", Subdir: "../etc"}, "leaves the repository"},
		{"an unknown way", spec.Code{Repository: "/x", Ref: "main", Via: "pigeon"}, "neither host nor controller"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := source.New(source.Options{Code: tt.code})
			if !errors.Is(err, plugins.Invalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") && !strings.Contains(err.Error(), "hunter2@git.example.com/x: a login") {
				t.Errorf("the password shows: %v", err)
			}
		})
	}
}
