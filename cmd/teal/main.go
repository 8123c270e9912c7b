// Command teal deploys a new release of an app to every server of an
// inventory over SSH, with no failed request.
package main

import (
	"os"

	"github.com/teal-deploy/teal/cmd/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
