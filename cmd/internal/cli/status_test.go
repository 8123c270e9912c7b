package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.Local)

// balanced is a fleet behind two load balancers in the middle of a canary.
func balanced() orchestrator.FleetStatus {
	released := &record.Release{
		ID: "r1", Version: "41", Slot: proxy.Blue, At: noon, By: "operator@desk", Image: plugins.Image{Digest: "sha256:ab"},
		App: spec.App{Proxy: &spec.Proxy{Hosts: "lb"}},
	}
	holder := &record.Owner{By: "operator@desk", Command: "deploy", Since: noon}
	open := map[proxy.Slot]int{proxy.Blue: 97, proxy.Green: 3}
	return orchestrator.FleetStatus{
		Hosts: []orchestrator.HostStatus{
			{Host: "web1", Recorded: released, Disk: "blue 95% green 5%", Live: "blue 95% green 5%", Open: open, Running: 2, Holder: holder},
			{Host: "web2", Recorded: released, Disk: "blue", Live: "blue", Open: map[proxy.Slot]int{proxy.Blue: 50}, Running: 2},
			{Host: "web3", Disk: "off", Live: "off", Open: map[proxy.Slot]int{}, Pending: "41 leaves at 12:10"},
			{Host: "web4", Err: errors.New("web4: connect: no route to host")},
		},
		Balancers: []orchestrator.BalancerStatus{
			{Host: "lb1", Holder: holder, Members: []orchestrator.MemberStatus{
				{Name: "web1", Disk: "blue 95% green 5%", Live: "blue 95% green 5%", Open: open},
				{Name: "web2", Disk: "blue", Live: ""},
				{Name: "web3", Disk: "green", Live: "green", Release: "r41", Version: "41"},
				{Name: "web4", Disk: "green", Live: "green", Release: "rel-web4"},
			}, Problem: "it is told blue for web2 and serves nothing that it tells"},
			{Host: "lb2"},
			{Host: "lb3", Err: errors.New("lb3: connect: no answer within 10s")},
		},
	}
}

func shown(t *testing.T, found orchestrator.FleetStatus, asJSON bool) string {
	t.Helper()
	var out bytes.Buffer
	o := &options{streams: Streams{Out: &out}, json: asJSON}
	if err := o.showStatus(found); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestStatusOfHostsAndLoadBalancers(t *testing.T) {
	want := `HOST  SERVES  RECORDED  ON DISK            LIVE               OPEN             SINCE
web1  41      blue      blue 95% green 5%  blue 95% green 5%  blue 97 green 3  2026-11-22 12:00:00 by operator@desk  deploy by operator@desk since 12:00:00
web2  41      blue      blue               blue               blue 50 green 0  2026-11-22 12:00:00 by operator@desk
web3                                                          blue 0 green 0                                         never deployed; 41 leaves at 12:10
web4                                                                                                                 connect: no route to host

LOAD BALANCER  SERVER  ON DISK            LIVE               VERSION   OPEN
lb1            web1    blue 95% green 5%  blue 95% green 5%  -         blue 97 green 3  it is told blue for web2 and serves nothing that it tells; deploy by operator@desk since 12:00:00
               web2    blue               -                  -         -
               web3    green              green              41        -
               web4    green              green              rel-web4  -
lb2                                                                                     knows no server of the app yet
lb3                                                                                     connect: no answer within 10s
`
	if diff := cmp.Diff(want, shown(t, balanced(), false)); diff != "" {
		t.Error(diff)
	}
}

func TestStatusCountsRequestsOnlyWhereAProxyDoes(t *testing.T) {
	found := balanced()
	found.Hosts, found.Balancers = found.Hosts[1:2], nil
	found.Hosts[0].Open = nil
	want := `HOST  SERVES  RECORDED  ON DISK  LIVE  SINCE
web2  41      blue      blue     blue  2026-11-22 12:00:00 by operator@desk  its load balancers stand in the app file: name it with -f
`
	if diff := cmp.Diff(want, shown(t, found, false)); diff != "" {
		t.Error(diff)
	}
}

func TestStatusAsJSON(t *testing.T) {
	found := balanced()
	found.Hosts, found.Balancers = found.Hosts[2:], found.Balancers[1:]
	found.Balancers[0].Members = []orchestrator.MemberStatus{{Name: "web3", Disk: "off", Live: "off", Open: map[proxy.Slot]int{proxy.Blue: 1}, Release: "r41"}}
	want := `{"disk":"off","host":"web3","kept":null,"live":"off","open":{},"pending":"41 leaves at 12:10","problem":"","release":"","running":0,"schema":1}
{"disk":"","error":"web4: connect: no route to host","host":"web4","kept":null,"live":"","pending":"","problem":"","release":"","running":0,"schema":1}
{"balancer":"lb2","members":[{"disk":"off","host":"web3","live":"off","open":{"blue":1},"release":"r41"}],"problem":"","schema":1}
{"balancer":"lb3","error":"lb3: connect: no answer within 10s","members":[],"problem":"","schema":1}
`
	if diff := cmp.Diff(want, shown(t, found, true)); diff != "" {
		t.Error(diff)
	}
}

func TestFleetIsAsGoodAsItsWorstPart(t *testing.T) {
	tests := []struct {
		name   string
		change func(f *orchestrator.FleetStatus)
		want   orchestrator.Outcome
	}{
		{"all is well", func(*orchestrator.FleetStatus) {}, orchestrator.OutcomeDone},
		{"a host is silent", func(f *orchestrator.FleetStatus) { f.Hosts[0].Err = errors.New("no") }, orchestrator.OutcomeUnreachable},
		{"a host does not agree with itself", func(f *orchestrator.FleetStatus) { f.Hosts[1].Problem = "no" }, orchestrator.OutcomeMixed},
		{"hosts do not agree", func(f *orchestrator.FleetStatus) { f.Hosts[1].Recorded = nil }, orchestrator.OutcomeMixed},
		{"a load balancer is silent", func(f *orchestrator.FleetStatus) { f.Balancers[1].Err = errors.New("no") }, orchestrator.OutcomeUnreachable},
		{"a load balancer does not agree with itself", func(f *orchestrator.FleetStatus) { f.Balancers[0].Problem = "no" }, orchestrator.OutcomeMixed},
		{"a problem is worse than silence", func(f *orchestrator.FleetStatus) {
			f.Hosts[0].Err, f.Balancers[0].Err, f.Balancers[1].Problem = errors.New("no"), errors.New("no"), "no"
		}, orchestrator.OutcomeMixed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			release := &record.Release{Version: "41"}
			f := orchestrator.FleetStatus{
				Hosts:     []orchestrator.HostStatus{{Host: "web1", Recorded: release}, {Host: "web2", Recorded: release}},
				Balancers: []orchestrator.BalancerStatus{{Host: "lb1"}, {Host: "lb2"}},
			}
			tt.change(&f)
			if got := fleet(f); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestPlanAsJSONHasTheLoadBalancers(t *testing.T) {
	var out bytes.Buffer
	o := &options{streams: Streams{Out: &out}, json: true}
	lb := orchestrator.BalancerPlan{Reasons: []string{"web2 is new"}, Members: []proxy.Member{{Name: "web1"}, {Name: "web2"}}}
	lb.Host.Name = "lb1"
	err := o.showPlan(&orchestrator.Plan{Version: "42", Balancers: []orchestrator.BalancerPlan{lb}})
	if exit := (*exitError)(nil); !errors.As(err, &exit) || exit.outcome != orchestrator.OutcomeChanges {
		t.Errorf("a plan for a load balancer alone ends with %v", err)
	}
	if want := `"balancers":[{"balancer":"lb1","changes":true,"reasons":["web2 is new"],"members":["web1","web2"]}]`; !strings.Contains(out.String(), want) {
		t.Error(out.String())
	}
}
