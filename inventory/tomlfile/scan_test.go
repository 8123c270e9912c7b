package tomlfile

import (
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// leaves returns the dotted keys of everything below value.
func leaves(key string, value any) []string {
	var out []string
	if key != "" {
		out = append(out, key)
	}
	if table, ok := value.(map[string]any); ok {
		for name, v := range table {
			out = append(out, leaves(Join(key, name), v)...)
		}
	}
	list, _ := elements(value)
	for i, v := range list {
		out = append(out, leaves(Index(key, i), v)...)
	}
	return out
}

func TestEveryKeyHasItsPlace(t *testing.T) {
	src := strings.ReplaceAll(`# comment = 1
top = "a # no comment" # comment
"quoted key" = 'x'
a.b . c = [1, 2,
  [3, "]"], # ]
  { d = 1, e.f = '}' },
]
long = """
x = 1 "" \""" [no] """"
raw = '''
[table]'''''
when = 1979-05-27 07:32:00
[table]
k = 0x1F
[table."sub table".x]
k = true
[[list]]
k = 1
[list.below]
k = 2
[[list]]
k = 3
[[list.deeper]]
k = 4
[[list.deeper]]
inline = { a = { b = 5 }, "c d" = [ { e = 6 } ] }
`, "\n", "\r\n")
	d, problems := Parse("f", []byte("\ufeff"+src))
	if problems != nil {
		t.Fatal(problems)
	}
	want := leaves("", d.tree)
	var got []string
	for key := range d.places {
		got = append(got, key)
	}
	sort.Strings(want)
	sort.Strings(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-tree +scanned):\n%s", diff)
	}
	for key, text := range map[string]string{
		"top":                                 `"a # no comment"`,
		`"quoted key"`:                        `'x'`,
		"a.b.c[2][1]":                         `"]"`,
		"a.b.c[3].e.f":                        `'}'`,
		"raw":                                 "'''\r\n[table]'''''",
		"when":                                "1979-05-27 07:32:00",
		`table."sub table".x.k`:               "true",
		"list[0].below.k":                     "2",
		"list[1].k":                           "3",
		"list[1].deeper[0].k":                 "4",
		`list[1].deeper[1].inline."c d"[0].e`: "6",
	} {
		if got := d.Source(key); got != text {
			t.Errorf("%s stands for %q, want %q", key, got, text)
		}
	}
}

// FuzzScan compares the scanner with the library: what the library finds in
// a file the scanner must find, and nothing else, and it never fails.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		"a = 1", "[a]\nb = {c = [1, {d = '''x'''}]}", "[[a]]\n[a.b]\n[[a]]\n", "a.b = 1\na.c = 2", `"\u0041" = """a\""""`,
		"x = [[1],[2]]#c\r\n", "a = 1\na = 2", "[a]\nx=1\n[a]\nx=2", "a = {b=1, b=2}", "'' = 1", "a = \"", "[", "a = [", "a={",
		"[\"a.b\"]\n[\"a.b\".c]\n", "a=1979-05-27 07:32:00 # x", "k = \"a\\e\\x41\"", "é = 1", "\"é\" = \"\\u202e\"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		scan(src)
		d, problems := Parse("f", []byte(src))
		for _, p := range problems {
			if text := p.String(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == 0x9b }) {
				t.Fatalf("control characters in %q", text)
			}
		}
		if d == nil {
			return
		}
		tree := leaves("", d.tree)
		for _, key := range tree {
			if _, ok := d.places[key]; !ok {
				t.Fatalf("no place for %s in %q", key, src)
			}
			if _, ok := d.lookup(key); !ok {
				t.Fatalf("%s is not found in %q", key, src)
			}
			d.Problem(key, "m", "")
		}
		if len(problems) == 0 && len(tree) != len(d.places) {
			t.Fatalf("%d keys, %d places in %q", len(tree), len(d.places), src)
		}
	})
}
