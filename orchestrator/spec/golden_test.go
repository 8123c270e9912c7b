package spec

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

// TestProblemsAreReported reads every app file of testdata and compares all
// that is said about it. A file args holds what a command line adds:
// "environment X", "set name=value" and, for variables of a host, "var
// name=value". With a variable the file is resolved for that host as well.
func TestProblemsAreReported(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files in testdata, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive := readArchive(t, file)
			n := len(archive)
			opts, vars := Options{Set: map[string]string{}}, map[string]string{}
			if n == 4 {
				opts, vars = readArgs(t, archive[1].text)
			}
			input, want := archive[n-2], &archive[n-1]
			got := "nothing wrong\n"
			f, err := Parse(input.name, []byte(input.text), opts)
			if err == nil && len(vars) > 0 {
				_, err = f.For(vars)
			}
			if err != nil {
				got = err.Error() + "\n"
			}
			if *update {
				want.text = got
				archive.write(t, file)
			}
			if diff := cmp.Diff(want.text, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func readArgs(t *testing.T, args string) (Options, map[string]string) {
	t.Helper()
	opts, vars := Options{Set: map[string]string{}}, map[string]string{}
	for line := range strings.Lines(args) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, value, _ := strings.Cut(rest, "=")
		switch kind {
		case "environment":
			opts.Environment = rest
		case "set":
			opts.Set[name] = value
		case "var":
			vars[name] = value
		default:
			t.Fatalf("args: %q", line)
		}
	}
	return opts, vars
}

// An archive is a file in the txtar format: a comment, the first part, and
// files that follow lines of the form "-- name --".
type archive []part

type part struct{ name, text string }

func readArchive(t *testing.T, file string) archive {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := archive{{}}
	for line := range strings.Lines(string(src)) {
		name, isName := strings.CutPrefix(line, "-- ")
		if name, ends := strings.CutSuffix(name, " --\n"); isName && ends {
			parts = append(parts, part{name: name})
			continue
		}
		parts[len(parts)-1].text += line
	}
	return parts
}

func (a archive) write(t *testing.T, file string) {
	t.Helper()
	var b strings.Builder
	for i, p := range a {
		if i > 0 {
			b.WriteString("-- " + p.name + " --\n")
		}
		b.WriteString(p.text)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
