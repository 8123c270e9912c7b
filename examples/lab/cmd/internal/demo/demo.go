//go:build linux

// Package demo shows what teal promises: a shop on real hosts, under load from
// every kind of client, gets a second release, then a third which is taken
// back at once. No request may fail, and none that begins after a switch may
// be answered by the release before. The demonstration counts both with its
// own clients, believes teal only the instant of the switch, and looks for
// itself what is left running.
package demo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
	"github.com/teal-deploy/teal/examples/lab/load"
)

// longest bounds the whole demonstration.
const longest = 10 * time.Minute

// A Config says what to show.
type Config struct {
	Teal      string // the program
	Hosts     int
	Proxy     string // lab.Nginx or lab.HAProxy; empty: lab.Nginx
	Balancers int    // in front of the hosts; 0: each host has its own proxy

	// Settle is how long the load runs before, between and after the runs of
	// teal. Transfers last nearly as long, so that some are open at every
	// switch.
	Settle time.Duration
}

// Lab returns the lab that the demonstration starts, without a folder.
func Lab(c Config) lab.Config {
	return lab.Config{Hosts: c.Hosts, Balancers: c.Balancers, Proxy: c.Proxy, Engine: lab.Docker, Services: true}
}

// ErrBroken says that requests failed or were answered by the wrong side.
var ErrBroken = errors.New("requests were hurt")

// Run shows it all and writes what happens to out. The error is ErrBroken when
// a request failed or was answered by the wrong side, and another one when the
// demonstration could not be brought to its end. Nothing is left on the
// machine in either case.
func Run(ctx context.Context, c Config, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	teal, err := filepath.Abs(c.Teal)
	if err != nil {
		return err
	}
	if c.Proxy == lab.NoProxy {
		return errors.New("without a proxy there is no switch to show")
	}
	if _, err := os.Stat(teal); err != nil {
		return fmt.Errorf("find the program to show: %w", err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "teal-demo-")
	if err != nil {
		return err
	}
	config := Lab(c)
	config.Dir = dir
	d := &demo{teal: teal, out: out, settle: c.Settle, began: time.Now()}
	proxies := " with " + cmp.Or(c.Proxy, lab.Nginx)
	if c.Balancers > 0 {
		proxies = ", " + count(c.Balancers, "load balancer") + proxies
	}
	d.say("lab", "starting %s%s, a registry and a git server", count(c.Hosts, "host"), proxies)
	d.lab, err = lab.Start(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, d.lab.Stop(rest))
	}()
	return d.run(ctx)
}

// A demo is one demonstration.
type demo struct {
	teal    string
	out     io.Writer
	settle  time.Duration
	began   time.Time
	lab     *lab.Lab
	appFile string
	rec     load.Recorder
}

// run tells the story.
func (d *demo) run(ctx context.Context) error {
	var err error
	if d.appFile, err = d.lab.AppFile(nil); err != nil {
		return err
	}
	if err := d.deploy(ctx, "1"); err != nil {
		return err
	}
	stop := d.startLoad(ctx)
	err = d.underLoad(ctx)
	if loadErr := stop(); err == nil {
		err = loadErr
	}
	report := d.rec.Report()
	d.say("load", "ended")
	if err := errors.Join(err, d.tell(&report)); err != nil {
		return err
	}
	if !report.OK() {
		return fmt.Errorf("%w: %d failed, %d answered by the wrong side, of %d",
			ErrBroken, report.Failed, report.Wrong(), report.Requests)
	}
	return nil
}

// underLoad is the part of the story that requests must not notice.
func (d *demo) underLoad(ctx context.Context) error {
	for _, step := range []func() error{
		func() error { return wait(ctx, d.settle) },
		func() error { return d.deploy(ctx, "2") },
		func() error { return wait(ctx, d.settle) },
		// Detached, teal does not wait for the former release to go, so that
		// there is something to go back to.
		func() error { return d.deploy(ctx, "3", "--detach") },
		func() error { return wait(ctx, d.settle) },
		func() error { return d.serve(ctx, "2", "rollback") },
		func() error { return wait(ctx, d.settle) },
		func() error { return d.alone(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// deploy publishes a release, pushes its image, and has teal deploy it.
func (d *demo) deploy(ctx context.Context, version string, more ...string) error {
	commit, err := d.lab.PublishRelease(ctx, version, nil)
	if err != nil {
		return err
	}
	image, err := d.lab.PushImage(ctx, version)
	if err != nil {
		return err
	}
	d.say("release "+version, "commit %.10s, image %s", commit, image)
	return d.serve(ctx, version, append([]string{"deploy", "--version", version}, more...)...)
}

// serve runs a command of teal that makes a release serve, and tells the
// recorder when that happened where.
func (d *demo) serve(ctx context.Context, version string, args ...string) error {
	began := time.Now()
	res, err := d.command(ctx, args...)
	if err != nil {
		return fmt.Errorf("teal %s: %w", args[0], err)
	}
	var switches []load.Switch
	for _, h := range res.Hosts {
		if h.SwitchedAt.IsZero() || h.Version != version {
			return fmt.Errorf("teal %s: %s is %s and serves %q, want a switch to %q %s", args[0], h.Host, h.State, h.Version, version, h.Error)
		}
		switches = append(switches, load.Switch{Host: h.Host, Release: version, Began: began, Confirmed: h.SwitchedAt})
		gone := ""
		if !h.BlueGoneAt.IsZero() {
			gone = fmt.Sprintf(", blue gone at %s, %s later", clock(h.BlueGoneAt), short(h.BlueGoneAt.Sub(h.SwitchedAt)))
		}
		d.say(args[0], "%s: switched to release %s at %s in %.1f ms%s", h.Host, version, clock(h.SwitchedAt), h.SwitchMS, gone)
	}
	if len(d.lab.Balancers()) > 0 {
		switches = []load.Switch{load.Together(switches)}
	}
	for _, s := range switches {
		d.rec.Switched(s)
	}
	d.say(args[0], "%s after %s", res.Outcome, short(time.Since(began)))
	return nil
}

// command runs teal and shows the steps that it finishes.
func (d *demo) command(ctx context.Context, args ...string) (result, error) {
	args = append(args, "-f", d.appFile, "-i", d.lab.Inventory(), "--json", "--yes")
	cmd := exec.CommandContext(ctx, d.teal, args...)
	cmd.Env = append(os.Environ(), d.lab.Env()...)
	// Ctrl-C reaches this program only, which tells teal, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	res, err := readRun(stdout, func(e event) { d.show(args[0], e) })
	if exit := cmd.Wait(); exit != nil {
		err = errors.Join(exit, err)
	}
	if err != nil {
		return res, fmt.Errorf("%w: %s %s", err, res.Error, strings.TrimSpace(stderr.String()))
	}
	return res, nil
}

// show tells of an event, when people would want to know.
func (d *demo) show(command string, e event) {
	switch e.Status {
	case "done", "failed", "warning":
		text := strings.TrimSpace(e.Text + " " + e.Error)
		d.say(command, "%s", strings.TrimSpace(fmt.Sprintf("%s: %s %s %s", e.Host, e.Step, e.Status, text)))
	}
}

// startLoad puts load on all hosts that have a proxy; the function that it returns ends it.
func (d *demo) startLoad(ctx context.Context) func() error {
	config := load.Config{Net: d.lab.Network(), Clients: load.Mix(), Transfer: d.settle * 4 / 5, Duration: longest}
	clients := 0
	word := "host"
	if len(d.lab.Balancers()) > 0 {
		word = "load balancer"
	}
	for _, h := range d.lab.Fronts() {
		config.Hosts = append(config.Hosts, load.Host{Name: h.Name, Addr: netip.AddrPortFrom(h.Addr, 80)})
	}
	for _, n := range config.Clients {
		clients += n * len(config.Hosts)
	}
	d.say("load", "%d clients on %s: kept connections, new ones, POSTs, slow downloads and uploads, websockets",
		clients, count(len(config.Hosts), word))
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- load.Run(ctx, config, &d.rec) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// alone waits until one container of the shop is left on each host.
func (d *demo) alone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, h := range d.lab.Hosts() {
		for {
			names, err := d.lab.Docker(ctx, h, "ps", "--all", "--format", "{{.Names}} ({{.Status}})")
			if err != nil {
				return err
			}
			if left := strings.Split(strings.TrimSpace(names), "\n"); len(left) == 1 && left[0] != "" {
				d.say("hosts", "%s: one container is left: %s", h.Name, left[0])
				break
			} else if wait(ctx, 500*time.Millisecond) != nil {
				return fmt.Errorf("wait for one container on %s: there are %q", h.Name, left)
			}
		}
	}
	return nil
}

// tell writes the report and the verdict.
func (d *demo) tell(r *load.Report) error {
	fmt.Fprintln(d.out)
	if err := r.WriteTable(d.out); err != nil {
		return err
	}
	_, err := fmt.Fprintf(d.out, "\n%d requests: %d failed, %d answered by the wrong side after a switch.\n",
		r.Requests, r.Failed, r.Wrong())
	return err
}

// say writes a line: seconds since the beginning, subject, text.
func (d *demo) say(subject, format string, args ...any) {
	fmt.Fprintf(d.out, "%6.1f s  %-9s  %s\n", time.Since(d.began).Seconds(), subject, fmt.Sprintf(format, args...))
}

// wait waits for pause, or returns why ctx ended first.
func wait(ctx context.Context, pause time.Duration) error {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func short(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }

func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }
