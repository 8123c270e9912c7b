package source

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
)

func TestParseRepository(t *testing.T) {
	type parts struct{ Scheme, User, Host, Port, Path, Known string }
	for address, want := range map[string]parts{
		"git@git.example.com:team/shop.git":       {"ssh", "git", "git.example.com", "", "team/shop.git", "git.example.com"},
		"git.example.com:/srv/shop":               {"ssh", "", "git.example.com", "", "/srv/shop", "git.example.com"},
		"git@[2001:db8::1]:shop":                  {"ssh", "git", "2001:db8::1", "", "shop", "2001:db8::1"},
		"ssh://git@git.example.com:2222/shop.git": {"ssh", "git", "git.example.com", "2222", "/shop.git", "[git.example.com]:2222"},
		"ssh://git.example.com:22/shop":           {"ssh", "", "git.example.com", "22", "/shop", "git.example.com"},
		"git+ssh://git.example.com/shop":          {"ssh", "", "git.example.com", "", "/shop", "git.example.com"},
		"https://git.example.com/shop.git":        {"https", "", "git.example.com", "", "/shop.git", "git.example.com"},
		"git://git.example.com:9418/shop":         {"git", "", "git.example.com", "9418", "/shop", "[git.example.com]:9418"},
		"file:///srv/git/shop":                    {"file", "", "", "", "/srv/git/shop", ""},
		"/srv/git/a b::c":                         {"file", "", "", "", "/srv/git/a b::c", ""},
	} {
		r, err := parseRepository(address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		got := parts{r.scheme, r.user, r.host, r.port, r.path, r.knownAs()}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", address, diff)
		}
	}
}

func TestJoinResolvesSubmoduleAddresses(t *testing.T) {
	for _, tt := range []struct{ base, address, want string }{
		{"git@git.example.com:team/shop.git", "../lib.git", "git@git.example.com:team/lib.git"},
		{"git@git.example.com:shop.git", "../lib.git", "git@git.example.com:lib.git"},
		{"https://git.example.com/team/shop.git", "../../other/lib.git", "https://git.example.com/other/lib.git"},
		{"ssh://git@git.example.com:22/team/shop", "./lib", "ssh://git@git.example.com:22/team/shop/lib"},
		{"/srv/git/shop", "../lib", "/srv/git/lib"},
		{"file:///srv/git/shop", "../lib", "file:///srv/git/lib"},
		{"https://git.example.com/shop", "git@other.example.com:lib", "git@other.example.com:lib"},
	} {
		base, err := parseRepository(tt.base)
		if err != nil {
			t.Fatal(err)
		}
		got, err := base.join(tt.address)
		if err != nil || got.address != tt.want {
			t.Errorf("%s + %s = %s, %v; want %s", tt.base, tt.address, got, err, tt.want)
		}
	}
	for base, address := range map[string]string{
		"https://git.example.com/shop": "/etc/x",
		"git@git.example.com:shop":     "../../lib",
		"ssh://git.example.com/shop":   "file:///srv/lib",
	} {
		r, err := parseRepository(base)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.join(address); err == nil {
			t.Errorf("%s + %s = %s, want an error", base, address, got)
		}
	}
}

func TestExplain(t *testing.T) {
	repo, err := parseRepository("ssh://git@git.example.com:2222/shop.git")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, stderr string
		code         int
		kind         plugins.Kind
		want         string
	}{
		{
			"a login without keys", "debug1: x\ngit@git.example.com: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n", 128,
			plugins.Denied, "git@git.example.com: Permission denied (publickey).; no key was offered: is it in your agent (ssh-add -l)?",
		},
		{
			"a login with the wrong keys", "debug1: Offering public key: a@b ED25519 SHA256:xyz agent\r\ndebug1: Offering public key: /k RSA SHA256:abc\nx: Permission denied (publickey).\n", 128,
			plugins.Denied, "x: Permission denied (publickey).; offered: a@b ED25519 SHA256:xyz agent, /k RSA SHA256:abc",
		},
		{
			"an unknown host key", "No ED25519 host key is known\nHost key verification failed.\n", 128, plugins.Denied,
			"the host key of git.example.com:2222 is not known: compare its fingerprint with the one that its operators publish, then add it to your known_hosts (ssh-keyscan -p 2222 git.example.com >> ~/.ssh/known_hosts)",
		},
		{
			"another host key", "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n", 128, plugins.Denied,
			"the host key of git.example.com:2222 is not the one in known_hosts: find out why before you replace it there (ssh-keygen -R '[git.example.com]:2222')",
		},
		{
			"no such repository", "ERROR: Repository not found.\nfatal: Could not read from remote repository.\n", 128,
			plugins.NotFound, "repository ssh://git@git.example.com:2222/shop.git was not found, or this login may not see it",
		},
		{
			"a password is wanted", "fatal: could not read Username for 'https://x': terminal prompts disabled\n", 128, plugins.Denied,
			`fatal: could not read Username for 'https://x': terminal prompts disabled; use an ssh address with an agent, or via = "controller" with a credential helper`,
		},
		{"a percent sign", "fatal: unable to access 'https://x/%20y/': 100%s\n", 128, plugins.Unavailable, "fatal: unable to access 'https://x/%20y/': 100%s"},
		{"silence", "", 1, "", "git ended with code 1"},
		{"no git", "sh: git: not found", 127, plugins.Unsupported, `git is not installed; install it, or set via = "controller" under [code]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := explain(&plugins.ExitError{Code: tt.code, Stderr: []byte(tt.stderr)}, repo)
			if plugins.KindOf(got) != tt.kind || got.Error() != tt.want {
				t.Errorf("kind %q\ngot  %v\nwant %s", plugins.KindOf(got), got, tt.want)
			}
		})
	}
	if other := errors.New("x"); !errors.Is(explain(other, repo), other) || explain(nil, repo) != nil {
		t.Error("errors that are no exit are not left alone")
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"main", "main", 0}, {"main", "mian", 2}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
