package inventory

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const fleet = `[groups.web]
hosts = ["web[01:06]"]
[groups.lb]
hosts = ["lb1", "lb2"]
[groups.eu]
hosts = ["web01", "web03", "lb1"]
[groups.production]
children = ["web", "lb"]
[groups.empty]
[hosts.lonely]
[hosts."2001:db8::1"]
[hosts.webmail]
`

func TestPatternsSelect(t *testing.T) {
	inv := parse(t, fleet)
	tests := []struct {
		pattern string
		want    string
	}{
		{"all", "web01 web02 web03 web04 web05 web06 lb1 lb2 lonely 2001:db8::1 webmail"},
		{"*", "web01 web02 web03 web04 web05 web06 lb1 lb2 lonely 2001:db8::1 webmail"},
		{"web", "web01 web02 web03 web04 web05 web06"},
		{"web02", "web02"},
		{"web:lb", "web01 web02 web03 web04 web05 web06 lb1 lb2"},
		{"lb,web02", "web02 lb1 lb2"},
		{"lb, web02 ,", "web02 lb1 lb2"},
		{"lb2:lb1:lb", "lb1 lb2"},
		{"web:!web03", "web01 web02 web04 web05 web06"},
		{"web:&eu", "web01 web03"},
		{"!web", "lb1 lb2 lonely 2001:db8::1 webmail"},
		{"&eu", "web01 web03 lb1"},
		{"!web03:web", "web01 web02 web04 web05 web06"},
		{"!lb1:&eu:lb:web", "web01 web03"},
		{"web:&eu:&production:!web01", "web03"},
		{"web*", "web01 web02 web03 web04 web05 web06 webmail"},
		{"web0?", "web01 web02 web03 web04 web05 web06"},
		{"web0[23]*", "web02 web03"},
		{"web0[!23]*", "web01 web04 web05 web06"},
		{"l*", "lb1 lb2 lonely"},
		{`~web\d+`, "web01 web02 web03 web04 web05 web06"},
		{`~(lb|web)0?[12]`, "web01 web02 lb1 lb2"},
		{`~(?:lb|lonely):web01`, "web01 lb1 lb2 lonely"},
		{`~lb\d{1,2},web01`, "web01 lb1 lb2"},
		{`~lon`, "lonely"},
		{"web[0]", "web01"},
		{"web[-1]", "web06"},
		{"web[-2]", "web05"},
		{"web[0:2]", "web01 web02 web03"},
		{"web[0-2]", "web01 web02 web03"},
		{"web[4:]", "web05 web06"},
		{"web[4:-1]", "web05 web06"},
		{"web[4:99]", "web05 web06"},
		{"web[0:1]:lb[1]", "web01 web02 lb2"},
		{"production:!web[1:]", "web01 lb1 lb2"},
		{"all[0]", "web01"},
		{"eu[2]", "lb1"},
		{"2001:db8::1", "2001:db8::1"},
		{"!2001:db8::1", "web01 web02 web03 web04 web05 web06 lb1 lb2 lonely webmail"},
		{"web[0]:web[0]:web01", "web01"},
	}
	for _, test := range tests {
		t.Run(test.pattern, func(t *testing.T) {
			hosts, err := inv.Select(test.pattern)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, strings.Join(names(hosts), " ")); diff != "" {
				t.Errorf("hosts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPatternsThatMatchNothingAreErrors(t *testing.T) {
	inv := parse(t, fleet)
	tests := []struct {
		pattern, want string
	}{
		{"wbe", `pattern "wbe": no host or group is named "wbe": did you mean "web"?`},
		{"web:!wbe03", `pattern "web:!wbe03": no host or group is named "wbe03": did you mean "web03"?`},
		{"web:&prodction", `pattern "web:&prodction": no host or group is named "prodction": did you mean "production"?`},
		{"al", `pattern "al": no host or group is named "al": did you mean "all"?`},
		{"something", `pattern "something": no host or group is named "something"`},
		{"db*", `pattern "db*": no host or group matches "db*"`},
		{`~db\d`, `pattern "~db\\d": no host or group matches "~db\\d"`},
		{"~(", `pattern "~(": "(" is not a regular expression: ` + "error parsing regexp: missing closing ): `^(?:()`"},
		{"web[", `pattern "web[": "web[" is not a wildcard: its brackets do not fit`},
		{"web[6]", `pattern "web[6]": "web" has 6 hosts, counted from 0: there is none at the place asked for`},
		{"web[-7]", `pattern "web[-7]": "web" has 6 hosts, counted from 0: there is none at the place asked for`},
		{"web[3:1]", `pattern "web[3:1]": "web" has 6 hosts, counted from 0: there is none at the place asked for`},
		{"web[0:-]", `pattern "web[0:-]": "web[0:-]": "-" is not a number`},
		{"empty[0]", `pattern "empty[0]": "empty" has 0 hosts, counted from 0: there is none at the place asked for`},
		{"", `pattern "" is empty: write all for every host`},
		{" , :", `pattern " , :" is empty: write all for every host`},
		{"!", `pattern "!": no host or group is named ""`},
		{"empty", `pattern "empty": no host is left of 11`},
		{"web:!web", `pattern "web:!web": no host is left of 11`},
		{"@failed", `pattern "@failed": no host or group is named "@failed"`},
		{"$(reboot)\x1b[2J", `pattern "$(reboot)\x1b[2J": "$(reboot)\x1b[2J" is not a wildcard: its brackets do not fit`},
	}
	for _, test := range tests {
		hosts, err := inv.Select(test.pattern)
		if err == nil {
			t.Errorf("%q selects %v", test.pattern, names(hosts))
			continue
		}
		if diff := cmp.Diff(test.want, err.Error()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.pattern, diff)
		}
	}
}

func TestLimitsNarrowAPattern(t *testing.T) {
	inv := parse(t, fleet)
	hosts, err := inv.Select("web:lb", "eu", "!web03")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"web01", "lb1"}, names(hosts)); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	if _, err := inv.Select("web", "lb"); err == nil || err.Error() != `pattern "web and lb": no host is left of 11` {
		t.Errorf("got %v", err)
	}
	if _, err := inv.Select("web", "lbb"); err == nil {
		t.Error("a limit that names nothing is no error")
	}
}

// FuzzPatterns checks that a pattern never selects a host that is not there,
// keeps the order of the inventory, and that an exclusion takes out what the
// same pattern selects.
func FuzzPatterns(f *testing.F) {
	for _, s := range []string{"web", "web:lb", "web:!web03", "web:&eu", "web*", `~web\d+`, "web[0:4]", "web[-1]", "all", "::", "[", "~[", "!", "a[1:", "web[99999999999]", "\\", "2001:db8::1"} {
		f.Add(s)
	}
	inv, err := Parse("f", []byte(fleet))
	if err != nil {
		f.Fatal(err)
	}
	position := map[string]int{}
	for i, h := range inv.Hosts() {
		position[h.Name] = i
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		hosts, err := inv.Select(pattern)
		if (err == nil) == (len(hosts) == 0) {
			t.Fatalf("%q: %v, %v", pattern, names(hosts), err)
		}
		last := -1
		for _, h := range hosts {
			at, ok := position[h.Name]
			if !ok || at <= last {
				t.Fatalf("%q: %v", pattern, names(hosts))
			}
			last = at
		}
		if err != nil {
			return
		}
		if simple := !strings.ContainsAny(pattern, ":,!&\\([{"); simple {
			rest, err := inv.Select("all:!" + pattern)
			if err == nil && len(rest)+len(hosts) != len(position) {
				t.Fatalf("%q and its exclusion select %d and %d of %d", pattern, len(hosts), len(rest), len(position))
			}
		}
	})
}
