package haproxy

import (
	"context"
	"net"
	"sync/atomic"

	"github.com/teal-deploy/teal/plugins"
)

// counting counts what is asked of a host, and spoils it where a test wants.
type counting struct {
	plugins.Host
	runs, becomes, dials atomic.Int64

	before func(args []string) error                                            // instead of the command, when it returns an error
	after  func(args []string)                                                  // when the command has ended
	dial   func(ctx context.Context, network, address string) (net.Conn, error) // instead of a connection
}

func (c *counting) Run(ctx context.Context, cmd *plugins.Command) error {
	c.runs.Add(1)
	if cmd.Become {
		c.becomes.Add(1)
	}
	if c.before != nil {
		if err := c.before(cmd.Args); err != nil {
			return err
		}
	}
	err := c.Host.Run(ctx, cmd)
	if c.after != nil {
		c.after(cmd.Args)
	}
	return err
}

func (c *counting) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c.dials.Add(1)
	if c.dial != nil {
		return c.dial(ctx, network, address)
	}
	return c.Host.DialContext(ctx, network, address)
}
