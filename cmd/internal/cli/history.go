package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/orchestrator"
)

func newHistory(s Streams) *cobra.Command {
	o := &options{streams: s}
	n := 10
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show what was deployed where, when, by whom, and how it ended",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var req orchestrator.Request
			if err := o.complete(&req); err != nil {
				return err
			}
			session := o.session()
			defer session.Close()
			hosts, err := session.History(cmd.Context(), req, n)
			if err != nil {
				return err
			}
			return o.showHistory(hosts)
		},
	}
	o.bind(cmd)
	o.bindName(cmd)
	cmd.Flags().IntVarP(&n, "entries", "n", n, "how many entries a server")
	return cmd
}

func (o *options) showHistory(hosts []orchestrator.HostHistory) error {
	failed := false
	var rows [][]string
	for _, h := range hosts {
		if h.Err != nil {
			failed = true
			rows = append(rows, []string{h.Host, "", "", "", "", "", "", "", reason(h.Host, h.Err)})
		}
		if o.json {
			row := map[string]any{"schema": 1, "host": h.Host, "entries": h.Entries}
			if h.Err != nil {
				row["error"] = h.Err.Error()
			}
			if err := json.NewEncoder(o.streams.Out).Encode(row); err != nil {
				return err
			}
			continue
		}
		for _, e := range h.Entries {
			rows = append(rows, []string{
				h.Host, e.Release, e.Start.Local().Format(time.DateTime), e.Command, e.Version, shorten(e.Commit), shorten(e.Digest), e.By, result(e.Result, e.Reason),
			})
		}
	}
	if !o.json {
		if err := display.Table(o.streams.Out, []string{"HOST", "RELEASE", "WHEN", "COMMAND", "VERSION", "COMMIT", "IMAGE", "BY", "ENDED"}, rows); err != nil {
			return err
		}
	}
	if failed {
		return &exitError{orchestrator.OutcomeUnreachable}
	}
	return nil
}

func result(ended, reason string) string {
	if reason == "" {
		return ended
	}
	return fmt.Sprintf("%s: %s", ended, reason)
}
