package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/orchestrator"
)

func newStatus(s Streams) *cobra.Command {
	o := &options{streams: s}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who serves what on every server",
		Long: `Status shows for every server what is recorded, what stands on disk and what
the proxy answers now, side by side, and what is still to be removed and when. It
exits with 6 when the servers do not agree, or one of them not with itself.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := o.request()
			if err != nil {
				return err
			}
			session := o.session()
			defer session.Close()
			hosts, err := session.Status(cmd.Context(), req)
			if err != nil {
				return err
			}
			if err := o.showStatus(hosts); err != nil {
				return err
			}
			if outcome := fleet(hosts); outcome != orchestrator.OutcomeDone {
				return &exitError{outcome}
			}
			return nil
		},
	}
	o.bind(cmd)
	o.bindName(cmd)
	return cmd
}

// fleet is the outcome of a look at all hosts.
func fleet(hosts []orchestrator.HostStatus) orchestrator.Outcome {
	outcome := orchestrator.OutcomeDone
	versions := map[string]bool{}
	for _, h := range hosts {
		switch {
		case h.Err != nil:
			outcome = orchestrator.OutcomeUnreachable
			continue
		case h.Problem != "":
			return orchestrator.OutcomeMixed
		}
		v := ""
		if h.Recorded != nil {
			v = h.Recorded.Version + " " + h.Recorded.Commit + " " + h.Recorded.Image.Digest
		}
		versions[v] = true
	}
	if len(versions) > 1 {
		return orchestrator.OutcomeMixed
	}
	return outcome
}

func (o *options) showStatus(hosts []orchestrator.HostStatus) error {
	if o.json {
		for _, h := range hosts {
			if err := json.NewEncoder(o.streams.Out).Encode(statusRow(h)); err != nil {
				return err
			}
		}
		return nil
	}
	var rows [][]string
	for _, h := range hosts {
		row := []string{h.Host, "", "", "", "", "", notes(h)}
		if r := h.Recorded; r != nil {
			row = []string{
				h.Host, r.Version, string(r.Slot), dash(string(h.Disk)), dash(string(h.Live)),
				r.At.Local().Format(time.DateTime) + " by " + r.By, notes(h),
			}
		}
		rows = append(rows, row)
	}
	return display.Table(o.streams.Out, []string{"HOST", "SERVES", "RECORDED", "ON DISK", "LIVE", "SINCE", ""}, rows)
}

// notes is what is worth saying of a host besides what it serves.
func notes(h orchestrator.HostStatus) string {
	var said []string
	switch {
	case h.Err != nil:
		return reason(h.Host, h.Err)
	case h.Recorded == nil:
		said = append(said, "never deployed")
	}
	if h.Problem != "" {
		said = append(said, h.Problem)
	}
	if h.Pending != "" {
		said = append(said, h.Pending)
	}
	if w := h.Holder; w != nil {
		said = append(said, fmt.Sprintf("%s by %s since %s", w.Command, w.By, w.Since.Local().Format(time.TimeOnly)))
	}
	return strings.Join(said, "; ")
}

// reason is an error for a line that begins with the host.
func reason(host string, err error) string {
	return strings.TrimPrefix(err.Error(), host+": ")
}

func statusRow(h orchestrator.HostStatus) map[string]any {
	row := map[string]any{
		"schema": 1, "host": h.Host, "disk": h.Disk, "live": h.Live, "problem": h.Problem,
		"running": h.Running, "pending": h.Pending,
	}
	if h.Err != nil {
		row["error"] = h.Err.Error()
	}
	if r := h.Recorded; r != nil {
		row["recorded"] = map[string]any{
			"release": r.ID, "version": r.Version, "commit": r.Commit, "digest": r.Image.Digest, "slot": r.Slot, "at": r.At, "by": r.By,
		}
	}
	var kept []string
	for _, r := range h.Kept {
		kept = append(kept, r.Version)
	}
	row["kept"] = kept
	if h.Holder != nil {
		row["lock"] = h.Holder
	}
	return row
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func shorten(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}
