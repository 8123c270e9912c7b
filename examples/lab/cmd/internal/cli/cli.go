//go:build linux

// Package cli is the command line of teal-lab: flags to values, and a lab's
// state to text. What a lab is and does is in package lab.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/cmd/internal/demo"
)

// defaultDir is where the lab is unless -dir says otherwise: on the disk, and
// emptied by nobody at night.
const defaultDir = "/var/lib/teal-lab"

const usage = `Usage: teal-lab COMMAND [-dir DIR] [ARGUMENT...]

Makes real hosts on this machine, each with its own network, disk, sshd, proxy
and Docker Engine, and a host with a registry and git repositories. With load
balancers these run the proxy.

  up         start hosts that stay: -hosts N, -proxy nginx|haproxy|none, -lb N,
             -engine docker, -sudo-password P
  down       end them and remove all that is left, also after a crash
  status     the hosts, their addresses, and how they are
  env        what to export, for teal, ssh and git: eval "$(teal-lab env)"
  cut H      pull the network cable of a host
  heal H     plug it in again
  reboot H   cut the power of a host and switch it on again
  demo       releases and a rollback under load, with a count: -teal PROGRAM,
             -hosts N, -proxy nginx|haproxy, -lb N

Only root can do this.
`

// Streams are where a command writes.
type Streams struct {
	Out, Err io.Writer
}

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// errUsage says that the command line has been refused, and why, already.
var errUsage = errors.New("usage")

// Run runs one command line and returns its exit code: 0 done, 1 failed, 2 not
// understood or not possible on this machine.
func Run(ctx context.Context, args []string, s Streams) int {
	if len(args) == 0 {
		fmt.Fprint(s.Err, usage)
		return exitUsage
	}
	c := &command{Streams: s, name: args[0], flags: flag.NewFlagSet("teal-lab "+args[0], flag.ContinueOnError)}
	c.flags.SetOutput(s.Err)
	c.flags.StringVar(&c.dir, "dir", defaultDir, "the lab's folder")
	commands := map[string]func(context.Context, []string) error{
		"up": c.up, "down": c.down, "status": c.status, "env": c.env, "demo": c.demo,
		"cut":    c.onHost((*lab.Host).Cut),
		"heal":   c.onHost((*lab.Host).Heal),
		"reboot": c.onHost((*lab.Host).Reboot),
	}
	run, ok := commands[c.name]
	switch c.name {
	case "help", "-h", "-help", "--help":
		fmt.Fprint(s.Out, usage)
		return exitDone
	}
	if !ok {
		fmt.Fprintf(s.Err, "teal-lab: unknown command %q\n\n%s", c.name, usage)
		return exitUsage
	}
	switch err := run(ctx, args[1:]); {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, errUsage):
		return exitUsage
	default:
		fmt.Fprintf(s.Err, "teal-lab: %v\n", err)
		return exitFailed
	}
}

// A command is one command line.
type command struct {
	Streams
	name  string
	flags *flag.FlagSet
	dir   string
}

// parse reads the flags and wants n arguments besides.
func (c *command) parse(args []string, n int) error {
	if err := c.flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage // the flag set has said why
	}
	if c.flags.NArg() != n {
		fmt.Fprintf(c.Err, "teal-lab %s: %d arguments are wanted, not %q\n", c.name, n, c.flags.Args())
		return errUsage
	}
	return nil
}

// possible says what this machine lacks for a lab.
func (c *command) possible(config lab.Config) error {
	missing := lab.Missing(config)
	if len(missing) == 0 {
		return nil
	}
	for _, m := range missing {
		fmt.Fprintf(c.Err, "teal-lab: %s\n", m)
	}
	return errUsage
}

func (c *command) up(ctx context.Context, args []string) error {
	config := lab.Config{Services: true, Detached: true}
	c.flags.IntVar(&config.Hosts, "hosts", 2, "how many hosts")
	c.flags.IntVar(&config.Balancers, "lb", 0, "how many load balancers, which run the proxy; 0: each host has its own")
	c.flags.StringVar(&config.Proxy, "proxy", lab.Nginx, "nginx, haproxy or none")
	c.flags.StringVar(&config.Engine, "engine", lab.Docker, "the hosts' container engine: docker, podman or rootless-podman; empty for none")
	c.flags.StringVar(&config.SudoPassword, "sudo-password", "", "what sudo asks the user deploy for; empty for nothing")
	if err := c.parse(args, 0); err != nil {
		return err
	}
	config.Dir = c.dir
	if err := c.possible(config); err != nil {
		return err
	}
	began := time.Now()
	l, err := lab.Start(ctx, config)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "%d hosts are up after %s. ssh -F %s/ssh_config h1; inventory: %s\n",
		config.Hosts+config.Balancers, time.Since(began).Round(10*time.Millisecond), l.Dir(), l.Inventory())
	return nil
}

func (c *command) down(ctx context.Context, args []string) error {
	if err := c.parse(args, 0); err != nil {
		return err
	}
	return lab.Down(ctx, c.dir)
}

func (c *command) status(_ context.Context, args []string) error {
	if err := c.parse(args, 0); err != nil {
		return err
	}
	l, err := lab.Open(c.dir)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HOST\tADDRESS\tPOWER\tCABLE")
	hosts := append(l.Hosts(), l.Balancers()...)
	if l.Services() != nil {
		hosts = append(hosts, l.Services())
	}
	for _, h := range hosts {
		power, cable := "on", "plugged in"
		if !h.Running() {
			power = "off"
		}
		if !h.Connected() {
			cable = "cut"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", h.Name, h.Addr, power, cable)
	}
	return t.Flush()
}

func (c *command) env(_ context.Context, args []string) error {
	if err := c.parse(args, 0); err != nil {
		return err
	}
	l, err := lab.Open(c.dir)
	if err != nil {
		return err
	}
	for _, v := range l.Env() {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(c.Out, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	return nil
}

// onHost makes a command of something that is done to one host.
func (c *command) onHost(do func(*lab.Host, context.Context) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		if err := c.parse(args, 1); err != nil {
			return err
		}
		l, err := lab.Open(c.dir)
		if err != nil {
			return err
		}
		h := l.Lookup(c.flags.Arg(0))
		if h == nil {
			fmt.Fprintf(c.Err, "teal-lab %s: no host is called %q\n", c.name, c.flags.Arg(0))
			return errUsage
		}
		return do(h, ctx)
	}
}

func (c *command) demo(ctx context.Context, args []string) error {
	var config demo.Config
	c.flags.StringVar(&config.Teal, "teal", "bin/teal", "the program to show")
	c.flags.IntVar(&config.Hosts, "hosts", 2, "how many hosts")
	c.flags.StringVar(&config.Proxy, "proxy", lab.Nginx, "nginx or haproxy")
	c.flags.IntVar(&config.Balancers, "lb", 0, "how many load balancers, which run the proxy; 0: each host has its own")
	c.flags.DurationVar(&config.Settle, "settle", 5*time.Second, "how long the load runs before, between and after")
	if err := c.parse(args, 0); err != nil {
		return err
	}
	if err := c.possible(demo.Lab(config)); err != nil {
		return err
	}
	return demo.Run(ctx, config, c.Out)
}
