package execruntime_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

const script = "../../../examples/runtimes/shell/teal-runtime-cli.sh"

// The script passes the conformance test but for one promise that a client of
// docker's kind cannot keep: a command that is cancelled goes on in the
// container.
func TestShellExampleDrivesAnEngine(t *testing.T) {
	if _, err := exec.LookPath("jq"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	e := enginetest.Require(t, sync.OnceValues(enginetest.Start))
	t.Cleanup(e.Close)
	p, err := loader.Start(t.Context(), loader.Spec{
		Name: "cli", Cmd: []string{script}, Protocol: loader.Exec,
		Settings: map[string]any{"client": []any{"docker", "-H", "unix://" + e.Socket}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	err = plugintest.TestRuntime(t.Context(), p.Runtime(), e.Host("web1"), plugintest.Options{
		Image: enginetest.Image, Policy: plugins.PullNever, Publish: netip.MustParseAddrPort("127.0.0.1:20001"), Timeout: 2 * time.Minute,
	})
	for _, found := range broken(err) {
		if !strings.HasPrefix(found.Error(), "exec that is cancelled: the command goes on") {
			t.Error(found)
		}
	}
}

// broken are the checks that found something.
func broken(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	if err != nil {
		return []error{errors.Unwrap(err)}
	}
	return nil
}
