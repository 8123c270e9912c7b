package cli

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"confirm": confirm})
}

// confirm asks whether to go on, with the first argument as the limit.
func confirm() {
	limit, err := time.ParseDuration(os.Args[1])
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, errInterrupted)
	defer cancel()
	p := prompt{}
	p.drawn(func() (resume func()) {
		fmt.Println("paused")
		return func() { fmt.Println("resumed") }
	})
	agreed, err := p.confirm(ctx, "Go on?")
	fmt.Println(agreed, err)
}

// The scripts have a terminal where they say so.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireUniqueNames: true})
}
