package cli

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/examples/runtimes"
	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/loader"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

func TestSkeletonRequiresWhatEverybodyCanGet(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "v1.2.3", "v0.4.0-rc.1": "v0.4.0-rc.1",
		"devel": "", "(devel)": "", "": "", "1.2.3": "", "v1.2.3-4-gdd54487": "", "v1.2.3-dirty": "",
		"v0.0.0-20261123034141-dd5448710f53": "", "v1.2.3+dirty": "",
	} {
		if got := released([]string{"devel", version}); got != want {
			t.Errorf("of %q it requires %q, not %q", version, got, want)
		}
	}
	if got := built()[0]; got != version {
		t.Errorf("the program calls itself %q", got)
	}
}

func TestCheckOfSeveralHosts(t *testing.T) {
	broken := &plugins.Error{Op: "stop c1", Host: "web2", Kind: plugins.Unavailable, Err: errors.New("no answer\nat all")}
	ok := plugintest.Check{Name: "create", Took: 1234 * time.Millisecond}
	lacking := plugintest.Check{Name: "logs", Took: 5 * time.Millisecond, Skipped: true}
	wrong := plugintest.Check{Name: "stop", Took: time.Second, Err: broken}
	lost := &plugins.Error{Op: "connect", Host: "web3", Kind: plugins.Unavailable, Err: errors.New("connection refused")}
	for _, tt := range []struct {
		name    string
		found   []checkedHost
		outcome orchestrator.Outcome
		text    string
		json    string
	}{
		{
			name: "all is well", found: []checkedHost{{host: "web1", checks: []plugintest.Check{ok, lacking}}},
			outcome: orchestrator.OutcomeDone,
			text: `HOST  CHECK   RESULT       TOOK
web1  create  ok           1.23s
web1  logs    not claimed  10ms

mine 1.0 on web1: 1 ok, 0 failed, 1 not claimed
`,
			json: `{"check":"create","host":"web1","plugin":"mine 1.0","result":"ok","schema":1,"took_ms":1234}
{"check":"logs","host":"web1","plugin":"mine 1.0","result":"not claimed","schema":1,"took_ms":5}
`,
		},
		{
			name:    "one fails and one is not there",
			found:   []checkedHost{{host: "web3", err: lost}, {host: "web2", checks: []plugintest.Check{wrong}}},
			outcome: orchestrator.OutcomeFailed,
			text: `web3: connect: connection refused

HOST  CHECK  RESULT  TOOK
web2  stop   failed  1s

web2: stop
  stop c1: no answer
  at all

mine 1.0 on web2: 0 ok, 1 failed, 0 not claimed
`,
			json: `{"error":"web3: connect: connection refused","host":"web3","plugin":"mine 1.0","result":"unreachable","schema":1}
{"check":"stop","error":"web2: stop c1: no answer\nat all","host":"web2","plugin":"mine 1.0","result":"failed","schema":1,"took_ms":1000}
`,
		},
		{
			name: "nobody is there", found: []checkedHost{{host: "web3", err: lost}},
			outcome: orchestrator.OutcomeUnreachable,
			text:    "web3: connect: connection refused\n",
			json:    `{"error":"web3: connect: connection refused","host":"web3","plugin":"mine 1.0","result":"unreachable","schema":1}` + "\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := checkOutcome(tt.found); got != tt.outcome {
				t.Errorf("the outcome is %q, not %q", got, tt.outcome)
			}
			for asJSON, want := range map[bool]string{false: tt.text, true: tt.json} {
				var out bytes.Buffer
				c := &pluginCheck{options: &options{streams: Streams{Out: &out}, json: asJSON}}
				if err := c.show("mine 1.0", tt.found); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(want, out.String()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestListedPluginThatDoesNotAnswerHoldsUpNobody(t *testing.T) {
	o := &options{streams: Streams{}}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var list []listed
	for range answersAtOnce + 1 { // more than are asked at a time
		list = append(list, listed{
			Found:  loader.Found{Name: "mute"},
			launch: loader.Spec{Name: "mute", Cmd: []string{"/bin/sh", "-c", "sleep 20"}},
		})
	}
	began := time.Now()
	o.ask(ctx, list)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, l := range list {
		if !errors.Is(l.Err, plugins.Unavailable) {
			t.Errorf("the error is %v", l.Err)
		}
	}
}

func TestSkeletonThatCannotBeWrittenLeavesNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	err := writeSkeleton("new", runtimes.Skeleton{Files: []runtimes.File{{Path: "a"}, {Path: "no/folder"}}})
	if err == nil {
		t.Error("it was written")
	}
	if err := writeSkeleton("new", runtimes.Skeleton{Files: []runtimes.File{{Path: "a"}}}); err != nil {
		t.Errorf("something was left: %v", err)
	}
}
