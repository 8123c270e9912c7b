package proxytest

import (
	"context"
	"net"
	"sync/atomic"

	"github.com/teal-deploy/teal/plugins"
)

// A Host counts what is asked of a host, and spoils it where a test wants.
type Host struct {
	plugins.Host
	Runs, Becomes, Dials atomic.Int64

	Before func(args []string) error                                            // instead of the command, when it returns an error
	After  func(args []string)                                                  // when the command has ended
	Dial   func(ctx context.Context, network, address string) (net.Conn, error) // instead of a connection
}

// Run counts a command and runs it, unless Before refuses.
func (c *Host) Run(ctx context.Context, cmd *plugins.Command) error {
	c.Runs.Add(1)
	if cmd.Become {
		c.Becomes.Add(1)
	}
	if c.Before != nil {
		if err := c.Before(cmd.Args); err != nil {
			return err
		}
	}
	err := c.Host.Run(ctx, cmd)
	if c.After != nil {
		c.After(cmd.Args)
	}
	return err
}

// DialContext counts a connection and makes it, or has Dial make it.
func (c *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c.Dials.Add(1)
	if c.Dial != nil {
		return c.Dial(ctx, network, address)
	}
	return c.Host.DialContext(ctx, network, address)
}
