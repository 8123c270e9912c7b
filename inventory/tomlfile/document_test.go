package tomlfile

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func document(t *testing.T, src string, secret ...string) *Document {
	t.Helper()
	d, problems := Parse("f.toml", []byte(src), secret...)
	if problems != nil {
		t.Fatal(problems)
	}
	return d
}

func TestProblemsPointAtTheirKey(t *testing.T) {
	d := document(t, `top = 1
[test]
within = "10s"
checks = [
  { http = "/up", status = [200, 204] },
  { tcp = 80 },
]
[[rules]]
a.b = "x"
[[rules]]
[rules.deep]
c = "y"
["quoted name"]
"ä" = "ä" # ö
`)
	tests := []struct {
		key          string
		line, column int
		caret        string
	}{
		{"top", 1, 7, "1"},
		{"test", 2, 2, "test"},
		{"test.within", 3, 10, `"10s"`},
		{"test.checks[0].status[1]", 5, 34, "204"},
		{"test.checks[1]", 6, 3, "{ tcp = 80 }"},
		{"test.checks[1].tcp", 6, 11, "80"},
		{"test.checks[1].missing", 6, 3, "{ tcp = 80 }"},
		{"test.checks[7].tcp", 4, 1, "checks"},
		{"test.missing.deeper", 2, 2, "test"},
		{"rules[0].a.b", 9, 7, `"x"`},
		{"rules[0].a", 9, 1, "a"},
		{"rules[1].deep.c", 12, 5, `"y"`},
		{"rules[1]", 10, 3, "rules"},
		{`"quoted name"`, 13, 2, `"quoted name"`},
		{`"quoted name"."ä"`, 14, 7, `"ä"`},
		{"missing", 0, 0, ""},
	}
	for _, test := range tests {
		p := d.Problem(test.key, "m", "h")
		if p.Line != test.line || p.Column != test.column {
			t.Errorf("%s: at %d:%d, want %d:%d", test.key, p.Line, p.Column, test.line, test.column)
		}
		if marked := marked(p.Snippet); marked != test.caret {
			t.Errorf("%s: marks %q, want %q", test.key, marked, test.caret)
		}
	}
	if p := d.KeyProblem("test.within", "m", ""); p.Column != 1 || marked(p.Snippet) != "within" {
		t.Errorf("the key itself is at %d, marks %q", p.Column, marked(p.Snippet))
	}
}

// marked returns what the carets of a snippet stand below.
func marked(snippet string) string {
	line, carets, ok := strings.Cut(snippet, "\n")
	if !ok {
		return ""
	}
	from := strings.Index(carets, "^")
	return string([]rune(line)[from : from+strings.Count(carets, "^")])
}

func TestSnippetsHoldNoControlCharacters(t *testing.T) {
	d := document(t, "a = '\u202eevil\u0085'\nb = \"\\u001b[2J\"\n\"\\u001b[31m\" = 1\n")
	for _, p := range []Problem{
		d.Problem("a", "m\x1b[2J\n", "h\x07"),
		d.Problem("b", "m", ""),
		d.KeyProblem(Join("", "\x1b[31m"), "m", ""),
	} {
		text := p.String()
		for _, bad := range []string{"\x1b", "\u202e", "\u0085", "\x07"} {
			if strings.Contains(text, bad) {
				t.Errorf("%q holds %q", text, bad)
			}
		}
	}
	broken := []string{"a = \"\x1b[31mred\"\n", "a = 1\x00\n", "\x1b]0;title\x07 = 1", "a = \"\xff\"\n", "\xff\xfea\x00"}
	for _, src := range broken {
		doc, problems := Parse("evil\x1b.toml", []byte(src))
		if doc != nil || len(problems) != 1 {
			t.Errorf("%q: %v", src, problems)
			continue
		}
		if text := problems.Error(); strings.ContainsAny(text, "\x1b\x00\x07") || !utf8.ValidString(text) {
			t.Errorf("%q holds control characters", text)
		}
	}
}

func TestSecretsAreMasked(t *testing.T) {
	d := document(t, `[image]
password = "pä55 \" word" # comment
[environments.x]
secrets = { A = 'plain', B = { env = "SHOWN" }, C = 1, D = ["x"] }
url = "https://user:secret@example.com/"
multi = """
https://user:secret@example.com/
"""
`, "image.password", "secrets.*")
	tests := []struct{ key, want string }{
		{"image.password", "    2 | password = ************** # comment\n      |            ^^^^^^^^^^^^^^"},
		{
			"environments.x.secrets.C",
			"    4 | secrets = { A = *******, B = { env = \"SHOWN\" }, C = 1, D = [***] }\n      |                                                     ^",
		},
		{"environments.x.url", "    5 | url = **********************************\n      |       " + strings.Repeat("^", 34)},
		{"environments.x.multi", "    6 | multi = ***\n      |         ^^^"},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, d.Problem(test.key, "m", "").Snippet); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.key, diff)
		}
	}
}

func TestProblemsPrint(t *testing.T) {
	ps := Problems{
		{File: "f", Key: "x", Message: "is required"},
		{File: "f", Line: 2, Column: 3, Key: "b", Message: "later", Snippet: "    2 | x\n      | ^"},
		{File: "f", Line: 1, Column: 5, Key: "a", Message: "first", Hint: "do it"},
		{File: "f", Line: 1, Column: 5, Key: "a", Message: "first", Hint: "do it"},
		{Key: "--image", Message: "is required"},
	}
	want := "f:1:5: a: first\n  hint: do it\nf:2:3: b: later\n    2 | x\n      | ^\nf: x: is required\n--image: is required"
	if diff := cmp.Diff(want, ps.Err().Error()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	if err := (Problems{}).Err(); err != nil {
		t.Errorf("no problems are %v", err)
	}
}

func TestOverlayMergesAndRemembersPlaces(t *testing.T) {
	d := document(t, `name = "base"
list = [1, 2]
[table]
a = 1
b = 2
[table.secret]
env = "A"
[over.staging]
list = [3]
table.b = 20
table.c.d = 4
table.secret = { file = "f" }
new = { x = 1 }
[over.other]
name = "other"
`)
	merged := d.Overlay("over.staging", "table.secret")
	want := map[string]any{
		"name": "base",
		"list": []any{int64(3)},
		"table": map[string]any{
			"a": int64(1), "b": int64(20), "c": map[string]any{"d": int64(4)}, "secret": map[string]any{"file": "f"},
		},
		"new": map[string]any{"x": int64(1)},
	}
	if diff := cmp.Diff(want, merged.tree); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	places := map[string]string{
		"name":              "f.toml:1:8: name: m",
		"list[0]":           "f.toml:9:9: over.staging.list[0]: m",
		"table.a":           "f.toml:4:5: table.a: m",
		"table.b":           "f.toml:10:11: over.staging.table.b: m",
		"table.c.d":         "f.toml:11:13: over.staging.table.c.d: m",
		"table.secret.file": "f.toml:12:25: over.staging.table.secret.file: m",
		"new.x":             "f.toml:13:13: over.staging.new.x: m",
		"new.y":             "f.toml:13:1: over.staging.new.y: m",
	}
	for key, want := range places {
		p := merged.Problem(key, "m", "")
		p.Snippet = ""
		if got := p.String(); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if !d.Has("over.staging") || merged.Has("over") || d.Without("over").Has("over") {
		t.Error("the overlay stayed in the merged document, or left the first one")
	}
	if diff := cmp.Diff([]string{"name", "list", "table", "over"}, d.Keys("")); diff != "" {
		t.Errorf("keys of the file (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "secret"}, merged.Keys("table")); diff != "" {
		t.Errorf("keys of the merged table (-want +got):\n%s", diff)
	}
}

func TestValuesWithoutAFileNameFlags(t *testing.T) {
	d := Values(map[string]any{"image": map[string]any{"name": int64(1)}}, func(key string) string { return "--" + key })
	var v struct {
		Image struct {
			Name string `toml:"name"`
		} `toml:"image"`
	}
	problems := d.Decode(&v, Rules{})
	want := "--image.name: must be text in quotes, not a whole number\n  hint: write it in quotes"
	if diff := cmp.Diff(want, problems.Error()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestWalkVisitsStringsInOrder(t *testing.T) {
	d := document(t, "b = \"1\"\na = [\"2\", { c = \"3\" }, 4]\n[t]\n\"x y\" = \"5\"\n")
	var got []string
	d.Walk(func(key, text string) { got = append(got, key+"="+text) })
	if diff := cmp.Diff([]string{"b=1", "a[0]=2", "a[1].c=3", `t."x y"=5`}, got); diff != "" {
		t.Errorf("visited (-want +got):\n%s", diff)
	}
}

func TestRepeatsAreReportedTogether(t *testing.T) {
	src := "a = 1\na = 2\n[t]\nx = { k = 1, k = 2 }\n[u]\n[t]\ny = \"not \\\n  looked at\"\n"
	_, problems := Parse("f", []byte(strings.Replace(src, "\\\n  ", "", 1)))
	var got []string
	for _, p := range problems {
		got = append(got, p.Key+": "+p.Hint)
	}
	want := []string{
		"a: it stands on line 1 already; keep one of the two",
		"t.x.k: it stands on line 4 already; keep one of the two",
		"t: it stands on line 3 already; keep one of the two",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("repeats (-want +got):\n%s", diff)
	}
}

func TestDidYouMean(t *testing.T) {
	words := []string{"hosts", "port", "stop_grace", "http"}
	tests := []struct{ word, want string }{
		{"host", `did you mean "hosts"?`},
		{"prot", `did you mean "port"?`},
		{"stopgrace", `did you mean "stop_grace"?`},
		{"stop-grace", `did you mean "stop_grace"?`},
		{"httpp", `did you mean "http"?`},
		{"something", ""},
		{"", ""},
		{"x", ""},
		{strings.Repeat("port", 100), ""},
	}
	for _, test := range tests {
		if got := DidYouMean(test.word, words); got != test.want {
			t.Errorf("%q: %q, want %q", test.word, got, test.want)
		}
	}
}

func TestFormatIsReadAgain(t *testing.T) {
	value := map[string]any{
		"text":   "a \"b\" \\ \n\r\t \x00\x1b\u202e\U000e0001 ä",
		"a b.c":  int64(-3),
		"float":  2.0,
		"big":    1e300,
		"yes":    true,
		"list":   []any{"x", int64(1), []any{}},
		"table":  map[string]any{"k": "v", "": "empty"},
		"nested": map[string]any{},
	}
	d := document(t, "v = "+Format(value))
	if diff := cmp.Diff(value, d.tree["v"]); diff != "" {
		t.Errorf("read again (-want +got):\n%s\n%s", diff, Format(value))
	}
	ordered := Format([]Pair{{"z", []int{1, 2}}, {"a", []string{"x"}}, {"m", map[string]string{"k": "v"}}})
	if want := `{ z = [1, 2], a = ["x"], m = { k = "v" } }`; ordered != want {
		t.Errorf("got %s, want %s", ordered, want)
	}
}
