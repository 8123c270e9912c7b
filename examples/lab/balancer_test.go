//go:build linux

package lab_test

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
)

// behind is a lab whose hosts are behind two load balancers.
func behind(proxy string, hosts int) lab.Config {
	return lab.Config{Hosts: hosts, Balancers: 2, Proxy: proxy}
}

// eachProxy runs a test with every kind of proxy.
func eachProxy(t *testing.T, test func(t *testing.T, proxy string)) {
	t.Parallel()
	for _, proxy := range []string{lab.Nginx, lab.HAProxy} {
		t.Run(proxy, func(t *testing.T) {
			t.Parallel()
			test(t, proxy)
		})
	}
}

// unhurried gives clients a pause that leaves five hosts on a small machine the
// time to work.
func unhurried(c *load.Config) { c.Pause = max(c.Pause, 25*time.Millisecond) }

// addTLS puts the user's own TLS site in front, which leads to the app.
func (f *fleet) addTLS(site lab.TLSSite) {
	f.t.Helper()
	site.Upstream = "shop"
	for _, h := range f.Fronts() {
		if err := h.AddTLSSite(f.t.Context(), site); err != nil {
			f.t.Fatal(err)
		}
	}
}

// serving fails the test unless a run left every host done with a version, and
// returns its slowest switch in milliseconds.
func (f *fleet) serving(e ended, version string) (slowest float64) {
	f.t.Helper()
	if len(e.result.Hosts) != len(f.Hosts()) {
		f.t.Fatalf("the run was about %d hosts, want %d", len(e.result.Hosts), len(f.Hosts()))
	}
	for _, h := range e.result.Hosts {
		if h.Version != version || h.SwitchedAt.IsZero() || h.State != "done" && h.State != "verified" {
			f.t.Fatalf("%s: %s, serves %s, switched at %s; want done or verified, %s and a time", h.Host, h.State, h.Version, h.SwitchedAt, version)
		}
		slowest = max(slowest, h.SwitchMS)
	}
	return slowest
}

// keep deploys two releases whose containers live on for long: the time that
// blue has is a matter of the release that comes.
func (f *fleet) keep(s *stress, first, second string, changes ...func(string) string) {
	f.t.Helper()
	f.edit(append(changes, quick, lab.Set("drain.delay", `"15m"`), lab.Set("drain.max", `"20m"`))...)
	e := f.deploy(first, "--detach")
	s.switched(e)
	f.serving(e, first)
	// The second needs the place of what was before the first, whose last
	// requests end by then.
	time.Sleep(5 * time.Second)
	e = f.deploy(second, "--detach", "--end-drain")
	s.switched(e)
	f.serving(e, second)
}

// flip goes back and forth between two releases whose containers live, with
// whole runs of teal one after the other, and returns the slowest switch in
// milliseconds.
func (f *fleet) flip(s *stress, times int, from, to string) (slowest float64) {
	f.t.Helper()
	for range times {
		from, to = to, from
		e := f.must(f.run(nil, "rollback", "--detach"))
		s.switched(e)
		slowest = max(slowest, f.serving(e, from))
	}
	return slowest
}

// TestBalancersLoseNothing does ten deployments and fifty rollbacks when
// TEAL_LONG is set, which takes nine minutes on two cores, and some of them with
// half of the clients and HAProxy otherwise.
func TestBalancersLoseNothing(t *testing.T) {
	deployments, rollbacks, long := 3, 10, os.Getenv("TEAL_LONG") != ""
	if long {
		deployments, rollbacks = 10, 50
	}
	eachProxy(t, func(t *testing.T, proxy string) {
		if proxy == lab.Nginx && !long {
			t.Skip("set TEAL_LONG; nginx has the other tests with heavy load")
		}
		clients := load.Mix()
		clients[load.HTTP2] = 4
		for class, n := range clients {
			if !long {
				clients[class] = (n + 1) / 2
			}
		}
		f := newBusyFleet(t, behind(proxy, 3), clients, quick)
		f.deploy("0")
		f.addTLS(lab.TLSSite{})
		s := f.stress(clients, 20*time.Minute, overTLS(t, f.Lab), unhurried)
		var deployment float64
		for n := range deployments {
			e := f.deploy(strconv.Itoa(n + 1))
			s.switched(e)
			deployment = max(deployment, f.serving(e, strconv.Itoa(n+1)))
		}
		for _, h := range f.Hosts() {
			if got := f.containers(h); len(got) != 1 {
				t.Errorf("containers on %s are %v, want those of the last release alone", h, got)
			}
		}
		blue, green := strconv.Itoa(deployments+1), strconv.Itoa(deployments+2)
		f.keep(s, blue, green)
		rollback := f.flip(s, rollbacks, green, blue)
		storm := f.storm(s, 40, green, blue)
		report := s.end(t)
		for _, lb := range f.Balancers() {
			if n, want := len(releasesOf(report, lb)), deployments+3; n != want {
				t.Errorf("%d releases answered through %s, want %d", n, lb, want)
			}
		}
		t.Logf("%s: %d requests, %d failed, %d on the wrong side; the slowest switch of %d deployments took %.1f ms, of %d rollbacks %.1f ms, of 40 in a storm %.1f ms",
			proxy, report.Requests, report.Failed, report.Wrong(), deployments, deployment, rollbacks, rollback, storm)
	})
}

// releasesOf returns the releases that answered through a front.
func releasesOf(report load.Report, front *lab.Host) []string {
	of := map[string]bool{}
	for _, r := range report.Releases {
		if r.Host == front.Name {
			of[r.Release] = true
		}
	}
	return slices.Sorted(maps.Keys(of))
}

func TestBalancersLoseNoCall(t *testing.T) {
	eachProxy(t, func(t *testing.T, proxy string) {
		clients := load.MixGRPC()
		clients[load.HTTP2] = 3
		grpc := []func(string) string{lab.Speak("grpc"), lab.Set("proxy.site", "")}
		f := newBusyFleet(t, behind(proxy, 2), clients, append(grpc, quick)...)
		f.deploy("0")
		f.addTLS(lab.TLSSite{GRPC: true})
		s := f.stress(clients, 20*time.Minute, overTLS(t, f.Lab), unhurried)
		var slowest float64
		for _, version := range []string{"1", "2"} {
			e := f.deploy(version)
			s.switched(e)
			slowest = max(slowest, f.serving(e, version))
		}
		f.keep(s, "3", "4", grpc...)
		slowest = max(slowest, f.flip(s, 10, "4", "3"))
		report := s.end(t)
		for _, lb := range f.Balancers() {
			if n := len(releasesOf(report, lb)); n != 5 {
				t.Errorf("%d releases answered through %s, want 5", n, lb)
			}
		}
		t.Logf("%s: %d requests, %d failed, %d on the wrong side; the slowest switch took %.1f ms",
			proxy, report.Requests, report.Failed, report.Wrong(), slowest)
	})
}

func TestReplicasChangeUnderLoad(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config lab.Config
	}{
		{"nginx of its own", lab.Config{Hosts: 1, Proxy: lab.Nginx}},
		{"HAProxy of its own", lab.Config{Hosts: 1, Proxy: lab.HAProxy}},
		{"behind nginx", behind(lab.Nginx, 2)},
		{"behind HAProxy", behind(lab.HAProxy, 2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			replicas := func(n int) func(string) string { return lab.Set("container.replicas", strconv.Itoa(n)) }
			f := newFleet(t, tt.config, quick, replicas(2))
			f.deploy("of-2")
			s := f.stress(light(), 5*time.Minute)
			for _, n := range []int{1, 3, 2} {
				f.edit(quick, replicas(n))
				version := fmt.Sprintf("again-of-%d", n)
				e := f.deploy(version)
				s.switched(e)
				f.serving(e, version)
				for _, h := range f.Hosts() {
					if got := f.containers(h); len(got) != n {
						t.Errorf("containers on %s are %v, want %d", h, got, n)
					}
				}
			}
			// Nothing but the number differs.
			f.edit(quick, replicas(1))
			e := f.must(f.run(nil, "deploy", "--version", "again-of-2"))
			s.switched(e)
			f.serving(e, "again-of-2")
			s.end(t)
		})
	}
}

func TestLimitLeavesOtherHostsTheirRelease(t *testing.T) {
	eachProxy(t, func(t *testing.T, proxy string) {
		f := newFleet(t, behind(proxy, 3), quick)
		f.deploy("1")
		others := map[*lab.Host][]string{}
		for _, h := range f.Hosts()[1:] {
			others[h] = f.containers(h)
		}
		s := f.stress(light(), 5*time.Minute)
		first := f.deploy("2", "--limit", "h1")
		if hosts := first.result.Hosts; len(hosts) != 1 || hosts[0].Host != "h1" || hosts[0].Version != "2" {
			t.Errorf("the run was about %+v, want h1 alone", hosts)
		}
		mixed := time.Now()
		for h, was := range others {
			if got := f.containers(h); !slices.Equal(got, was) {
				t.Errorf("containers on %s are %v, were %v", h, got, was)
			}
		}
		f.eventually(5*time.Second, "both releases answer", func() bool {
			return len(s.rec.Answers(mixed, time.Now())) == 2
		})
		status := f.run(nil, "status")
		f.want(status, 6) // the fleet is mixed
		if one, two := strings.Count(status.stdout, `"version":"1"`), strings.Count(status.stdout, `"version":"2"`); one != 2 || two != 1 {
			t.Errorf("status has %d hosts with release 1 and %d with 2, want 2 and 1: %s", one, two, status.stdout)
		}

		e := f.must(f.run(nil, "deploy", "--version", "2"))
		s.switched(e)
		for _, h := range e.result.Hosts {
			if skipped := h.Host == "h1"; h.Version != "2" || h.SwitchedAt.IsZero() != skipped {
				t.Errorf("%s serves %s, switched at %s", h.Host, h.Version, h.SwitchedAt)
			}
		}
		// Of requests that began after the whole was switched, one to release 1
		// would be on the wrong side.
		time.Sleep(500 * time.Millisecond)
		s.end(t)
	})
}

// A talk is a connection of the line protocol, held open.
type talk struct {
	conn net.Conn
	r    *bufio.Reader
}

func (f *fleet) talk(h *lab.Host) *talk {
	f.t.Helper()
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(h.Addr, 80).String(), 5*time.Second)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return &talk{conn, bufio.NewReader(conn)}
}

// ask sends a line and returns the release that has answered it.
func (k *talk) ask(t *testing.T) string {
	t.Helper()
	_ = k.conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = fmt.Fprintln(k.conn, "who?")
	answer, err := k.r.ReadString('\n')
	release, _, ok := strings.Cut(answer, " ")
	if err != nil || !ok {
		t.Fatalf("a connection that was open got %q, %v", answer, err)
	}
	return release
}

func TestConnectionsOfTCPDrain(t *testing.T) {
	t.Parallel()
	f := newFleet(t, behind(lab.HAProxy, 2), quick, lab.Speak("tcp"))
	f.deploy("1")
	s := f.stress(load.MixTCP(), 5*time.Minute)
	var talks []*talk
	for _, lb := range f.Balancers() {
		talks = append(talks, f.talk(lb), f.talk(lb))
	}
	for i, k := range talks {
		if got := k.ask(t); got != "1" {
			t.Errorf("connection %d: release %s answers, want 1", i, got)
		}
	}
	e := f.deploy("2", "--detach")
	s.switched(e)
	f.serving(e, "2")
	// Longer than drain.delay, and longer than any session of the load.
	for at := e.result.Hosts[0].SwitchedAt; time.Since(at) < 6*time.Second; time.Sleep(200 * time.Millisecond) {
		for _, k := range talks {
			if got := k.ask(t); got != "1" {
				t.Fatalf("release %s answers on a connection that is open, want 1", got)
			}
		}
	}
	for _, lb := range f.Balancers() {
		if got := f.talk(lb).ask(t); got != "2" {
			t.Errorf("release %s answers on a new connection, want 2", got)
		}
	}
	for _, k := range talks {
		_ = k.conn.Close()
	}
	for _, h := range f.Hosts() {
		f.eventually(15*time.Second, "the former release has left "+h.Name, func() bool { return len(f.containers(h)) == 1 })
	}
	e = f.deploy("3")
	s.switched(e)
	f.serving(e, "3")
	s.end(t)
}

func TestSetupComesBeforeTheFirstDeployment(t *testing.T) {
	eachProxy(t, func(t *testing.T, proxy string) {
		f := newFleet(t, behind(proxy, 2), quick, lab.Set("proxy.site", ""), lab.Set("proxy.verify", ""))
		f.must(f.run(nil, "setup"))
		f.addTLS(lab.TLSSite{})
		for _, lb := range f.Balancers() {
			if err := up(t, f.Lab, lb, 5*time.Second); err == nil || !strings.Contains(err.Error(), "503") {
				t.Errorf("before there is a release %s answers %v, want 503", lb, err)
			}
		}
		f.deploy("1")
		for _, lb := range f.Balancers() {
			if err := up(t, f.Lab, lb, 5*time.Second); err != nil {
				t.Errorf("%s: %v", lb, err)
			}
		}
		s := f.stress(map[load.Class]int{load.HTTP2: 4}, 5*time.Minute, overTLS(t, f.Lab))
		f.must(f.run(nil, "setup")) // there is nothing to do
		e := f.deploy("2")
		s.switched(e)
		f.serving(e, "2")
		s.end(t)
	})
}
