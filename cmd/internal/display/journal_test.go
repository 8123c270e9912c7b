package display

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJournalKeepsWhatJSONShows(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "runs")
	j, err := OpenJournal(dir, "r7")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := Tee(NewJSON(&out), j)
	for i, e := range events() {
		r.Event(e)
		if got := readFile(t, filepath.Join(dir, "r7.jsonl")); bytes.Count(got, []byte("\n")) != i+1 {
			t.Fatalf("after %d events the journal has %q", i+1, got)
		}
	}
	if err := r.Finish(result()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(out.String(), string(readFile(t, filepath.Join(dir, "r7.jsonl")))); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]os.FileMode{"r7.jsonl": 0o600, ".": 0o700 | os.ModeDir} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v (%v)", name, info.Mode(), want, err)
		}
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenJournalKeepsTheLastHundred(t *testing.T) {
	dir := t.TempDir()
	for i := range 105 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("r%03d.jsonl", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a note"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := OpenJournal(dir, "r200")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Finish(result()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{entries[0].Name(), entries[1].Name(), entries[len(entries)-1].Name()}
	if diff := cmp.Diff([]string{"a note", "r006.jsonl", "r200.jsonl"}, got); diff != "" || len(entries) != 101 {
		t.Errorf("%d entries\n%s", len(entries), diff)
	}
}

func TestOpenJournalRefusesRunsThatNameNoFile(t *testing.T) {
	for _, run := range []string{"", ".", "..", "a/b", "../a", ".hidden"} {
		if _, err := OpenJournal(t.TempDir(), run); err == nil {
			t.Errorf("run %q was taken", run)
		}
	}
}

func TestJournalDirFollowsXDG(t *testing.T) {
	t.Setenv("HOME", "/home/op")
	for state, want := range map[string]string{
		"/state":   "/state/teal/runs",
		"":         "/home/op/.local/state/teal/runs",
		"relative": "/home/op/.local/state/teal/runs",
	} {
		got, err := JournalDir(func(string) string { return state })
		if err != nil || got != want {
			t.Errorf("XDG_STATE_HOME=%q: got %s, %v; want %s", state, got, err, want)
		}
	}
}
