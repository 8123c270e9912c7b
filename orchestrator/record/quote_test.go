package record

import (
	"os/exec"
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", "''"},
		{"plain", "'plain'"},
		{"it's", `'it'\''s'`},
		{"''", `''\'''\'''`},
		{"$(rm -rf ~) `x` \\ \"\n", "'$(rm -rf ~) `x` \\ \"\n'"},
	} {
		if got, err := quote(tt.in); err != nil || got != tt.want {
			t.Errorf("quote(%q) = %s, %v, want %s", tt.in, got, err, tt.want)
		}
	}
	if _, err := quoteAll([]string{"a", "b\x00c"}); err == nil {
		t.Error("a NUL was taken")
	}
}

// FuzzQuote lets shells print what was quoted.
func FuzzQuote(f *testing.F) {
	shells := [][]string{{"dash"}, {"busybox", "sh"}, {"bash"}}
	for _, s := range []string{"", "'", "\\", "a\nb\n", "!\"$`", "\x81\x88\xff", "ü", "-n", "*?[", "\r\t #;&|"} {
		f.Add(s, s+"'"+s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		words, err := quoteAll([]string{a, b})
		if err != nil {
			if !strings.Contains(a+b, "\x00") {
				t.Fatal(err)
			}
			return
		}
		for _, shell := range shells {
			if _, err := exec.LookPath(shell[0]); err != nil {
				continue // another one is there, or the tests of the scripts say so
			}
			// As in an order file: words of a script, not an argument.
			cmd := exec.Command(shell[0], shell[1:]...)
			cmd.Env = []string{"LC_ALL=C"}
			cmd.Stdin = strings.NewReader(`printf '%s.%s.' ` + words + "\n")
			out, err := cmd.Output()
			if want := a + "." + b + "."; err != nil || string(out) != want {
				t.Errorf("%v printed %q, %v, want %q", shell, out, err, want)
			}
		}
	})
}
