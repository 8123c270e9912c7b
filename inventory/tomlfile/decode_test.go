package tomlfile

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type sample struct {
	Name    string               `toml:"name"`
	Count   uint16               `toml:"count"`
	Small   int8                 `toml:"small"`
	Ratio   float64              `toml:"ratio"`
	On      *bool                `toml:"on"`
	Wait    time.Duration        `toml:"wait"`
	Address netip.Addr           `toml:"address"`
	List    []string             `toml:"list"`
	Below   *below               `toml:"below"`
	Many    []below              `toml:"many"`
	Free    map[string]any       `toml:"free"`
	Named   map[string]below     `toml:"named"`
	Size    int64                `json:"size,omitempty"`
	Nothing string               // no name: not in files
	Texts   map[string]string    `toml:"texts"`
	Deep    map[string][]float64 `toml:"deep"`
}

type below struct {
	Key string `toml:"key"`
	N   int    `toml:"n"`
}

func TestDecodeFillsEveryKind(t *testing.T) {
	src := `name = "x"
count = 65535
small = -128
ratio = 2
on = true
wait = "1m30s"
address = "10.0.0.1"
list = ["a", "b"]
size = 7
below.key = "dotted"
many = [{ key = "inline" }, { n = 2 }]
texts = { a = "1" }
deep.x = [1, 2.5]

[free]
plain = 1
[free.nested]
deeper = { q = [1, { z = 2.5 }] }

[named.one]
key = "1"
[named."two words"]
n = 2
`
	got := sample{Nothing: "stays"}
	if _, problems := Decode("f", []byte(src), &got, Rules{}); problems != nil {
		t.Fatal(problems)
	}
	on := true
	want := sample{
		Name: "x", Count: 65535, Small: -128, Ratio: 2, On: &on, Wait: 90 * time.Second, Address: netip.MustParseAddr("10.0.0.1"),
		List: []string{"a", "b"}, Below: &below{Key: "dotted"}, Many: []below{{Key: "inline"}, {N: 2}}, Size: 7,
		Free: map[string]any{
			"plain":  int64(1),
			"nested": map[string]any{"deeper": map[string]any{"q": []any{int64(1), map[string]any{"z": 2.5}}}},
		},
		Named: map[string]below{"one": {Key: "1"}, "two words": {N: 2}}, Nothing: "stays",
		Texts: map[string]string{"a": "1"}, Deep: map[string][]float64{"x": {1, 2.5}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestArraysOfTablesDecode(t *testing.T) {
	var got sample
	_, problems := Decode("f", []byte("[[many]]\nkey = \"a\"\n[[many]]\nn = 3\n"), &got, Rules{})
	if diff := cmp.Diff([]below{{Key: "a"}, {N: 3}}, got.Many); diff != "" || problems != nil {
		t.Errorf("many (-want +got):\n%s%v", diff, problems)
	}
}

func TestDecodeReportsEverything(t *testing.T) {
	src := `nam = "x"
count = 65536
small = -129
ratio = nan
on = "true"
wait = 10
address = "10.0.0"
list = ["a", 2, [3]]
many = [{ key = 1 }, 5, { nn = 2 }]
free = { inf = inf }
size = 1.5
texts = 2026-01-01

[below]
key = { a = 1 }
n = 99999999999999

[named]
one = []
two.key = true
`
	var got sample
	_, problems := Decode("f.toml", []byte(src), &got, Rules{})
	want := []string{
		`1:1 nam: unknown key (did you mean "name"?)`,
		`2:9 count: 65536 is out of range (between 0 and 65535)`,
		`3:9 small: -129 is out of range (between -128 and 127)`,
		`4:9 ratio: must be a number that has a size ()`,
		`5:6 on: must be true or false, not text (write it without quotes)`,
		`6:8 wait: must be a duration in quotes, not a whole number (write it like "10s", "1m30s" or "2h")`,
		`7:11 address: ParseAddr("10.0.0"): IPv4 address too short ()`,
		`8:14 list[1]: must be text in quotes, not a whole number (write it in quotes)`,
		`8:17 list[2]: must be text in quotes, not a list ()`,
		`9:17 many[0].key: must be text in quotes, not a whole number (write it in quotes)`,
		`9:22 many[1]: must be a table, not a whole number (write { key = "value" })`,
		`9:27 many[2].nn: unknown key (did you mean "n"?)`,
		`10:16 free.inf: must be a number that has a size ()`,
		`11:8 size: must be a whole number, not a number with a point ()`,
		`12:9 texts: must be a table, not a date (write { key = "value" })`,
		`15:7 below.key: must be text in quotes, not a table ()`,
		`19:7 named.one: must be a table, not a list (write { key = "value" })`,
		`20:11 named.two.key: must be text in quotes, not true or false (write it in quotes)`,
	}
	var have []string
	err := problems.Err()
	var sorted Problems
	if !errors.As(err, &sorted) {
		t.Fatalf("got %T", err)
	}
	for _, p := range sorted {
		have = append(have, fmt.Sprintf("%d:%d %s: %s (%s)", p.Line, p.Column, p.Key, p.Message, p.Hint))
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestRulesConvertAndRefuse(t *testing.T) {
	src := "size = \"2k\"\nlist = [\"a\", \"bad\"]\nname = \"x\"\n[named.one]\nn = 1\nkey = \"k\"\n"
	rules := Rules{
		Convert: map[string]func(any) (any, error){
			"size": func(v any) (any, error) { return int64(2048), nil },
			"list[]": func(v any) (any, error) {
				if v == "bad" {
					return nil, &Fault{Message: "is bad", Hint: "be good"}
				}
				return strings.ToUpper(v.(string)), nil
			},
			"named.*.key": func(any) (any, error) { return nil, errors.New("is plain") },
		},
		Refuse: map[string]string{"named.*.n": "wait"},
		Hints:  map[string]string{"name": "unused"},
	}
	var got sample
	_, problems := Decode("f", []byte(src), &got, rules)
	if got.Size != 2048 || got.List[0] != "A" {
		t.Errorf("got %+v", got)
	}
	want := Problems{
		{File: "f", Line: 2, Column: 14, Key: "list[1]", Message: "is bad", Hint: "be good", Snippet: "    2 | list = [\"a\", \"bad\"]\n      |              ^^^^^"},
		{File: "f", Line: 5, Column: 1, Key: "named.one.n", Message: "does not work yet", Hint: "wait", Snippet: "    5 | n = 1\n      | ^"},
		{File: "f", Line: 6, Column: 7, Key: "named.one.key", Message: "is plain", Snippet: "    6 | key = \"k\"\n      |       ^^^"},
	}
	if diff := cmp.Diff(want.Err(), problems.Err()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestExpandedTextBecomesWhatItsPlaceWants(t *testing.T) {
	rules := Rules{Expand: func(key, text string) (string, bool, error) {
		switch text {
		case "later":
			return text, false, nil
		case "wrong":
			return "", false, errors.New("cannot be")
		}
		return strings.TrimPrefix(text, "$"), true, nil
	}}
	src := `name = "$a"
count = "$80"
ratio = "$1.5"
on = "$true"
wait = "$3s"
address = "$10.0.0.1"
list = ["$x", "later"]
free = { a = "$b", c = ["$d"] }
small = "later"
below.n = "$no number"
many = "later"
texts.a = "wrong"
size = "12"
`
	got := sample{Small: 5}
	_, problems := Decode("f", []byte(src), &got, rules)
	on := true
	want := sample{
		Name: "a", Count: 80, Ratio: 1.5, On: &on, Wait: 3 * time.Second, Address: netip.MustParseAddr("10.0.0.1"),
		List: []string{"x", "later"}, Free: map[string]any{"a": "b", "c": []any{"d"}}, Small: 5, Below: &below{},
		Texts: map[string]string{"a": ""},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	var keys []string
	for _, p := range problems {
		keys = append(keys, p.Key+": "+p.Message)
	}
	wantKeys := []string{
		"below.n: must be a whole number, not text",
		"many: must be a list, not text",
		"texts.a: cannot be",
		"size: must be a whole number, not text",
	}
	if diff := cmp.Diff(wantKeys, keys); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestTheSameNameInAnotherTableIsSuggested(t *testing.T) {
	var v struct {
		A struct {
			Port int `toml:"port"`
			Deep struct {
				Port int `toml:"port"`
				Twin int `toml:"twin"`
			} `toml:"deep"`
		} `toml:"a"`
		B struct {
			Deep struct {
				Twin int `toml:"twin"`
			} `toml:"deep"`
		} `toml:"b"`
		Map  map[string]below `toml:"map"`
		Only *below           `toml:"only"`
	}
	d, problems := Decode("f", []byte("port = 1\ntwin = 2\nkey = 3\nnowhere = 4\nmap.x.deep = 5\n"), &v, Rules{})
	got := map[string]string{}
	for _, p := range problems {
		got[p.Key] = p.Hint
	}
	want := map[string]string{
		"port":       `did you mean "a.port"?`, // the nearest to the top
		"twin":       "",                       // two are equally near
		"key":        `did you mean "only.key"?`,
		"nowhere":    "",
		"map.x.deep": "",
	}
	if diff := cmp.Diff(want, got); diff != "" || d == nil {
		t.Errorf("hints (-want +got):\n%s", diff)
	}
}

func TestSyntaxErrorsPointAtTheirPlace(t *testing.T) {
	tests := []struct {
		src          string
		line, column int
	}{
		{"a = [1\nb = 2\n", 2, 1},
		{"x = 1\n[image\nname = 1", 2, 7},
		{"a = \"x\nb = 1\n", 1, 7},
		{"a = 1 2\n", 1, 6},
		{"a\nb=1", 1, 2},
		{"\n\na = 12:99\nb=1", 3, 5},
		{"ä = 1", 1, 1},
		{"\"ä\" = x", 1, 7},
		{"a = [1,\n2\n", 2, 2},
		{"\ufeffa = x", 1, 5},
	}
	for _, test := range tests {
		d, problems := Parse("f", []byte(test.src))
		if d != nil || len(problems) != 1 {
			t.Errorf("%q: %v", test.src, problems)
			continue
		}
		if p := problems[0]; p.Line != test.line || p.Column != test.column {
			t.Errorf("%q: %s at %d:%d, want %d:%d", test.src, p.Message, p.Line, p.Column, test.line, test.column)
		}
	}
	var s sample
	if d, problems := Decode("f", []byte("a = ["), &s, Rules{}); d != nil || len(problems) != 1 {
		t.Errorf("Decode: %v", problems)
	}
}

func TestLongLinesAreShownInPart(t *testing.T) {
	d := document(t, "a = [ \""+strings.Repeat("x", 300)+"\", 7, \""+strings.Repeat("y", 300)+"\" ]\n")
	tests := []struct{ key, marked string }{
		{"a[1]", "7"},
		{"a[2]", "\"" + strings.Repeat("y", 50)},
		{"a[0]", "\"" + strings.Repeat("x", 93)},
	}
	for _, test := range tests {
		p := d.Problem(test.key, "m", "")
		if got := marked(p.Snippet); got != test.marked {
			t.Errorf("%s: marks %q, want %q\n%s", test.key, got, test.marked, p.Snippet)
		}
		if line, _, _ := strings.Cut(p.Snippet, "\n"); len([]rune(line)) > snippetWidth+10 {
			t.Errorf("%s: the line has %d characters", test.key, len([]rune(line)))
		}
	}
}
