package shell

import (
	"bytes"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
)

// shells are the login shells and the inner shells that are installed.
func shells(t testing.TB) [][]string {
	t.Helper()
	var found [][]string
	for _, s := range [][]string{{"dash"}, {"bash"}, {"busybox", "sh"}, {"fish"}, {"tcsh"}, {"zsh"}, {"mksh"}} {
		if _, err := exec.LookPath(s[0]); err == nil {
			found = append(found, s)
		}
	}
	return found
}

func TestLineHoldsNothingThatALoginShellTakesForMore(t *testing.T) {
	w, err := Encode(&plugins.Command{
		Args: []string{"echo", "'\"$`\\!\n\t*?[~#;&|<>(){}%^é"}, Env: map[string]string{"A": "secret"}, Stdin: strings.NewReader(""),
	}, SudoPassword, true)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.SplitN(w.Line, "'", 5)
	if len(words) != 5 || words[0] != "sh -c " || words[2] != " teal " || words[4] != "" {
		t.Fatalf("the line is not one of four words: %s", w.Line)
	}
	for _, c := range []byte(words[3]) {
		if !harmless(c) && c != '\\' {
			t.Errorf("%q is in the script", c)
		}
	}
	if strings.Contains(w.Line, "secret") || !strings.Contains(w.Header, "secret") {
		t.Error("a value is not where it belongs")
	}
}

func TestEncodeChoosesTheWay(t *testing.T) {
	long := strings.Repeat("!", maxLine)
	tests := map[string]struct {
		cmd    plugins.Command
		become Become
		header int // lines
	}{
		"plain":              {plugins.Command{Args: []string{"true"}}, None, 0},
		"variables":          {plugins.Command{Args: []string{"true"}, Env: map[string]string{"A": "1\n2"}}, None, 1},
		"long":               {plugins.Command{Args: []string{"echo", long}}, None, 1},
		"long and variables": {plugins.Command{Args: []string{"echo", long}, Env: map[string]string{"A": "1"}}, None, 1},
		"sudo":               {plugins.Command{Args: []string{"true"}}, Sudo, 0},
		"sudo's password":    {plugins.Command{Args: []string{"true"}}, SudoPassword, 1},
		"all":                {plugins.Command{Args: []string{"echo", long}, Env: map[string]string{"A": "1"}}, SudoPassword, 2},
	}
	for name, tt := range tests {
		w, err := Encode(&tt.cmd, tt.become, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(w.Header, "\n"); got != tt.header {
			t.Errorf("%s: %d lines before standard input, want %d", name, got, tt.header)
		}
		if len(w.Line) > maxLine {
			t.Errorf("%s: the line has %d bytes", name, len(w.Line))
		}
	}
}

// roundTrip runs printf with an argument and a variable through a login shell
// and returns what arrived.
func roundTrip(t testing.TB, shell []string, arg, value string, input *string) string {
	t.Helper()
	cmd := plugins.Command{
		Args: []string{"sh", "-c", `printf '%s\n%s\n' "$1" "$TEAL_VALUE"; cat`, "teal", arg},
		Env:  map[string]string{"TEAL_VALUE": value},
	}
	if input != nil {
		cmd.Stdin = strings.NewReader(*input)
	}
	w, err := Encode(&cmd, None, false)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(shell[0], append(shell[1:], "-c", w.Line)...)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(in, w.Header)
	if input != nil {
		if err := NewInput(cmd.Stdin).Pump(in); err != nil {
			t.Error(err)
		}
	}
	// The input stays open: it is the leash.
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %v: %s", shell, err, stderr.Bytes())
	}
	got, ok := strings.CutPrefix(out.String(), Mark)
	if !ok {
		t.Fatalf("%v: no mark: %q", shell, out.String())
	}
	return got
}

var nasty = []string{
	"", " ", "\n", "\\", "'", `"`, "it's", `a\`, "!", "!!", "$HOME", "`id`", "$(id)", "a\nb\n", "%s%d%%", "\t", "~", "*",
	"\\n\\t\\0101", "\x01\x7f", "é€😀", "\xff\xfe", "-n", "--", "#", "a;b&c|d>e<f", "{a,b}", "<teal:run>\n", ":teal:sync:\n", "\r\n", "^a^b",
	"teal' \"; echo '",
}

func TestNastyTextPassesEveryShell(t *testing.T) {
	for _, shell := range shells(t) {
		t.Run(shell[0], func(t *testing.T) {
			for i, text := range nasty {
				other := nasty[len(nasty)-1-i]
				if diff := cmp.Diff(text+"\n"+other+"\n"+text, roundTrip(t, shell, text, other, &text)); diff != "" {
					t.Errorf("%q: %s", text, diff)
				}
			}
		})
	}
}

func FuzzTextPassesEveryShell(f *testing.F) {
	for _, text := range nasty {
		f.Add(text, text, text)
	}
	found := shells(f)
	f.Fuzz(func(t *testing.T, arg, value, input string) {
		if strings.ContainsRune(arg+value, 0) {
			t.Skip("no shell passes a zero byte on")
		}
		want := arg + "\n" + value + "\n" + input
		for _, shell := range found {
			if got := roundTrip(t, shell, arg, value, &input); got != want {
				t.Errorf("%v: got %q, want %q", shell, got, want)
			}
		}
	})
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"": "''", "a b": "'a b'", "it's": `'it'\''s'`} {
		if got := Quote(in); got != want {
			t.Errorf("%q: got %s", in, got)
		}
	}
	if got := octal("a'\n\x00é1"); got != `a\047\012\000\303\2511` {
		t.Errorf("octal: %s", got)
	}
	if got := escapeLine("a\\n\nb"); got != `a\\n\nb` {
		t.Errorf("escapeLine: %s", got)
	}
}

func TestMarkWriterFindsTheMarkInPieces(t *testing.T) {
	text := "noise\n" + Mark + "output " + Mark
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		m := NewMarkWriter(&out)
		for rest := []byte(text); len(rest) > 0; {
			n := min(size, len(rest))
			if _, err := m.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if noise, seen := m.Before(); out.String() != "output "+Mark || string(noise) != "noise\n" || !seen {
			t.Errorf("in pieces of %d: %q after %q", size, out.String(), noise)
		}
	}
	m := NewMarkWriter(io.Discard)
	for range 100 {
		_, _ = m.Write(make([]byte, 10000))
	}
	if noise, seen := m.Before(); len(noise) > 2*maxNoise || seen {
		t.Errorf("%d bytes are kept", len(noise))
	}
}
