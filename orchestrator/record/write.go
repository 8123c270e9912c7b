package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/teal-deploy/teal/plugins"
)

// SchemaVersion is the State.Schema that this teal writes and the newest that
// it reads.
const SchemaVersion = 1

// keepHistory is how many runs a host remembers.
const keepHistory = 200

// Write replaces the app's state, durably: after a power cut the host has the
// former or the new one, whole. Schema and App are filled in. What ServesScript
// asks for changes with it, a moment earlier. ErrFenced when another run has
// taken the lock since; then nothing is written.
func (l *Lock) Write(ctx context.Context, st State) error {
	op := "write the state of " + l.app
	st.Schema, st.App = SchemaVersion, l.app
	data, err := jsonLine(st)
	if err != nil {
		return fail(l.host, op, plugins.Invalid, err)
	}
	var slot string
	if st.Active != nil {
		slot = string(st.Active.Slot)
	}
	_, err = l.run(ctx, op, []string{baseScript, writeScript}, data, strconv.Itoa(len(data)), slot)
	return err
}

// Append adds how a run ended to the host's history, which keeps the last 200.
func (l *Lock) Append(ctx context.Context, e Entry) error {
	op := "write the history of " + l.app
	data, err := jsonLine(e)
	if err != nil {
		return fail(l.host, op, plugins.Invalid, err)
	}
	_, err = l.run(ctx, op, []string{baseScript, appendScript}, data, strconv.Itoa(len(data)), strconv.Itoa(keepHistory))
	return err
}

// Audit adds a line to the app's audit trail: the host's time, who holds the
// lock, and text, which must hold no secret. Line breaks become spaces. The
// trail keeps its last 1 to 2 MiB.
func (l *Lock) Audit(ctx context.Context, text string) error {
	line := fmt.Sprintf("%s %s: %s", l.owner.By, l.owner.Run, text)
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, line)
	_, err := l.run(ctx, "write the audit trail of "+l.app, []string{baseScript, auditScript}, nil, line)
	return err
}

// History returns how the last n runs ended on the host, newest first. When
// lines are damaged it returns the others and an error of kind Invalid.
func (s Store) History(ctx context.Context, h plugins.Host, app string, n int) ([]Entry, error) {
	op := "read the history of " + app
	if err := checkName("app", app); err != nil {
		return nil, fail(h, op, plugins.Invalid, err)
	}
	out, err := run(ctx, h, op, command([]string{historyScript}, s.Dir(app), strconv.Itoa(max(n, 0))))
	if err != nil {
		return nil, err
	}
	var entries []Entry
	var damaged error
	for line := range bytes.Lines(out) {
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			damaged = errors.Join(damaged, fmt.Errorf("damaged line %.60q: %w", line, err))
			continue
		}
		entries = append(entries, e)
	}
	slices.Reverse(entries)
	if damaged != nil {
		return entries, fail(h, op, plugins.Invalid, damaged)
	}
	return entries, nil
}

// jsonLine returns v as one line.
func jsonLine(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	return append(data, '\n'), err
}
