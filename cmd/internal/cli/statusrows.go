package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
)

// showHosts prints the table of the hosts. Its column of open requests is there
// where a proxy counts them.
func showHosts(out io.Writer, found orchestrator.FleetStatus) error {
	counted := slices.ContainsFunc(found.Hosts, func(h orchestrator.HostStatus) bool { return h.Open != nil })
	header := []string{"HOST", "SERVES", "RECORDED", "ON DISK", "LIVE"}
	if counted {
		header = append(header, "OPEN")
	}
	var rows [][]string
	for _, h := range found.Hosts {
		row, since := []string{h.Host, "", "", "", ""}, ""
		if r := h.Recorded; r != nil {
			row = []string{h.Host, r.Version, string(r.Slot), dash(h.Disk), dash(h.Live)}
			since = r.At.Local().Format(time.DateTime) + " by " + r.By
		}
		if counted {
			row = append(row, opened(h.Open))
		}
		rows = append(rows, append(row, since, notes(h, len(found.Balancers) > 0)))
	}
	return display.Table(out, append(header, "SINCE", ""), rows)
}

// notes is what is worth saying of a host besides what it serves. Balanced says
// that its load balancers were looked at.
func notes(h orchestrator.HostStatus, balanced bool) string {
	var said []string
	switch {
	case h.Err != nil:
		return reason(h.Host, h.Err)
	case h.Recorded == nil:
		said = append(said, "never deployed")
	case h.Recorded.App.Proxy != nil && h.Recorded.App.Proxy.Hosts != "" && !balanced:
		said = append(said, "its load balancers stand in the app file: name it with -f")
	}
	if h.Problem != "" {
		said = append(said, h.Problem)
	}
	if h.Pending != "" {
		said = append(said, h.Pending)
	}
	if h.Holder != nil {
		said = append(said, holds(h.Holder))
	}
	return strings.Join(said, "; ")
}

// showBalancers prints the table of the load balancers, a line for each server
// that one knows.
func showBalancers(out io.Writer, balancers []orchestrator.BalancerStatus) error {
	var rows [][]string
	for _, b := range balancers {
		host, said := b.Host, balancerNotes(b)
		if len(b.Members) == 0 {
			rows = append(rows, []string{host, "", "", "", "", "", said})
		}
		for _, m := range b.Members {
			rows = append(rows, []string{host, m.Name, dash(m.Disk), dash(m.Live), dash(cmp.Or(m.Version, m.Release)), dash(opened(m.Open)), said})
			host, said = "", ""
		}
	}
	return display.Table(out, []string{"LOAD BALANCER", "SERVER", "ON DISK", "LIVE", "VERSION", "OPEN", ""}, rows)
}

// balancerNotes is what is worth saying of a load balancer besides what it does
// with its servers.
func balancerNotes(b orchestrator.BalancerStatus) string {
	if b.Err != nil {
		return reason(b.Host, b.Err)
	}
	var said []string
	if len(b.Members) == 0 {
		said = append(said, "knows no server of the app yet")
	}
	if b.Problem != "" {
		said = append(said, b.Problem)
	}
	if b.Holder != nil {
		said = append(said, holds(b.Holder))
	}
	return strings.Join(said, "; ")
}

func holds(w *record.Owner) string {
	return fmt.Sprintf("%s by %s since %s", w.Command, w.By, w.Since.Local().Format(time.TimeOnly))
}

// opened is how many requests are open to each slot: "blue 3 green 12"; empty
// where nobody counts.
func opened(open map[proxy.Slot]int) string {
	if open == nil {
		return ""
	}
	return fmt.Sprintf("%s %d %s %d", proxy.Blue, open[proxy.Blue], proxy.Green, open[proxy.Green])
}

// reason is an error for a line that begins with the host.
func reason(host string, err error) string {
	return strings.TrimPrefix(err.Error(), host+": ")
}

func hostRow(h orchestrator.HostStatus) map[string]any {
	row := map[string]any{
		"schema": 1, "host": h.Host, "disk": h.Disk, "live": h.Live, "release": h.Release, "problem": h.Problem,
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
	if h.Open != nil {
		row["open"] = h.Open
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

func balancerRow(b orchestrator.BalancerStatus) map[string]any {
	members := []map[string]any{}
	for _, m := range b.Members {
		member := map[string]any{"host": m.Name, "disk": m.Disk, "live": m.Live, "release": m.Release}
		if m.Open != nil {
			member["open"] = m.Open
		}
		members = append(members, member)
	}
	row := map[string]any{"schema": 1, "balancer": b.Host, "members": members, "problem": b.Problem}
	if b.Err != nil {
		row["error"] = b.Err.Error()
	}
	if b.Holder != nil {
		row["lock"] = b.Holder
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
