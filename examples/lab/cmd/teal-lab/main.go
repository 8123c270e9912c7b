//go:build linux

// Command teal-lab makes real hosts on this machine, to try teal on them or to
// watch it work: see its up and its demo.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/cmd/internal/cli"
)

func main() {
	if lab.Init(os.Args[1:]) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := cli.Run(ctx, os.Args[1:], cli.Streams{Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
