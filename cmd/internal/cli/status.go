package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

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
			var req orchestrator.Request
			if err := o.complete(&req); err != nil {
				return err
			}
			session := o.session()
			defer session.Close()
			found, err := session.Status(cmd.Context(), req)
			if err != nil {
				return err
			}
			if err := o.showStatus(found); err != nil {
				return err
			}
			if outcome := fleet(found); outcome != orchestrator.OutcomeDone {
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
func fleet(found orchestrator.FleetStatus) orchestrator.Outcome {
	outcome := orchestrator.OutcomeDone
	versions := map[string]bool{}
	for _, h := range found.Hosts {
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
	for _, b := range found.Balancers {
		switch {
		case b.Err != nil:
			outcome = orchestrator.OutcomeUnreachable
		case b.Problem != "":
			return orchestrator.OutcomeMixed
		}
	}
	if len(versions) > 1 {
		return orchestrator.OutcomeMixed
	}
	return outcome
}

func (o *options) showStatus(found orchestrator.FleetStatus) error {
	if o.json {
		out := json.NewEncoder(o.streams.Out)
		var errs []error
		for _, h := range found.Hosts {
			errs = append(errs, out.Encode(hostRow(h)))
		}
		for _, b := range found.Balancers {
			errs = append(errs, out.Encode(balancerRow(b)))
		}
		return errors.Join(errs...)
	}
	if err := showHosts(o.streams.Out, found); err != nil || len(found.Balancers) == 0 {
		return err
	}
	fmt.Fprintln(o.streams.Out)
	return showBalancers(o.streams.Out, found.Balancers)
}
