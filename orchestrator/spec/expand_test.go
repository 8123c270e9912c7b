package spec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

func TestReferencesAreReplaced(t *testing.T) {
	vars := map[string]string{"a": "1", "b_2": "${a}", "empty": "", "odd": "'; $(x)\n\""}
	tests := []struct{ text, want string }{
		{"", ""},
		{"plain", "plain"},
		{"${a}", "1"},
		{"x${a}y${a}z", "x1y1z"},
		{"${b_2}", "${a}"},
		{"${empty}", ""},
		{"${odd}", "'; $(x)\n\""},
		{"$${a}", "${a}"},
		{"$$${a}", "$${a}"},
		{"$${a}${a}", "${a}1"},
		{"${a}$${a}", "1${a}"},
		{"$a $ $$ }", "$a $ $$ }"},
		{"$${", "${"},
		{"$${}", "${}"},
	}
	for _, test := range tests {
		e := &expander{vars: vars, open: map[string]bool{}}
		got, known, err := e.expand("container.env.X", test.text)
		if err != nil || !known || got != test.want {
			t.Errorf("%q became %q, %v, %v, want %q", test.text, got, known, err, test.want)
		}
	}
}

func TestUnknownReferencesWaitForAHost(t *testing.T) {
	e := &expander{set: map[string]string{"s": "set"}, open: map[string]bool{}}
	got, known, err := e.expand("container.env.X", "${s} ${later} $${x}")
	if got != "${s} ${later} $${x}" || known || err != nil || !e.open["container.env.X"] {
		t.Errorf("got %q, %v, %v, %v", got, known, err, e.open)
	}
}

func TestSetWinsOverVariables(t *testing.T) {
	e := &expander{set: map[string]string{"a": "set"}, vars: map[string]string{"a": "host"}, open: map[string]bool{}}
	if got, _, err := e.expand("container.env.X", "${a}"); got != "set" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestShellLinesTakePlainValuesOnly(t *testing.T) {
	values := map[string]bool{
		"1.2.3": true, "v1_a-b": true, "registry.example.com:5000/shop@sha256:ab": true, "a=b,c+d%": true, "": true,
		"a b": false, "$x": false, "`x`": false, "a;b": false, "a\nb": false, "'": false, "\"": false, "a|b": false, "*": false, "~": false, "ä": false,
	}
	for value, plain := range values {
		for _, key := range []string{"install.run[0]", "install.once[3]", "hooks.after_deploy[0]", "container.command[0]", "install.timeout"} {
			e := &expander{set: map[string]string{"v": value}, open: map[string]bool{}}
			got, _, err := e.expand(key, "x ${v}")
			isLine := key != "container.command[0]" && key != "install.timeout"
			if wantErr := isLine && !plain; (err != nil) != wantErr {
				t.Errorf("%s with %q: %v", key, value, err)
			}
			if err == nil && got != "x "+value {
				t.Errorf("%s with %q: %q", key, value, got)
			}
			if err != nil && (tomlfile.Hint(err) == "" || value != "'" && strings.Contains(err.Error(), value)) {
				t.Errorf("%s with %q: %v without a hint, or with the value", key, value, err)
			}
		}
	}
}

// FuzzExpand checks that what is no reference stays as it is, that values are
// not expanded again, and that the pieces of a text are the text.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "${a}", "$${a}", "$$${a}", "${", "${}", "${a", "$", "x${a}y${b}z", "${a}}", "${${a}}", "\x00${a}\xff"} {
		f.Add(s, "value ${a}")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		parts, err := pieces(text)
		if err != nil {
			if !strings.Contains(text, "${") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		var plain strings.Builder
		for _, p := range parts {
			plain.WriteString(p.text)
			if p.name != "" && p.text != "${"+p.name+"}" {
				t.Fatalf("%q has the piece %+v", text, p)
			}
		}
		if want := strings.ReplaceAll(text, "$${", "${"); plain.String() != want {
			t.Fatalf("the pieces of %q are %q", text, plain.String())
		}
		vars := map[string]string{}
		for _, p := range parts {
			if p.name != "" {
				vars[p.name] = value
			}
		}
		e := &expander{vars: vars, open: map[string]bool{}}
		got, known, err := e.expand("container.env.X", text)
		if err != nil || !known {
			t.Fatalf("%q: %v, %v", text, known, err)
		}
		references := 0
		for _, p := range parts {
			if p.name != "" {
				references++
			}
		}
		if strings.Count(got, value) < references && value != "" {
			t.Fatalf("%q with %q became %q", text, value, got)
		}
	})
}

func TestConvertersReadTheirForms(t *testing.T) {
	tests := []struct {
		convert func(any) (any, error)
		in      any
		want    any // nil: refused
	}{
		{size, "512m", int64(512 << 20)},
		{size, "2G", int64(2 << 30)},
		{size, "1.5gb", int64(3 << 29)},
		{size, "100b", int64(100)},
		{size, "1tb", int64(1 << 40)},
		{size, "7k", int64(7 << 10)},
		{size, "512", nil},
		{size, "m", nil},
		{size, "-1m", nil},
		{size, "1e3m", nil},
		{size, "99999999999999999999g", nil},
		{size, "1 m", nil},
		{size, int64(5), nil},
		{volume, "a:/b", Volume{Source: "a", Target: "/b"}},
		{volume, "/a:/b:ro", Volume{Source: "/a", Target: "/b", ReadOnly: true}},
		{volume, "a:/b:rw", Volume{Source: "a", Target: "/b"}},
		{volume, "a:/b:ro:z", nil},
		{volume, "/b", nil},
		{volume, true, nil},
		{limit, int64(3), Limit{Count: 3}},
		{limit, "3", Limit{Count: 3}},
		{limit, "100%", Limit{Count: 100, Percent: true}},
		{limit, "101%", nil},
		{limit, "-1%", nil},
		{limit, "1.5%", nil},
		{limit, 1.5, nil},
		{limit, int64(1) << 40, nil},
	}
	for _, test := range tests {
		got, err := test.convert(test.in)
		if (err != nil) != (test.want == nil) {
			t.Errorf("%v: %v, %v", test.in, got, err)
			continue
		}
		if diff := cmp.Diff(test.want, got); err == nil && diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.in, diff)
		}
		if err != nil && tomlfile.Hint(err) == "" {
			t.Errorf("%v: %v has no hint", test.in, err)
		}
	}
}

func TestTextRules(t *testing.T) {
	tests := []struct {
		name  string
		rule  func(string) error
		right []string
		wrong []string
	}{
		{
			"images", imageName,
			[]string{
				"shop", "shop:1", "team/shop", "localhost/shop", "localhost:5000/shop:v1.0", "registry.example.com/a/b/c:x_Y.z-1", "10.0.0.1:5000/a",
				"[::1]:5000/a", "a__b/c--d.e", "shop@sha256:" + strings.Repeat("a", 64), "shop:1@sha256:" + strings.Repeat("0", 64),
			},
			[]string{
				"", "-a", "a b", "a:", "a:-x", "A", "a/B", "a//b", "/a", "a/", "a@sha256:1", "a@md5:x", "a:1:2", "a;b", "a\n", "http://a/b", "a_.b",
			},
		},
		{
			"repositories", repository,
			[]string{
				"git@git.example.com:shop.git", "git.example.com:team/shop", "ssh://git@git.example.com:2222/shop.git", "ssh://git.example.com/~user/shop",
				"https://git.example.com/shop.git", "https://token@git.example.com/shop", "/srv/git/shop.git", "git@[::1]:shop", "ssh://git@[::1]:22/shop",
			},
			[]string{
				"", "-x", "ext::sh -c x", "ext::sh", "fd::17", "git@host", "./shop", "shop.git", "http://h/x", "git://h/x", "file:///x", "https://h", "https:///x",
				"ssh://-oProxyCommand=x/y", "git@-x:y", "-x@host:y", "host:-y", "host:", ":y", "git@host:a b", "git@host:a\nb", "https://u:p@h/x",
				"ssh://-x@h/y", "/srv/../x", "//x", "https://%zz/x", "git@h;x:y",
			},
		},
		{
			"refs", gitRef,
			[]string{"main", "v1.0", "feature/x", "0123456789abcdef0123456789abcdef01234567", "refs/heads/main", "a@b", "ä"},
			[]string{"", "-x", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a//b", "a.", "a.lock", "a.lock/b", ".a", "a/.b", "@", "a@{1}", "a\x7f"},
		},
		{"paths", belowRoot, []string{"/a", "/a/b.c", "/a b"}, []string{"", "/", "a", "./a", "/a/", "/a/../b", "/a//b", "/a\nb", "/a\x00"}},
		{"folders", relative, []string{"a", "a/b", "a.b"}, []string{"", ".", "..", "../a", "a/..", "/a", "a/", "./a", "a//b", "-a", "a\n"}},
		{
			"requests", requestPath,
			[]string{"/", "/up", "/up?a=b&c=%20", "/a/b.c"},
			[]string{"", "up", "//host/x", "/a b", "/a#b", "/a\r\nX: y", "/ä", "http://h/", "/%zz"},
		},
		{
			"URLs", wholeURL,
			[]string{"http://h/", "https://h.example.com:8443/a?b=c", "http://[::1]:80/", "http://10.0.0.1"},
			[]string{"", "h", "h/x", "ftp://h/", "http://", "http:///x", "http://u@h/", "http://u:p@h/", "http://h/#x", "http://h/a b", "http://h\n/", "http://-h/", "http://h;x/"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, s := range test.right {
				if err := test.rule(s); err != nil {
					t.Errorf("%q is refused: %v", s, err)
				}
			}
			for _, s := range test.wrong {
				if err := test.rule(s); err == nil {
					t.Errorf("%q is accepted", s)
				}
			}
		})
	}
}

func TestLimitsCountHosts(t *testing.T) {
	tests := []struct {
		limit Limit
		n     int
		want  int
	}{
		{Limit{}, 10, 0},
		{Limit{Count: 3}, 10, 3},
		{Limit{Count: 10, Percent: true}, 19, 1},
		{Limit{Count: 100, Percent: true}, 7, 7},
	}
	for _, test := range tests {
		if got := test.limit.Of(test.n); got != test.want {
			t.Errorf("%+v of %d is %d, want %d", test.limit, test.n, got, test.want)
		}
	}
}
