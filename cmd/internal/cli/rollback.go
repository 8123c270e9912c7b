package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/teal-deploy/teal/orchestrator"
)

// oneRelease refuses more than one name, and an empty one, as an unset variable
// of a shell gives it: it would mean the release before.
func oneRelease(_ *cobra.Command, args []string) error {
	switch {
	case len(args) > 1:
		return fmt.Errorf("goes back to one release, and got %q", strings.Join(args, " "))
	case len(args) == 1 && args[0] == "":
		return errors.New("the release is given without a name")
	}
	return nil
}

func newRollback(s Streams) *cobra.Command {
	o := &options{streams: s}
	var req orchestrator.Request
	cmd := &cobra.Command{
		Use:   "rollback [release]",
		Short: "Bring back the release before, or a named one",
		Long: `Rollback brings back the release that served before, or the one of that id,
version or commit out of those that the servers keep. While its containers
still run it switches back at once. Later it makes them again as they were:
image by digest, code by commit, with the environment, mounts and command of
that release.`,
		Args: oneRelease,
		RunE: func(cmd *cobra.Command, args []string) error {
			release := ""
			if len(args) == 1 {
				release = args[0]
			}
			return o.carryOut(cmd, req, func(d *orchestrator.Deployer, ctx context.Context, req orchestrator.Request) orchestrator.Result {
				return d.Rollback(ctx, req, release)
			})
		},
	}
	o.bind(cmd)
	o.bindName(cmd)
	cmd.Flags().BoolVar(&req.EndDrain, "end-drain", false, "end connections to the release before the last, when they still hold the free slot")
	bindDetach(cmd, &req)
	return cmd
}
