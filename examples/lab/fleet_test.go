//go:build linux

package lab_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
)

// A fleet is a lab with the shop's image and code, and a teal to deploy it.
type fleet struct {
	*lab.Lab
	t     *testing.T
	teal  string // the program
	app   string // the app file
	state string // of teal on the operator's machine
	env   []string
	busy  bool   // there is room for heavy load
	proxy string // what the hosts or load balancers run
	on    runtimeRow
}

// buildTeal returns the program that is tested: the one that TEAL names, or
// one that is built now.
var buildTeal = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("TEAL"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "teal-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "teal")
	out, err := exec.Command("go", "build", "-o", path, "github.com/teal-deploy/teal/cmd/teal").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// hosts is a lab of hosts that run an nginx each.
func hosts(n int) lab.Config { return lab.Config{Hosts: n} }

// withEngine completes a fleet's configuration: one that names no engine has
// the usual one.
func withEngine(t *testing.T, c lab.Config) lab.Config {
	t.Helper()
	c.Engine, c.Services = cmp.Or(c.Engine, engines(t)[0].engine), true
	need(t, c)
	return c
}

// newFleet starts a lab with engines, and the shop's image 1 in its registry.
// Releases differ by their code. Changes edit the app file.
func newFleet(t *testing.T, c lab.Config, changes ...func(string) string) *fleet {
	t.Helper()
	c = withEngine(t, c)
	takeLab(t, c)
	return fleetOf(t, c, changes...)
}

// newBusyFleet is newFleet for a test that puts these clients on every host
// that runs a proxy.
func newBusyFleet(t *testing.T, c lab.Config, clients map[load.Class]int, changes ...func(string) string) *fleet {
	t.Helper()
	c = withEngine(t, c)
	fronts := c.Balancers
	if fronts == 0 {
		fronts = c.Hosts
	}
	takeLoad(t, fronts*sum(clients))
	takeLab(t, c)
	f := fleetOf(t, c, changes...)
	f.busy = true
	return f
}

func fleetOf(t *testing.T, c lab.Config, changes ...func(string) string) *fleet {
	t.Helper()
	program, err := buildTeal()
	if err != nil {
		t.Fatal(err)
	}
	l := powerOn(t, c)
	if _, err := l.PushImage(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	f := &fleet{Lab: l, t: t, teal: program, state: t.TempDir(), proxy: c.Proxy, on: rowOf(t, c.Engine)}
	f.edit(changes...)
	return f
}

// edit writes the app file anew.
func (f *fleet) edit(changes ...func(string) string) {
	f.t.Helper()
	usual := []func(string) string{replace("shop:${version}", "shop:1"), lab.Set("runtime", `"`+f.on.runtime+`"`)}
	path, err := f.AppFile(append(usual, changes...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.app = path
}

// publish commits a release of the shop with a mode (see the shop) and returns
// its commit.
func (f *fleet) publish(version, mode string) string {
	f.t.Helper()
	commit, err := f.PublishRelease(f.t.Context(), version, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "mode"), []byte(mode), 0o600)
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return commit
}

// An ended run of teal.
type ended struct {
	code   int
	stdout string
	stderr string
	events []event
	result result
}

type event struct {
	Time   time.Time `json:"time"`
	Host   string    `json:"host"`
	Step   string    `json:"step"`
	Status string    `json:"status"`
	Text   string    `json:"text"`
	Error  string    `json:"error"`
}

type result struct {
	Outcome string       `json:"outcome"`
	Code    int          `json:"code"`
	Version string       `json:"version"`
	Hosts   []hostResult `json:"hosts"`
	Error   string       `json:"error"`
}

type hostResult struct {
	Host       string    `json:"host"`
	State      string    `json:"state"`
	Version    string    `json:"version"`
	Slot       string    `json:"slot"`
	Step       string    `json:"step"`
	Error      string    `json:"error"`
	Log        []string  `json:"log"`
	SwitchMS   float64   `json:"switch_ms"`
	SwitchedAt time.Time `json:"switched_at"`
	BlueGoneAt time.Time `json:"blue_gone_at"`
	Teardown   string    `json:"teardown"`
}

// command is a teal with --json on the fleet, ready to be started.
func (f *fleet) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append(args[:1:1], append([]string{"--json", "--yes", "-i", f.Inventory(), "-f", f.app}, args[1:]...)...)
	cmd := exec.CommandContext(ctx, f.teal, args...)
	cmd.Env = append(append(os.Environ(), f.Env()...), "XDG_STATE_HOME="+f.state, "TEAL_BY=tester@"+f.t.Name())
	cmd.Env = append(cmd.Env, f.env...)
	cmd.Dir = f.t.TempDir()
	return cmd
}

// run runs teal to its end. hook, when not nil, sees every event as it comes.
func (f *fleet) run(hook func(event), args ...string) ended {
	f.t.Helper()
	return f.finish(f.command(f.t.Context(), args...), hook)
}

func (f *fleet) finish(cmd *exec.Cmd, hook func(event)) ended {
	f.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stderr = &errs
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	e := ended{}
	lines := bufio.NewScanner(io.TeeReader(pipe, &out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			event
			Result *result `json:"result"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			f.t.Errorf("not JSON: %q", lines.Text())
			continue
		}
		if line.Result != nil {
			e.result = *line.Result
			continue
		}
		e.events = append(e.events, line.event)
		if hook != nil {
			hook(line.event)
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		f.t.Fatal(err)
	}
	e.code, e.stdout, e.stderr = cmd.ProcessState.ExitCode(), out.String(), errs.String()
	return e
}

// deploy publishes a good release and deploys it, which must succeed.
func (f *fleet) deploy(version string, args ...string) ended {
	f.t.Helper()
	f.publish(version, "")
	return f.must(f.run(nil, append([]string{"deploy", "--version", version}, args...)...))
}

func (f *fleet) must(e ended) ended {
	f.t.Helper()
	f.want(e, 0)
	return e
}

// want fails the test when teal ended with another code.
func (f *fleet) want(e ended, code int) {
	f.t.Helper()
	if e.code != code {
		f.t.Fatalf("teal ended with code %d, want %d\n%s\n%s", e.code, code, e.stdout, e.stderr)
	}
}

// containers returns the names of the app's containers on a host, running or
// not, sorted.
func (f *fleet) containers(h *lab.Host) []string {
	f.t.Helper()
	out, err := f.on.list(f.t.Context(), h)
	if err != nil {
		f.t.Fatal(err)
	}
	names := strings.Fields(out)
	slices.Sort(names)
	return names
}

// environment returns that of the app's only container on a host, a variable a
// line.
func (f *fleet) environment(h *lab.Host) string {
	f.t.Helper()
	names := f.containers(h)
	if len(names) != 1 {
		f.t.Fatalf("containers are %v, want one", names)
	}
	out, err := f.on.client(f.t.Context(), h, "inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "+names[0])
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// eventually waits until what is true. Asking may mean to start an engine's
// client: most of the time is left to those who are waited for.
func (f *fleet) eventually(within time.Duration, what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(within); ; {
		asked := time.Now()
		if is() {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(max(100*time.Millisecond, 3*time.Since(asked)))
	}
}

// serves asks a host through its public listener which release answers.
func (f *fleet) serves(h *lab.Host) string {
	f.t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + h.Addr.String() + "/up")
	if err != nil {
		return "nothing: " + err.Error()
	}
	_ = resp.Body.Close()
	if release := resp.Header.Get("X-Release"); release != "" {
		return release
	}
	return "nothing: " + resp.Status
}

// A stress is load that runs until it is stopped.
type stress struct {
	shared bool // through load balancers, behind which any host may answer
	rec    *load.Recorder
	cancel context.CancelFunc
	done   chan error
}

// stress puts clients on all hosts that run a proxy. They ask as often as they
// can when TEAL_LONG is set; else they leave a small machine time for the tests
// beside.
func (f *fleet) stress(clients map[load.Class]int, limit time.Duration, change ...func(*load.Config)) *stress {
	f.t.Helper()
	c := load.Config{Net: f.Network(), Clients: clients, Duration: limit, Transfer: 3 * time.Second}
	if os.Getenv("TEAL_LONG") == "" {
		c.Pause = 80 * time.Millisecond
	}
	for _, h := range f.Fronts() {
		c.Hosts = append(c.Hosts, load.Host{Name: h.Name, Addr: netip.AddrPortFrom(h.Addr, 80)})
	}
	for _, edit := range change {
		edit(&c)
	}
	if n := len(c.Hosts) * sum(c.Clients); n > lightClients && !f.busy {
		f.t.Fatalf("%d clients are heavy load, which needs newBusyFleet", n)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	s := &stress{shared: len(f.Balancers()) > 0, rec: &load.Recorder{}, cancel: cancel, done: make(chan error, 1)}
	go func() { s.done <- load.Run(ctx, c, s.rec) }()
	f.t.Cleanup(cancel)
	return s
}

// switched notes the switches of a run, from which on the former release must
// not answer: on a host from its switch on, through load balancers from the
// last one on.
func (s *stress) switched(e ended) {
	var all []load.Switch
	for _, h := range e.result.Hosts {
		if !h.SwitchedAt.IsZero() {
			all = append(all, load.Switch{Host: h.Host, Release: h.Version, Began: e.events[0].Time, Confirmed: h.SwitchedAt})
		}
	}
	if s.shared && len(all) > 0 {
		all = []load.Switch{load.Together(all)}
	}
	for _, one := range all {
		s.rec.Switched(one)
	}
}

// end stops the load and fails the test for every request that failed.
func (s *stress) end(t *testing.T) load.Report {
	t.Helper()
	s.cancel()
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	report := s.rec.Report()
	if !report.OK() {
		var text strings.Builder
		_ = report.WriteTable(&text)
		t.Errorf("requests were lost or answered by the wrong side:\n%s", text.String())
	}
	t.Logf("%d requests, %d failed, %d on the wrong side", report.Requests, report.Failed, report.Wrong())
	return report
}
