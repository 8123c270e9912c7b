package source

import (
	"bytes"
	"context"
	"io"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// An agentRunner is a host that can lend a command the operator's SSH agent,
// limited to the named keys if there are any.
type agentRunner interface {
	RunWithAgent(ctx context.Context, cmd *plugins.Command, identities []string) error
}

// ask runs a script that talks to repo's git server: on a host with the
// operator's agent and knowledge of host keys, here with key files.
func (s *Source) ask(ctx context.Context, r runner, repo repository, script string, out io.Writer, args ...string) error {
	select {
	case s.fetches <- struct{}{}:
		defer func() { <-s.fetches }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	lines, err := s.knownHostsOf(ctx, repo)
	if err != nil {
		return err
	}
	identities, err := expandHome(s.code.Identity)
	if err != nil {
		return err
	}
	if r == (here{}) {
		args = append(args, identities...)
	}
	cmd := shell(script, args...)
	cmd.Stdin, cmd.Stdout = strings.NewReader(lines), out
	if a, ok := r.(agentRunner); ok && repo.scheme == "ssh" {
		err = a.RunWithAgent(ctx, cmd, identities)
	} else {
		err = r.Run(ctx, cmd)
	}
	return explain(err, repo)
}

// shell is a command for a constant script.
func shell(script string, args ...string) *plugins.Command {
	return &plugins.Command{Args: append([]string{"sh", "-c", script, "teal"}, args...)}
}

// run runs a script that stays on r.
func run(ctx context.Context, r runner, repo repository, script string, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := shell(script, args...)
	cmd.Stdout = &out
	err := r.Run(ctx, cmd)
	return out.String(), explain(err, repo)
}
