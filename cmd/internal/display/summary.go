package display

import (
	"fmt"
	"io"
	"strings"

	"github.com/teal-deploy/teal/orchestrator"
)

// Summary writes how a run ended: the outcome, a table of the hosts, and for
// every host that failed its step, the error and the last lines that green
// wrote. Of a run that a mistake in the files or the command line ended there
// is nothing to sum up: the caller says which.
func Summary(w io.Writer, r orchestrator.Result) error {
	return summary(w, r, false)
}

func summary(w io.Writer, r orchestrator.Result, p palette) error {
	if r.Outcome == orchestrator.OutcomeUsage {
		return nil
	}
	var b strings.Builder
	b.WriteString("\n" + p.paint(outcomeColour(r.Outcome), headline(r)) + "\n")
	if r.Err != nil {
		for _, line := range lines(r.Err.Error()) {
			b.WriteString("  " + line + "\n")
		}
	}
	if len(r.Hosts) > 0 {
		b.WriteString("\n")
		if err := hostTable(r.Hosts, terminalWidth(w), p).write(&b); err != nil {
			return err
		}
	}
	for _, h := range r.Hosts {
		b.WriteString(failureOf(h, p))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	return nil
}

// headline is the result in a line:
//
//	deploy: done in 42s, 3 done; version 42, commit 0123456789ab
func headline(r orchestrator.Result) string {
	text := fmt.Sprintf("%s: %s in %s", r.Command, r.Outcome, duration(r.Ended.Sub(r.Started)))
	if states := countStates(r.Hosts); states != "" {
		text += ", " + states
	}
	var what []string
	for _, part := range []struct{ name, value string }{
		{"version", r.Version},
		{"release", r.Release},
		{"commit", short(r.Commit)},
		{"image", shortDigest(r.Digest)},
	} {
		if part.value != "" {
			what = append(what, part.name+" "+part.value)
		}
	}
	if len(what) > 0 {
		text += "; " + strings.Join(what, ", ")
	}
	return clean(text)
}

// countStates is "2 done, 1 failed", in the order of the states' first host.
func countStates(hosts []orchestrator.HostResult) string {
	counts := map[orchestrator.HostState]int{}
	var order []orchestrator.HostState
	for _, h := range hosts {
		if counts[h.State]++; counts[h.State] == 1 {
			order = append(order, h.State)
		}
	}
	parts := make([]string, len(order))
	for i, s := range order {
		parts[i] = fmt.Sprintf("%d %s", counts[s], s)
	}
	return strings.Join(parts, ", ")
}

func hostTable(hosts []orchestrator.HostResult, width int, p palette) table {
	t := table{header: []string{"HOST", "STATE", "SERVING", "SLOT", "SWITCH", "BLUE"}, width: width, palette: p}
	for _, h := range hosts {
		serving := h.Version
		if serving == "" {
			serving = h.Serving
		}
		t.rows = append(t.rows, []string{
			h.Host, string(h.State), orDash(serving), orDash(string(h.Slot)), switchTime(h), formerRelease(h),
		})
	}
	t.colour = func(row, column int) paint {
		switch {
		case column == 1:
			return stateColour(hosts[row].State)
		case column == 3 && hosts[row].Slot == "green":
			return green
		case column == 3:
			return blue
		}
		return 0
	}
	return t
}

func switchTime(h orchestrator.HostResult) string {
	if h.Switch == 0 {
		return "-"
	}
	return duration(h.Switch)
}

// formerRelease says what has become of the former release.
func formerRelease(h orchestrator.HostResult) string {
	switch {
	case h.Teardown != "":
		return h.Teardown
	case !h.BlueGone.IsZero():
		return "gone " + h.BlueGone.Format("15:04:05")
	}
	return "-"
}

// failureOf tells a failed host's story; "" for the others.
func failureOf(h orchestrator.HostResult, p palette) string {
	if h.Err == nil && len(h.Log) == 0 {
		return ""
	}
	var b strings.Builder
	title := clean(h.Host) + ": " + string(h.State)
	if h.Step != "" {
		title += " at " + string(h.Step)
	}
	b.WriteString("\n" + p.paint(stateColour(h.State), title) + "\n")
	if h.Err != nil {
		for _, line := range lines(cause(h.Host, h.Err)) {
			b.WriteString("  " + line + "\n")
		}
	}
	if len(h.Log) > 0 {
		b.WriteString(p.paint(faint, "  the last lines of green:") + "\n")
	}
	for _, line := range h.Log {
		b.WriteString(p.paint(faint, "  | "+clean(strings.TrimRight(line, "\r\n"))) + "\n")
	}
	return b.String()
}

func stateColour(s orchestrator.HostState) paint {
	switch s {
	case orchestrator.Done, orchestrator.Verified, orchestrator.Switched:
		return teal
	case orchestrator.Failed, orchestrator.Unknown, orchestrator.Unreachable, orchestrator.RolledBack:
		return red
	case orchestrator.Pending, orchestrator.Ready, orchestrator.Skipped:
	}
	return 0
}

func outcomeColour(o orchestrator.Outcome) paint {
	if o.Code() == 0 {
		return teal
	}
	return red
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short cuts a commit to what people compare.
func short(commit string) string { return commit[:min(len(commit), 12)] }

func shortDigest(digest string) string {
	algorithm, sum, ok := strings.Cut(digest, ":")
	if !ok {
		return digest
	}
	return algorithm + ":" + short(sum)
}
