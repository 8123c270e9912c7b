package plugintest_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/docker"
	"github.com/teal-deploy/teal/plugins/internal/engine/enginetest"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// unreached is a runtime that works as far as Probe and Pull, and has no
// optional interface.
type unreached struct{ plugins.Runtime }

func (unreached) Create(context.Context, plugins.Host, plugins.Spec) (plugins.Container, error) {
	return plugins.Container{}, errors.New("not today")
}

func TestReportTellsOfEveryCheck(t *testing.T) {
	e := enginetest.Require(t, shared.start)
	report := plugintest.Report(t.Context(), unreached{docker.New(e.Socket)}, e.Host("web1"), plugintest.Options{
		Image: enginetest.Image, Policy: plugins.PullNever, Publish: netip.MustParseAddrPort("127.0.0.1:20011"), Prefix: "teal-report",
	})
	got := map[string]string{}
	for _, c := range report {
		switch {
		case c.Skipped && c.Err == nil:
			got[c.Name] = "skipped"
		case c.Err != nil:
			got[c.Name] = "wrong"
		default:
			got[c.Name] = "right"
		}
		if c.Took <= 0 {
			t.Errorf("%s took %v", c.Name, c.Took)
		}
	}
	want := map[string]string{
		"probe and pull": "right", "create": "wrong", "create again": "wrong", "create with nonsense": "wrong", "ports": "wrong",
		"environment, command and mounts": "wrong", "read-only mounts": "wrong", "limits of memory and CPU": "wrong", "exec": "wrong", "exec that is cancelled": "wrong", "list": "wrong",
		"stop": "wrong", "remove": "wrong", "restart": "skipped", "restart policy": "skipped", "logs": "skipped", "local commands": "skipped",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReportEndsWithTheFirstCheckWhenNothingWorks(t *testing.T) {
	report := plugintest.Report(t.Context(), docker.New("/no/such.sock"), plugintest.Local("web1"), plugintest.Options{})
	if len(report) != 1 || report[0].Name != "probe and pull" || !errors.Is(report[0].Err, plugins.Unavailable) {
		t.Errorf("%+v", report)
	}
}
