package display

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator"
)

func TestBoard(t *testing.T) {
	b := newBoard("deploy shop", Names{Hosts: []string{"web1", "database-2", "web3"}}, start, false, true)
	for _, e := range events() {
		b.apply(e)
	}
	tests := []struct {
		name          string
		width, height int
		want          string
	}{
		{"wide", 110, 20, `
deploy shop  1 failed, 1 done, 1 waiting  1m15s  deploy shop 42 to 2 hosts
HOST        IMAGE CODE CREATE INSTALL TEST SWITCH TEARDOWN
web1        ✓     –    ·      ·       ·    ·      ✓         teardown: blue is gone
database-2  ·     ·    ·      ·       ✗    ·      ·         test: GET /up: status 503\nreally
web3        ·     ·    ·      ·       ·    ·      ·`},
		{"narrow", 40, 20, `
deploy shop  1 failed, 1 done, 1 waitin…
HOST        STEPS
web1        ✓–····✓  teardown: blue is …
database-2  ····✗··  test: GET /up: sta…
web3        ·······`},
		{"very narrow", 20, 20, `
deploy shop  1 fail…
HOST   STEPS
web1   ✓–····✓  tea…
data…  ····✗··  tes…
web3   ·······`},
		{"low", 40, 4, `
deploy shop  1 failed, 1 done, 1 waitin…
HOST        STEPS
database-2  ····✗··  test: GET /up: sta…
… and 2 more: 1 done, 1 waiting`},
		{"flat", 40, 1, `
deploy shop  1 failed, 1 done, 1 waitin…
… and 3 more: 1 failed, 1 done, 1 waiti…`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := b.view(tt.width, tt.height, at(75.9))
			for i, line := range got {
				if w := ansi.StringWidth(line); w > tt.width {
					t.Errorf("line %d is %d columns wide", i, w)
				}
				got[i] = strings.TrimRight(line, " ")
			}
			if diff := cmp.Diff(tt.want, "\n"+strings.Join(got, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBoardWithoutUTF8(t *testing.T) {
	b := newBoard("x", Names{}, start, false, false)
	for _, e := range events() {
		b.apply(e)
	}
	if got, want := b.view(60, 9, start)[3], `database-2  ....x..  test: GET /up: status 503\nreally`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBoardInColours(t *testing.T) {
	b := newBoard("x", Names{Hosts: []string{"a"}}, start, true, true)
	b.apply(orchestrator.Event{Host: "a", Step: orchestrator.StepImage, Status: orchestrator.StatusDone})
	b.apply(orchestrator.Event{Host: "a", Step: orchestrator.StepSwitch, Status: orchestrator.StatusDone})
	b.apply(orchestrator.Event{Host: "a", Step: orchestrator.StepTeardown, Status: orchestrator.StatusStarted, Text: "waits"})
	want := "a     \x1b[36m✓\x1b[0m\x1b[2m·\x1b[0m\x1b[2m·\x1b[0m\x1b[2m·\x1b[0m\x1b[2m·\x1b[0m\x1b[32m✓\x1b[0m\x1b[34m▸\x1b[0m  teardown: waits"
	if diff := cmp.Diff(want, b.view(60, 9, start)[2]); diff != "" {
		t.Error(diff)
	}
}

func TestBoardFitsFiftyHostsByHidingThoseThatAreDone(t *testing.T) {
	var hosts []string
	for i := range 50 {
		hosts = append(hosts, fmt.Sprintf("web%02d", i+1))
	}
	b := newBoard("deploy shop", Names{Hosts: hosts}, start, false, true)
	for i, h := range hosts {
		step, status, err := orchestrator.StepTeardown, orchestrator.StatusDone, error(nil)
		switch {
		case i == 40:
			step, status, err = orchestrator.StepTest, orchestrator.StatusFailed, errors.New("no")
		case i%10 == 9:
			step, status = orchestrator.StepInstall, orchestrator.StatusStarted
		}
		b.apply(orchestrator.Event{Host: h, Step: step, Status: status, Err: err})
	}
	got := b.view(80, 12, start)
	var names []string
	for _, line := range got[2:] {
		names = append(names, strings.Fields(line)[0])
	}
	want := []string{"web01", "web02", "web03", "web10", "web20", "web30", "web40", "web41", "web50", "…"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if last := strings.TrimRight(got[11], " "); last != "… and 41 more: 41 done" {
		t.Error(last)
	}
}

func TestBoardKeepsAFailureOverWhatFollows(t *testing.T) {
	b := newBoard("x", Names{}, start, false, true)
	b.apply(orchestrator.Event{Host: "a", Step: orchestrator.StepTest, Status: orchestrator.StatusFailed, Err: errors.New("no")})
	b.apply(orchestrator.Event{Host: "a", Step: orchestrator.StepUndo, Status: orchestrator.StatusDone, Text: "green removed"})
	b.apply(orchestrator.Event{Host: "b", Step: orchestrator.StepConnect, Status: orchestrator.StatusSkipped, Text: "nothing to do"})
	got := b.view(60, 9, start)
	want := []string{"x  1 failed, 1 done  0s", "HOST  STEPS", "a     ····✗··  test: no", "b     ·······  connect: nothing to do"}
	for i := range got {
		got[i] = strings.TrimRight(got[i], " ")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// balancedEvents are those of a run behind load balancers, one of which does not confirm.
func balancedEvents() []orchestrator.Event {
	return []orchestrator.Event{
		{Host: "web1", Step: orchestrator.StepSwitch, Status: orchestrator.StatusStarted, Text: "to green"},
		{Host: "lb1", Step: orchestrator.StepSwitch, Status: orchestrator.StatusInfo, Text: "configuration of haproxy written, reloaded and verified"},
		{Host: "lb2", Step: orchestrator.StepConnect, Status: orchestrator.StatusFailed, Err: errors.New("lb2: connect: no route to host")},
	}
}

func TestBoardHasLoadBalancersBelowTheHosts(t *testing.T) {
	b := newBoard("deploy shop", Names{Hosts: []string{"web1", "web2"}, Balancers: []string{"lb1", "lb2", "lb3"}}, start, false, true)
	for _, e := range balancedEvents() {
		b.apply(e)
	}
	tests := []struct {
		name          string
		width, height int
		want          string
	}{
		{"wide", 120, 20, `
deploy shop  1 running, 1 waiting  0s
HOST  IMAGE CODE CREATE INSTALL TEST SWITCH TEARDOWN
web1  ·     ·    ·      ·       ·    ▸      ·         switch: to green
web2  ·     ·    ·      ·       ·    ·      ·
lb1   load balancer                                   switch: configuration of haproxy written, reloaded and verified
lb2   load balancer                                   connect: connect: no route to host
lb3   load balancer`},
		{"narrow", 40, 20, `
deploy shop  1 running, 1 waiting  0s
HOST  STEPS
web1  ·····▸·  switch: to green
web2  ·······
lb1   balancer switch: configuration of…
lb2   balancer connect: connect: no rou…
lb3   balancer`},
		{"those that say nothing are hidden first", 40, 6, `
deploy shop  1 running, 1 waiting  0s
HOST  STEPS
web1  ·····▸·  switch: to green
lb1   balancer switch: configuration of…
lb2   balancer connect: connect: no rou…
… and 2 more: 1 waiting, 1 load balancer`},
		{"those that say something are kept", 40, 5, `
deploy shop  1 running, 1 waiting  0s
HOST  STEPS
lb1   balancer switch: configuration of…
lb2   balancer connect: connect: no rou…
… and 3 more: 1 running, 1 waiting, 1 l…`},
		{"flat", 60, 3, `
deploy shop  1 running, 1 waiting  0s
HOST  STEPS
… and 5 more: 1 running, 1 waiting, 3 load balancers`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := b.view(tt.width, tt.height, start)
			for i := range got {
				got[i] = strings.TrimRight(got[i], " ")
			}
			if diff := cmp.Diff(tt.want, "\n"+strings.Join(got, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlainLinesHaveLoadBalancersInTheirColumn(t *testing.T) {
	var out bytes.Buffer
	r := NewPlain(&out, Names{Hosts: []string{"web1"}, Balancers: []string{"lb.example.com"}})
	for _, e := range balancedEvents() {
		e.Time = at(1)
		r.Event(e)
	}
	want := `21:30:06 web1           switch   to green
21:30:06 lb1            switch   configuration of haproxy written, reloaded and verified
21:30:06 lb2            connect  failed: connect: no route to host
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
