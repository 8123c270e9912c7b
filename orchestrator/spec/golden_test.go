package spec

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

// TestProblemsAreReported reads every app file of testdata and compares all
// that is said about it. A file args holds what a command line adds:
// "environment X", "canary X,Y", "set name=value" and, for variables of a host, "var
// name=value". With a variable the file is resolved for that host as well.
func TestProblemsAreReported(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files in testdata, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			n := len(archive.Files)
			opts, vars := Options{Set: map[string]string{}}, map[string]string{}
			if n == 3 {
				opts, vars = readArgs(t, string(archive.Files[0].Data))
			}
			input, want := archive.Files[n-2], &archive.Files[n-1]
			got := "nothing wrong\n"
			f, err := Parse(input.Name, input.Data, opts)
			if err == nil && len(vars) > 0 {
				_, err = f.For(vars)
			}
			if err != nil {
				got = err.Error() + "\n"
			}
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(want.Data), got); diff != "" {
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
		case "canary":
			opts.Canary = strings.Split(rest, ",")
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
