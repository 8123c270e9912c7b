package display

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/teal-deploy/teal/orchestrator"
)

// keptRuns is how many journals stay.
const keptRuns = 100

// JournalDir is the folder of the journals: $XDG_STATE_HOME/teal/runs, or
// ~/.local/state/teal/runs.
func JournalDir(getenv func(string) string) (string, error) {
	state := getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the folder for journals: %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "teal", "runs"), nil
}

// OpenJournal returns a renderer that keeps the run as JSON lines in
// dir/RUN.jsonl, readable by its owner alone, and removes the oldest journals
// beyond the last hundred. Every event is written when it happens.
func OpenJournal(dir, run string) (Renderer, error) {
	if run == "" || run != filepath.Base(run) || run[0] == '.' {
		return nil, fmt.Errorf("open the journal: run %q cannot name a file", run)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, run+".jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // run was checked
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	if err := forget(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal: %w", err), f.Close())
	}
	return &journal{jsonLines: jsonLines{w: f}, file: f}, nil
}

type journal struct {
	jsonLines
	file *os.File
}

func (j *journal) Finish(r orchestrator.Result) error {
	err := cmp.Or(j.jsonLines.Finish(r), j.file.Sync())
	if err := cmp.Or(err, j.file.Close()); err != nil {
		return fmt.Errorf("keep the journal: %w", err)
	}
	return nil
}

// forget removes old journals. Run ids sort by time.
func forget(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names[:max(len(names)-keptRuns, 0)] {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
