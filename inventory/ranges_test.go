package inventory

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRangesExpand(t *testing.T) {
	tests := []struct {
		in   string
		want string
	}{
		{"web", "web"},
		{"web[1:3]", "web1 web2 web3"},
		{"web[01:03].example.com", "web01.example.com web02.example.com web03.example.com"},
		{"web[08:11]", "web08 web09 web10 web11"},
		{"web[8:11]", "web8 web9 web10 web11"},
		{"db-[a:c]", "db-a db-b db-c"},
		{"db-[A:C]", "db-A db-B db-C"},
		{"db-[a:g:3]", "db-a db-d db-g"},
		{"w[001:010:4]", "w001 w005 w009"},
		{"w[:3]", "w0 w1 w2 w3"},
		{"w[5:5]", "w5"},
		{"w[0:1]", "w0 w1"},
		{"[a:b]x", "ax bx"},
		{"r[1:2]n[01:02]-[a:b]", "r1n01-a r1n01-b r1n02-a r1n02-b r2n01-a r2n01-b r2n02-a r2n02-b"},
		{"", ""},
	}
	for _, test := range tests {
		got, err := expandRanges(test.in)
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.in, diff)
		}
	}
}

// FuzzRanges checks that no range costs more than the limit, and that a name
// without brackets is left alone.
func FuzzRanges(f *testing.F) {
	for _, s := range []string{"web[01:20]", "[a:c][1:3]", "w[001:010:4]", "[", "]", "[:]", "[1:2", "[1:2]]", "a[99999:1]", "w[:3]", "x[1:2:3:4]", "[-1:2]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := expandRanges(s)
		if len(got) > maxHosts {
			t.Fatalf("%q stands for %d names", s, len(got))
		}
		if !strings.Contains(s, "[") && s != "" && (err != nil || len(got) != 1 || got[0] != s) {
			t.Fatalf("%q became %q, %v", s, got, err)
		}
		seen := map[string]bool{}
		for _, name := range got {
			if strings.Contains(name, "[") {
				t.Fatalf("%q left %q", s, name)
			}
			if seen[name] && strings.Count(s, "[") == 1 {
				t.Fatalf("%q gave %q twice", s, name)
			}
			seen[name] = true
		}
	})
}
