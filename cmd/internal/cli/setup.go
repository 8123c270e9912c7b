package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/orchestrator"
)

func newSetup(s Streams) *cobra.Command {
	o := &options{streams: s}
	var req orchestrator.Request
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Put teal's part into the configuration of the proxies",
		Long: `Setup looks at every proxy of the app, on the servers or on the load balancers,
and says whether teal's part stands in its configuration, what keeps it from
being put there, and which lines your own configuration needs to refer to it.
What is missing it puts there after asking: written, checked, reloaded without
losing a request, and verified. Deploy does the same. Setup does it before, so
that your own configuration can refer to the app before there is a release; until
then requests are answered with 503.

Without a terminal to ask on nothing is changed. It exits with 3 when something
is missing.`,
		Example: `  teal setup
  teal setup --yes`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(&req); err != nil {
				return err
			}
			session := o.session()
			defer session.Close()
			work := setup{
				proxies: func(ctx context.Context, apply bool) ([]orchestrator.ProxySetup, error) {
					return session.Setup(ctx, req, apply)
				},
				ask: o.prompt.confirm,
				out: s.Out, json: o.json, yes: o.yes,
			}
			outcome, err := work.run(cmd.Context())
			if err == nil && outcome.Code() != 0 {
				err = &exitError{outcome}
			}
			return err
		},
	}
	o.bind(cmd)
	o.bindApp(cmd)
	cmd.Flags().Lookup("yes").Usage = "put it there without asking; what else would need an answer is an error"
	return cmd
}

// A setup is what teal setup does, apart from where it does it.
type setup struct {
	proxies func(ctx context.Context, apply bool) ([]orchestrator.ProxySetup, error)
	ask     func(ctx context.Context, question string) (bool, error)
	out     io.Writer
	json    bool
	yes     bool
}

// run looks, asks, and puts right. With yes it does not look first.
func (s *setup) run(ctx context.Context) (orchestrator.Outcome, error) {
	found, err := s.proxies(ctx, s.yes)
	if err != nil {
		return "", err
	}
	if err := s.show(found); err != nil {
		return "", err
	}
	missing := 0
	for _, p := range found {
		if p.Missing && p.Err == nil {
			missing++
		}
	}
	if missing == 0 || s.json {
		return setupOutcome(found), nil
	}
	agreed, err := s.ask(ctx, fmt.Sprintf("Put teal's part into the configuration of %s?", proxies(missing)))
	if errors.Is(err, errNoTerminal) || err == nil && !agreed {
		return setupOutcome(found), nil
	}
	if err != nil {
		return "", err
	}
	if found, err = s.proxies(ctx, true); err != nil {
		return "", err
	}
	for i := range found {
		found[i].Usage = "" // it stands above
	}
	return setupOutcome(found), s.show(found)
}

func proxies(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return fmt.Sprintf("%d proxies", n)
}

func setupOutcome(found []orchestrator.ProxySetup) orchestrator.Outcome {
	outcome := orchestrator.OutcomeDone
	for _, p := range found {
		switch {
		case p.Err != nil:
			return orchestrator.OutcomeFailed
		case p.Missing:
			outcome = orchestrator.OutcomeChanges
		}
	}
	return outcome
}

func (s *setup) show(found []orchestrator.ProxySetup) error {
	if s.json {
		out := json.NewEncoder(s.out)
		var errs []error
		for _, p := range found {
			errs = append(errs, out.Encode(setupRow(p)))
		}
		return errors.Join(errs...)
	}
	var b strings.Builder
	var usages []string
	hosts := map[string][]string{}
	for _, p := range found {
		fmt.Fprintf(&b, "%s: %s\n", p.Host, setupState(p))
		for _, w := range p.Warnings {
			fmt.Fprintf(&b, "  warning   %s\n", w)
		}
		if p.Usage == "" {
			continue
		}
		if hosts[p.Usage] == nil {
			usages = append(usages, p.Usage)
		}
		hosts[p.Usage] = append(hosts[p.Usage], p.Host)
	}
	for _, usage := range usages {
		where := ""
		if len(usages) > 1 {
			where = " on " + list(hosts[usage])
		}
		fmt.Fprintf(&b, "\nYour own configuration%s refers to the app with:\n\n", where)
		own := usage[:len(usage)-len(strings.TrimLeft(usage, " "))]
		for line := range strings.Lines(usage) {
			b.WriteString("    " + strings.TrimPrefix(line, own))
		}
	}
	return display.Text(s.out, b.String())
}

// setupState says in words how a proxy stands.
func setupState(p orchestrator.ProxySetup) string {
	switch {
	case p.Err != nil:
		return "cannot be set up: " + strings.ReplaceAll(reason(p.Host, p.Err), "\n", "\n  ")
	case p.Changed:
		return "configuration written, reloaded and verified"
	case p.Missing:
		return "teal's part is missing, or not as it should be: it is to be written, and reloaded once"
	}
	return "ready"
}

func setupRow(p orchestrator.ProxySetup) map[string]any {
	row := map[string]any{
		"schema": 1, "host": p.Host, "missing": p.Missing, "changed": p.Changed,
		"warnings": append([]string{}, p.Warnings...), "usage": p.Usage,
	}
	if p.Err != nil {
		row["error"] = p.Err.Error()
	}
	return row
}
