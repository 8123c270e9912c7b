package cli

import (
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/orchestrator"
)

func newPlan(s Streams) *cobra.Command {
	o := &options{streams: s}
	var req orchestrator.Request
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what deploy would do on every server, and why",
		Long: `Plan looks at every server, decides as deploy would, prints the decision and
touches nothing. It exits with 0 when there is nothing to do and with 3 when
there is.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(&req); err != nil {
				return err
			}
			session := o.session()
			defer session.Close()
			plan, err := session.Plan(cmd.Context(), req)
			if err != nil {
				return err
			}
			return o.showPlan(plan)
		},
	}
	o.bind(cmd)
	o.bindApp(cmd)
	bindVersion(cmd, &req)
	o.bindCanary(cmd)
	cmd.Flags().BoolVar(&req.Force, "force", false, "plan as deploy --force would")
	return cmd
}

// planned is a host's plan as JSON.
type planned struct {
	Host    string   `json:"host"`
	Changes bool     `json:"changes"`
	Reasons []string `json:"reasons,omitempty"`
	Repairs []string `json:"repairs,omitempty"`
	From    string   `json:"from,omitempty"`
	To      string   `json:"to,omitempty"`
	Slot    string   `json:"slot,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// plannedBalancer is a load balancer's plan as JSON.
type plannedBalancer struct {
	Balancer string   `json:"balancer"`
	Changes  bool     `json:"changes"`
	Reasons  []string `json:"reasons,omitempty"`
	Members  []string `json:"members"`
}

func plannedBalancers(plans []orchestrator.BalancerPlan) []plannedBalancer {
	var rows []plannedBalancer
	for _, b := range plans {
		row := plannedBalancer{Balancer: b.Host.Name, Changes: len(b.Reasons) > 0, Reasons: b.Reasons, Members: []string{}}
		for _, m := range b.Members {
			row.Members = append(row.Members, m.Name)
		}
		rows = append(rows, row)
	}
	return rows
}

func (o *options) showPlan(p *orchestrator.Plan) error {
	unreachable := false
	var hosts []planned
	for _, h := range p.Hosts {
		row := planned{Host: h.Host.Name, Changes: h.Changes(), Reasons: h.Reasons}
		for _, r := range h.Repairs {
			row.Repairs = append(row.Repairs, r.Text)
		}
		if h.From != nil {
			row.From = h.From.Version
		}
		if h.Deploys() {
			row.To, row.Slot = h.To.Version, string(h.To.Slot)
		}
		if h.Err != nil {
			unreachable, row.Error = true, h.Err.Error()
		}
		hosts = append(hosts, row)
	}
	if o.json {
		row := map[string]any{"schema": 1, "version": p.Version, "commit": p.Commit, "digest": p.Digest, "hosts": hosts}
		if balancers := plannedBalancers(p.Balancers); balancers != nil {
			row["balancers"] = balancers
		}
		if err := json.NewEncoder(o.streams.Out).Encode(row); err != nil {
			return err
		}
	} else if err := display.Text(o.streams.Out, p.String()); err != nil {
		return err
	}
	switch {
	case unreachable:
		return &exitError{orchestrator.OutcomeUnreachable}
	case p.Changes():
		return &exitError{orchestrator.OutcomeChanges}
	}
	return nil
}

func list(names []string) string { return strings.Join(names, ", ") }
