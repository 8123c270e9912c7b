package nginx

import (
	"context"
	"io"

	"github.com/teal-deploy/teal/plugins"
)

// scripted answers every command with the same output.
type scripted struct {
	plugins.Host
	out string
}

func (s *scripted) Run(_ context.Context, cmd *plugins.Command) error {
	_, err := io.WriteString(cmd.Stdout, s.out)
	return err
}
