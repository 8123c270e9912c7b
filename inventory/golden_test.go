package inventory

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

// TestProblemsAreReported reads every inventory of testdata and compares all
// that is said about it.
func TestProblemsAreReported(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files in testdata, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive := readArchive(t, file)
			input, want := archive[1], &archive[2]
			got := "nothing wrong\n"
			if _, err := Parse(input.name, []byte(input.text)); err != nil {
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
