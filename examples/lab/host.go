//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Host is one host of a lab. Its methods may be called at the same time by
// several goroutines.
type Host struct {
	Name string     // h1, h2, …, lb1, lb2, …, services
	Addr netip.Addr // as the machine and all other hosts reach it

	lab  *Lab
	mu   sync.Mutex // held while power or cable change
	info sync.Mutex // guards what follows
	init process
	cut  bool
}

// hostState is what the state file keeps of a host.
type hostState struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr"`
	Init process    `json:"init"`
	Cut  bool       `json:"cut"`
}

func (l *Lab) newHost(name string, addr netip.Addr) *Host {
	return &Host{Name: name, Addr: addr, lab: l}
}

func (l *Lab) openHost(s hostState) *Host {
	return &Host{Name: s.Name, Addr: s.Addr, lab: l, init: s.Init, cut: s.Cut}
}

func (h *Host) state() hostState {
	h.info.Lock()
	defer h.info.Unlock()
	return hostState{Name: h.Name, Addr: h.Addr, Init: h.init, Cut: h.cut}
}

// String returns the host's name.
func (h *Host) String() string { return h.Name }

// Running reports whether the host has power.
func (h *Host) Running() bool {
	s := h.state()
	return s.Init.alive()
}

// Connected reports whether the host's cable is plugged in.
func (h *Host) Connected() bool { return !h.state().Cut }

// PID returns the number that the machine has for process 1 of the host, for
// reading what is below /proc/PID/root. It is 0 when the host has no power.
func (h *Host) PID() int {
	if s := h.state(); s.Init.alive() {
		return s.Init.PID
	}
	return 0
}

// Start switches the power on, which a running host does not notice. It does
// not wait until the host is ready.
func (h *Host) Start(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Running() {
		return nil
	}
	if err := h.boot(ctx); err != nil {
		return fmt.Errorf("start %s: %w", h.Name, err)
	}
	return nil
}

func (h *Host) boot(ctx context.Context) error {
	disk, err := h.disk()
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(h.dir(), "key"))
	if err != nil {
		return err
	}
	procs, err := h.lab.cgroups.create(h.cgroup())
	if err != nil {
		return err
	}
	p, err := start(ctx, hostNamespaces, filepath.Join(h.dir(), "log"))
	if err != nil {
		return err
	}
	h.info.Lock()
	h.init = *p
	cut := h.cut
	h.info.Unlock()
	// On disk before anything else: whatever happens now, Down finds it.
	if err := h.lab.save(); err != nil {
		return err
	}
	if err := plug(ctx, h.lab.hub.PID, p.PID, h.Addr, cut); err != nil {
		return err
	}
	order := h.lab.order(h, string(key))
	order.Hostname = h.Name
	order.Detached = h.lab.config.Detached
	order.Cgroups = procs
	order.Mounts = h.lab.cgroups.mounts()
	order.Root = disk
	order.Absent = absentPaths()
	return p.send(order)
}

// disk makes the folders of the host's disk at its first start and returns
// what they are for.
func (h *Host) disk() (*rootFS, error) {
	r := &rootFS{
		Dir:   filepath.Join(h.dir(), "root"),
		Upper: filepath.Join(h.dir(), "disk"),
		Work:  filepath.Join(h.dir(), "work"),
		Binds: map[string]string{},
		Empty: emptyDirs(),
	}
	for path, name := range storage(h.engine()) {
		r.Binds[path] = filepath.Join(h.dir(), name)
	}
	for _, dir := range slices.AppendSeq([]string{r.Dir, r.Upper, r.Work}, maps.Values(r.Binds)) {
		// The root of a host is readable by its users.
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// storage are the folders of a host that an engine keeps layers in, and what
// they are called on the machine.
func storage(engine string) map[string]string {
	switch engine {
	case Docker:
		return map[string]string{"/var/lib/docker": "docker"}
	case Podman, RootlessPodman:
		return map[string]string{"/var/lib/containers": "containers", "/home/" + loginUser: "home"}
	}
	return nil
}

// Stop cuts the power: every process of the host is gone at once, and so is
// what it had in memory. The disk stays.
func (h *Host) Stop(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.info.Lock()
	p := h.init
	h.info.Unlock()
	if err := p.kill(ctx); err != nil {
		return fmt.Errorf("stop %s: %w", h.Name, err)
	}
	if err := h.lab.cgroups.remove(ctx, h.cgroup()); err != nil {
		return fmt.Errorf("stop %s: %w", h.Name, err)
	}
	h.info.Lock()
	h.init = process{}
	h.info.Unlock()
	return nil
}

// Reboot cuts the power, switches it on again and waits until the host is
// ready.
func (h *Host) Reboot(ctx context.Context) error {
	if err := h.Stop(ctx); err != nil {
		return err
	}
	if err := h.Start(ctx); err != nil {
		return err
	}
	return h.Ready(ctx)
}

// Cut pulls the host's network cable. Nobody is told: connections stay open
// and silent. It stays out over a restart.
func (h *Host) Cut(ctx context.Context) error { return h.cable(ctx, true) }

// Heal plugs the cable in again.
func (h *Host) Heal(ctx context.Context) error { return h.cable(ctx, false) }

func (h *Host) cable(ctx context.Context, cut bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := "up"
	if cut {
		state = "down"
	}
	if h.Running() {
		err := ipBatch(ctx, h.lab.hub.PID, fmt.Sprintf("link set %s %s", cable(h.Addr), state))
		if err != nil {
			return fmt.Errorf("set the cable of %s %s: %w", h.Name, state, err)
		}
	}
	h.info.Lock()
	h.cut = cut
	h.info.Unlock()
	return h.lab.save()
}

// Exec runs a command as root inside the host, past its network, and returns
// what it wrote to standard output. A cancelled ctx kills the command, but not
// what it has started.
func (h *Host) Exec(ctx context.Context, argv ...string) (string, error) {
	pid := h.PID()
	if pid == 0 {
		return "", fmt.Errorf("run %s on %s: it has no power", argv[0], h.Name)
	}
	args := append([]string{
		"--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wd", "--",
	}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	return output(cmd, h.Name, argv[0])
}

// SSH runs a script with the login shell of the user deploy, over SSH, and
// returns what it wrote to standard output.
func (h *Host) SSH(ctx context.Context, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "ssh", "-F", h.lab.path("ssh_config"), "-T", h.Name, "--", script)
	return output(cmd, h.Name, "ssh")
}

// output runs cmd and returns its output, or an error with the end of what it
// said about it.
func output(cmd *exec.Cmd, host, name string) (string, error) {
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run %s on %s: %w: %s", name, host, err, tail(stderr.Bytes()))
	}
	return out.String(), nil
}

// Ready waits until everything that the host runs takes requests. Through a
// pulled cable that cannot be seen, so then it waits for ctx.
func (h *Host) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := h.probe(ctx)
		if err == nil {
			return nil
		}
		if !h.Running() {
			return fmt.Errorf("wait for %s: it has no power: %s", h.Name, h.log())
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("wait for %s: %w: %s", h.Name, err, h.log())
		}
	}
}

// probe looks once at everything that has to work.
func (h *Host) probe(ctx context.Context) error {
	if err := greets(ctx, netip.AddrPortFrom(h.Addr, 22)); err != nil {
		return err
	}
	if h == h.lab.services {
		return answers(ctx, "tcp", h.lab.Registry().String(), "/")
	}
	root := h.root()
	switch h.proxy() {
	case Nginx:
		if err := runs(root, nginxPID); err != nil {
			return err
		}
	case HAProxy:
		if err := commanded(ctx, root); err != nil {
			return err
		}
	}
	if h.engine() == Docker {
		return answers(ctx, "unix", root+"/run/docker.sock", "/_ping")
	}
	return nil
}

// greets reports an error unless an SSH server is there.
func greets(ctx context.Context, addr netip.AddrPort) error {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	greeting := make([]byte, 4)
	if _, err := io.ReadFull(c, greeting); err != nil {
		return err
	}
	if string(greeting) != "SSH-" {
		return fmt.Errorf("%s greets with %q", addr, greeting)
	}
	return nil
}

// runs reports an error unless a host's pid file is that of a process. The
// number is that of the host's own counting.
func runs(root, pidFile string) error {
	b, err := os.ReadFile(root + pidFile)
	if err != nil {
		return err
	}
	_, err = os.Stat(root + "/proc/" + strings.TrimSpace(string(b)))
	return err
}

// answers reports an error unless an HTTP server says 200.
func answers(ctx context.Context, network, address, path string) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
		},
	}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://host"+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(network + " " + address + ": " + resp.Status)
	}
	return nil
}

// log returns the end of what process 1 and the services have said.
func (h *Host) log() string {
	b, err := os.ReadFile(filepath.Join(h.dir(), "log"))
	if err != nil {
		return err.Error()
	}
	return tail(b)
}

// tail returns the last few lines of a text in one.
func tail(b []byte) string {
	const lines = 5
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], " | ")
}

func (h *Host) dir() string { return h.lab.path(h.Name) }

// cgroup is the name of the host's control groups.
func (h *Host) cgroup() string { return h.lab.link + "-" + h.Name }
