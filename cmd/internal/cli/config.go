package cli

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/spec"
)

func newConfig(s Streams) *cobra.Command {
	o := &options{streams: s}
	release := ""
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the app as every server resolves it",
		Long: `Config prints the app file with its environment, variables and defaults
resolved, for every server whose result differs. Secrets are shown as where they
come from. Nothing is connected to.`,
		RunE: func(*cobra.Command, []string) error { return o.config(release) },
	}
	o.bind(cmd)
	o.bindApp(cmd)
	cmd.Flags().StringVar(&release, "version", "unnamed", "the release's name, where the file says ${version}")
	return cmd
}

// config prints each distinct result once, with the hosts that it holds for.
func (o *options) config(version string) error {
	var req orchestrator.Request
	if err := o.complete(&req); err != nil {
		return err
	}
	type resolved struct {
		Schema int      `json:"schema"`
		Hosts  []string `json:"hosts"`
		App    spec.App `json:"app"`
	}
	var all []*resolved
	byText := map[string]*resolved{}
	for _, h := range req.Hosts {
		vars := maps.Clone(h.Vars)
		if vars == nil {
			vars = map[string]string{}
		}
		vars["version"] = version
		app, err := req.File.For(vars)
		if err != nil {
			return &orchestrator.UsageError{Err: err}
		}
		text := spec.Render(app)
		if byText[text] == nil {
			byText[text] = &resolved{Schema: 1, App: app}
			all = append(all, byText[text])
		}
		byText[text].Hosts = append(byText[text].Hosts, h.Name)
	}
	for i, r := range all {
		if o.json {
			if err := json.NewEncoder(o.streams.Out).Encode(r); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(o.streams.Out)
		}
		fmt.Fprintf(o.streams.Out, "# for %s\n%s", list(r.Hosts), spec.Render(r.App))
	}
	return nil
}
