package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/orchestrator"
)

func newDeploy(s Streams) *cobra.Command {
	o := &options{streams: s}
	var req orchestrator.Request
	cmd := &cobra.Command{
		Use:   "deploy",
		Short: "Bring a release to every server of the app",
		Long: `Deploy carries out the seven steps on every server: renew the image, download
the code, create green, install in it, test it, switch all new connections to
it, and remove blue ten seconds later. Where nothing differs it does nothing.`,
		Example: `  teal deploy
  teal deploy -i production.toml -e production --version 42
  teal deploy --on root@203.0.113.7 --app shop --image shop:42 --port 8080 --http /up --proxy nginx --listen 80`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.carryOut(cmd, req, (*orchestrator.Deployer).Deploy)
		},
	}
	o.bind(cmd)
	o.bindApp(cmd)
	bindVersion(cmd, &req)
	o.bindCanary(cmd)
	cmd.Flags().BoolVar(&req.Force, "force", false, "deploy even where nothing differs")
	cmd.Flags().BoolVar(&req.EndDrain, "end-drain", false, "end connections to the release before the last, when they still hold the free slot")
	bindDetach(cmd, &req)
	return cmd
}

func bindVersion(cmd *cobra.Command, req *orchestrator.Request) {
	cmd.Flags().StringVar(&req.Version, "version", "", "the `name` of the release (default: the commit, else the image's tag)")
}

func (o *options) bindCanary(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&o.canary, "canary", nil, "the `shares` of the requests that green gets first, as 5%,25%, or none (default: rollout.canary)")
}

func bindDetach(cmd *cobra.Command, req *orchestrator.Request) {
	cmd.Flags().BoolVar(&req.Detach, "detach", false, "end when the switch is confirmed: blue is removed on time, but green is not watched until then")
}

// carryOut runs a command that changes hosts, shows what happens, and turns
// its outcome into the exit code.
func (o *options) carryOut(cmd *cobra.Command, req orchestrator.Request,
	do func(*orchestrator.Deployer, context.Context, orchestrator.Request) orchestrator.Result,
) error {
	if err := o.complete(&req); err != nil {
		return err
	}
	s := o.session()
	defer s.Close()
	view := o.view(cmd.Name(), &req)
	s.Emit = view.Event
	o.prompt.drawn(func() (resume func()) { return display.Pause(view) })
	result := do(s.Deployer, cmd.Context(), req)
	if err := view.Finish(result); err != nil {
		return err
	}
	if result.Outcome == orchestrator.OutcomeUsage {
		fmt.Fprintln(o.streams.Err, result.Err)
	}
	if result.Outcome.Code() != 0 {
		return &exitError{result.Outcome}
	}
	return nil
}
