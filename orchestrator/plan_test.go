package orchestrator

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

func testApp() spec.App {
	return spec.App{
		Name: "shop", Runtime: "docker",
		Image:     spec.Image{Name: "registry.example.com/shop:42", Pull: "always"},
		Code:      &spec.Code{Repository: "git@git.example.com:shop.git", Ref: "main", Path: "/srv/app"},
		Container: spec.Container{Port: 8080, Replicas: 1, Env: map[string]string{"MODE": "production"}},
		Install:   spec.Install{Run: []string{"sh install.sh"}},
		Test:      spec.Test{Within: time.Minute, Successes: 2, Stable: 3 * time.Second, Checks: []spec.Check{{HTTP: "/up"}}},
		Proxy:     &spec.Proxy{Type: "nginx", Upstream: "shop"},
		Drain:     spec.Drain{Delay: 10 * time.Second, Max: 10 * time.Minute},
		Keep:      spec.Keep{Releases: 3},
	}
}

func testRelease(id, version string, slot proxy.Slot) record.Release {
	return record.Release{
		ID: id, Version: version, Commit: strings.Repeat("ab", 20), Slot: slot,
		Image: plugins.Image{Digest: "sha256:" + strings.Repeat("11", 32)},
		App:   testApp(), At: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC),
	}
}

// served is a healthy host that serves release from blue.
func served(release record.Release) HostView {
	release.Slot = proxy.Blue
	return HostView{
		Host: inventory.Host{Name: "web1"}, App: testApp(),
		Record: record.Observation{
			State: &record.State{
				Schema: 1, App: "shop", Active: &release,
				Ports: record.Ports{Stable: 20001, Blue: []uint16{20002}, Green: []uint16{20003}},
			},
			Facts: record.Facts{EphemeralLow: 32768, EphemeralHigh: 60999},
		},
		Proxy:      Sight{Prepared: true, Disk: proxy.Blue.All(), Live: proxy.Blue.All()},
		Containers: []plugins.Container{container(release.ID, plugins.StatusRunning)},
	}
}

func container(release string, status plugins.Status) plugins.Container {
	return plugins.Container{
		ID: "id-" + release, Name: "teal-shop-" + release, Status: status,
		Labels: map[string]string{LabelApp: "shop", LabelRelease: release},
	}
}

func planOf(t *testing.T, v HostView, to record.Release) HostPlan {
	t.Helper()
	p, err := NewPlan(map[string]wants{"web1": {release: to}}, State{Hosts: []HostView{v}})
	if err != nil {
		t.Fatal(err)
	}
	return p.Hosts[0]
}

func TestPlanDoesNothingWhenNothingDiffers(t *testing.T) {
	p := planOf(t, served(testRelease("r1", "1", proxy.Blue)), testRelease("r2", "1", ""))
	if p.Changes() {
		t.Errorf("plan changes an up-to-date host: %v %v", p.Reasons, p.Repairs)
	}
}

func TestPlanSaysWhy(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(v *HostView, to *record.Release)
		want   string
	}{
		{"image", func(_ *HostView, to *record.Release) { to.Image.Digest = "sha256:" + strings.Repeat("22", 32) }, "image 111111111111 → 222222222222"},
		{"commit", func(_ *HostView, to *record.Release) { to.Commit = strings.Repeat("cd", 20) }, "commit abababababab → cdcdcdcdcdcd"},
		{"version", func(_ *HostView, to *record.Release) { to.Version = "2" }, "version 1 → 2"},
		{"environment", func(_ *HostView, to *record.Release) { to.App.Container.Env = map[string]string{"MODE": "x"} }, "container settings changed"},
		{"install", func(_ *HostView, to *record.Release) { to.App.Install.Run = nil }, "install settings changed"},
		{"plugin", func(_ *HostView, to *record.Release) {
			to.App.Plugins = map[string]spec.Plugin{"docker": {SHA256: "1", Settings: map[string]any{"level": 2}}, "mine": {}}
		}, "runtime settings changed"},
		{"secret", func(_ *HostView, to *record.Release) { to.Secrets = "abcdef" }, "secrets changed"},
		{"dead container", func(v *HostView, _ *record.Release) { v.Containers[0].Status = plugins.StatusExited }, "0 of 1 containers run"},
		{"only the rollout", func(_ *HostView, to *record.Release) { to.App.Rollout.OnFailure = "stop" }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, to := served(testRelease("r1", "1", proxy.Blue)), testRelease("r2", "1", "")
			tt.change(&v, &to)
			if got := joinReasons(planOf(t, v, to).Reasons); got != tt.want {
				t.Errorf("reasons = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPlanRepairsWhatADeadRunLeft(t *testing.T) {
	old, next := testRelease("r1", "1", proxy.Blue), testRelease("r2", "2", proxy.Green)
	route := func(s proxy.Slot) Sight { return Sight{Prepared: true, Disk: s.All(), Live: s.All()} }
	for _, tt := range []struct {
		name    string
		change  func(v *HostView)
		want    []string
		serving string
		slot    proxy.Slot
	}{
		{
			"killed before the switch: green is left over", func(v *HostView) {
				v.Containers = append(v.Containers, container("r2", plugins.StatusRunning))
			},
			[]string{"remove the left-over container teal-shop-r2"},
			"r1", proxy.Green,
		},
		{
			"killed between arming and switching", func(v *HostView) {
				v.Record.State.Switching = &next
				v.Record.Pending = []record.Pending{{Teardown: record.Teardown{Release: "r1", Slot: proxy.Blue}}}
				v.Containers = append(v.Containers, container("r2", plugins.StatusRunning))
			},
			[]string{
				"cancel the teardown of r1, which still serves", "strike out r2, which never served",
				"remove the left-over container teal-shop-r2",
			},
			"r1", proxy.Green,
		},
		{
			"killed right behind the switch", func(v *HostView) {
				v.Record.State.Switching = &next
				v.Proxy = route(proxy.Green)
				v.Record.Pending = []record.Pending{{Teardown: record.Teardown{Release: "r1", Slot: proxy.Blue}}}
				v.Containers = append(v.Containers, container("r2", plugins.StatusRunning))
			},
			[]string{"write down that r2 serves"},
			"r2", proxy.Blue,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := served(old)
			tt.change(&v)
			p := planOf(t, v, testRelease("r3", "3", ""))
			var got []string
			for _, r := range p.Repairs {
				got = append(got, r.Text)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("repairs (-want +got):\n%s", diff)
			}
			if p.From.ID != tt.serving || p.To.Slot != tt.slot {
				t.Errorf("from %s to slot %s, want from %s to slot %s", p.From.ID, p.To.Slot, tt.serving, tt.slot)
			}
		})
	}
}

func TestPlanNeverRemovesWhatMayServe(t *testing.T) {
	v := served(testRelease("r1", "1", proxy.Blue))
	v.Record.State = nil // the record is lost, the container runs
	p := planOf(t, v, testRelease("r2", "2", ""))
	if p.Err == nil || len(p.Repairs) > 0 {
		t.Errorf("err = %v, repairs = %v; want a refusal and no repair", p.Err, p.Repairs)
	}
}

func TestPlanRefusesAProxyThatServesSomethingElse(t *testing.T) {
	v := served(testRelease("r1", "1", proxy.Blue))
	v.Proxy.Live = proxy.Green.All()
	p := planOf(t, v, testRelease("r2", "2", ""))
	if p.Err == nil || !strings.Contains(p.Err.Error(), "answers from green") {
		t.Errorf("err = %v, want one that names both slots", p.Err)
	}
}

func TestChoosePortsAvoidsWhatIsTaken(t *testing.T) {
	free := record.Facts{EphemeralLow: 32768, EphemeralHigh: 60999}
	first, err := choosePorts("shop", record.Ports{}, 2, free)
	if err != nil {
		t.Fatal(err)
	}
	all := func(p record.Ports) []uint16 { return slices.Concat([]uint16{p.Stable}, p.Blue, p.Green) }
	if ports := all(first); len(slices.Compact(slices.Sorted(slices.Values(ports)))) != 5 || slices.Contains(ports, 0) {
		t.Fatalf("%v are not five ports", ports)
	}
	busy := free
	busy.Listening = first.Blue
	busy.AppPorts = map[string][]uint16{"other": first.Green}
	second, err := choosePorts("shop", record.Ports{}, 2, busy)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all(second) {
		if slices.Contains(first.Blue, p) || slices.Contains(first.Green, p) {
			t.Errorf("port %d of %v is taken", p, second)
		}
	}
	none := record.Facts{EphemeralLow: 1024, EphemeralHigh: 65535}
	if p, err := choosePorts("shop", record.Ports{}, 1, none); err == nil {
		t.Errorf("chose %v inside the ephemeral range", p)
	}
}

func TestMoreReplicasGetMorePortsAndKeepThose(t *testing.T) {
	f := record.Facts{EphemeralLow: 32768, EphemeralHigh: 60999}
	has, err := choosePorts("shop", record.Ports{}, 2, f)
	if err != nil {
		t.Fatal(err)
	}
	more, err := choosePorts("shop", has, 4, f)
	if err != nil {
		t.Fatal(err)
	}
	if len(more.Blue) != 4 || len(more.Green) != 4 || more.Stable != has.Stable || !slices.Equal(more.Blue[:2], has.Blue) || !slices.Equal(more.Green[:2], has.Green) {
		t.Errorf("%+v became %+v", has, more)
	}
	fewer, err := choosePorts("shop", more, 1, f)
	if err != nil || !cmp.Equal(more, fewer) {
		t.Errorf("%+v became %+v, %v", more, fewer, err)
	}
}

func TestPlanText(t *testing.T) {
	t.Setenv("TZ", "UTC")
	v := served(testRelease("r1", "1", proxy.Blue))
	to := testRelease("r2", "2", "")
	to.App.Rollout.Canary, to.App.Rollout.Watch = []int{5, 25}, 30*time.Second
	same, done := v, served(to)
	same.Host.Name, done.Host.Name = "web2", "web3"
	p, err := NewPlan(map[string]wants{"web1": {release: to}, "web2": {release: to}, "web3": {release: to}},
		State{Hosts: []HostView{v, same, done}})
	if err != nil {
		t.Fatal(err)
	}
	want := `release 2, commit abababababab, image 111111111111

web1, web2:
  because   version 1 → 2
  image     pull registry.example.com/shop:42 at 111111111111 (always)
  code      git@git.example.com:shop.git at abababababab
  create    container teal-shop-r2 in green on 127.0.0.1:20003
  install   1 command
  test      1 check, 2 in a row, for 3s, within 1m0s
  switch    nginx: upstream shop to green, 5 %, 25 % of the requests first, each for 30s
  teardown  remove 1 of 2026-11-01 12:00:00 from blue, 10s after the switch, at the latest after 10m0s

web3: up to date, 2 serves from blue
`
	if diff := cmp.Diff(want, p.String()); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestReturnIsInstantWhileBlueLives(t *testing.T) {
	old, next := testRelease("r1", "1", proxy.Blue), testRelease("r2", "2", proxy.Green)
	v := served(next)
	v.Record.State.Active.Slot = proxy.Green
	v.Proxy.Disk, v.Proxy.Live = proxy.Green.All(), proxy.Green.All()
	v.Record.State.Kept = []record.Release{old}
	v.Record.Pending = []record.Pending{{Teardown: record.Teardown{Release: "r1", Slot: proxy.Blue}}}
	v.Containers = append(v.Containers, container("r1", plugins.StatusRunning))

	p, err := planReturn(v, "", "run")
	if err != nil {
		t.Fatal(err)
	}
	if !p.Instant || p.To.ID != "r1" || p.To.Slot != proxy.Blue {
		t.Errorf("plan = instant %v, to %s in %s; want an instant return to r1 in blue", p.Instant, p.To.ID, p.To.Slot)
	}

	v.Record.Pending, v.Containers = nil, v.Containers[:1] // blue is gone
	p, err = planReturn(v, "1", "run")
	if err != nil {
		t.Fatal(err)
	}
	if p.Instant || p.To.ID != "run" || p.To.Version != "1" || p.To.Slot != proxy.Blue {
		t.Errorf("plan = instant %v, %s of version %s in %s; want a new container of version 1 in blue", p.Instant, p.To.ID, p.To.Version, p.To.Slot)
	}
	if _, err = planReturn(v, "7", "run"); err == nil || !strings.Contains(err.Error(), `no release "7": it has 1`) {
		t.Errorf("unknown release: err = %v", err)
	}
}

func TestRememberKeepsTheNewestReleases(t *testing.T) {
	s := record.State{}
	for _, id := range []string{"r1", "r2", "r3", "r4"} {
		s = remember(s, testRelease(id, id, proxy.Blue), 3)
	}
	got := []string{s.Active.ID}
	for _, k := range s.Kept {
		got = append(got, k.ID)
	}
	if diff := cmp.Diff([]string{"r4", "r3", "r2"}, got); diff != "" {
		t.Errorf("active and kept (-want +got):\n%s", diff)
	}
	// Going back keeps the release that was left, once.
	s = remember(s, s.Kept[0], 3)
	if s.Active.ID != "r3" || s.Kept[0].ID != "r4" || len(s.Kept) != 2 {
		t.Errorf("after going back: active %s, kept %v", s.Active.ID, s.Kept)
	}
}

func TestLayoutOfAnOwnProxyIsOnLoopback(t *testing.T) {
	d := Deployer{}
	h := &host{inv: inventory.Host{Name: "web1"}, app: testApp()}
	ports := record.Ports{Stable: 1, Blue: []uint16{2, 4, 6}, Green: []uint16{3, 5, 7}}
	from, to := testRelease("r1", "1", proxy.Blue), testRelease("r2", "2", proxy.Green)
	to.App.Container.Replicas = 3
	at := func(list ...string) (ports []netip.AddrPort) {
		for _, s := range list {
			ports = append(ports, netip.MustParseAddrPort("127.0.0.1:"+s))
		}
		return ports
	}
	for _, tt := range []struct {
		name        string
		serving, to *record.Release
		blue, green []netip.AddrPort
	}{
		{"nothing yet", nil, &to, at("2", "4", "6"), at("3", "5", "7")},
		{"as it is", &from, nil, at("2"), at("3")},
		{"more replicas are about to serve", &from, &to, at("2"), at("3", "5", "7")},
	} {
		want := proxy.Member{Name: "web1", Stable: at("1")[0], Blue: tt.blue, Green: tt.green}
		l := d.ownLayout(h, ports, tt.serving, tt.to)
		if diff := cmp.Diff([]proxy.Member{want}, l.Members, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if l.Upstream != "shop" || l.Up == nil || l.Up.Path != "/up" {
			t.Errorf("layout = %+v", l)
		}
	}
}

func TestAppThatIsOnlyNamedIsWhatTheHostRemembers(t *testing.T) {
	file, err := spec.Named("shop", "")
	if err != nil {
		t.Fatal(err)
	}
	nginx := struct{ proxy.Proxy }{}
	d := Deployer{Proxy: func(kind string) (proxy.Proxy, error) {
		if kind != "nginx" {
			t.Errorf("a proxy %q was asked for", kind)
		}
		return nginx, nil
	}}
	other := testRelease("r1", "1", proxy.Blue)
	other.App.Runtime = "mine"
	described := spec.App{Name: "shop", Runtime: "podman"}
	release := testRelease("r1", "1", proxy.Blue)
	tests := []struct {
		name    string
		named   bool
		app     spec.App
		state   *record.State
		want    spec.App
		proxied bool
		err     string
	}{
		{"nothing", true, file.App(), nil, file.App(), false, ""},
		{"no release", true, file.App(), &record.State{}, file.App(), false, ""},
		{"what serves", true, file.App(), &record.State{Active: &release}, release.App, true, ""},
		{"what was about to serve", true, file.App(), &record.State{Switching: &release}, release.App, true, ""},
		{
			"another runtime", true, file.App(), &record.State{Active: &other}, file.App(), false,
			"web1: look for containers of docker: shop has those of the runtime mine here: say --runtime mine, or name the app file with -f",
		},
		{"a whole app", false, testApp(), &record.State{Active: &release}, testApp(), false, ""},
		{
			"a whole app with another runtime", false, described, &record.State{Switching: &release}, described, false,
			"web1: look for containers of podman: shop has those of the runtime docker here: keep it, or give the app another name",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := d.newRun("status", Request{File: file, Hosts: []inventory.Host{{Name: "web1"}}})
			h := &r.hosts[0].host
			h.app, h.named = tt.app, tt.named
			err := d.recall(h, tt.state)
			if (err == nil) != (tt.err == "") || err != nil && (err.Error() != tt.err || !errors.Is(err, plugins.Unsupported)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, h.app); diff != "" {
				t.Errorf("app (-want +got):\n%s", diff)
			}
			if (h.proxy != nil) != tt.proxied {
				t.Errorf("proxy %v", h.proxy)
			}
		})
	}
}
