//go:build linux

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The proxies that Config.Proxy can ask for.
const (
	Nginx   = "nginx"   // the default
	HAProxy = "haproxy" // in master-worker mode, with an admin socket
	NoProxy = "none"
)

// Where the proxies keep the number of their master.
const (
	nginxPID   = "/run/nginx.pid"
	haproxyPID = "/run/haproxy.pid"
)

// What teal and the lab need to know of HAProxy.
const (
	haproxyGroup  = "haproxy" // of the admin socket
	haproxyFile   = "/etc/haproxy/haproxy.cfg"
	haproxySocket = "/run/haproxy/admin.sock"
)

// haproxyConfig is what Debian's package brings, with the admin socket handing
// listeners over. It has no frontend: where there is nothing to serve yet
// HAProxy runs with its socket alone.
const haproxyConfig = `global
	log /dev/log	local0
	log /dev/log	local1 notice
	chroot /var/lib/haproxy
	stats socket ` + haproxySocket + ` mode 660 level admin expose-fd listeners
	stats timeout 30s
	user haproxy
	group haproxy
	daemon

	# Default SSL material locations
	ca-base /etc/ssl/certs
	crt-base /etc/ssl/private

	ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets

defaults
	log	global
	mode	http
	option	httplog
	option	dontlognull
	timeout connect 5000
	timeout client  50000
	timeout server  50000
	errorfile 400 /etc/haproxy/errors/400.http
	errorfile 403 /etc/haproxy/errors/403.http
	errorfile 408 /etc/haproxy/errors/408.http
	errorfile 500 /etc/haproxy/errors/500.http
	errorfile 502 /etc/haproxy/errors/502.http
	errorfile 503 /etc/haproxy/errors/503.http
	errorfile 504 /etc/haproxy/errors/504.http
`

// haproxyStart is what systemd and its tmpfiles do for Debian's HAProxy. The
// folder gives its group to the socket.
const haproxyStart = `install -d -m 2775 -o haproxy -g haproxy /run/haproxy &&
exec /usr/sbin/haproxy -Ws -f ` + haproxyFile + ` -p ` + haproxyPID + ` -S /run/haproxy-master.sock`

// addProxy adds a proxy to a host's order. As on Debian, HAProxy comes back
// when its master has died and nginx does not.
func (o *order) addProxy(kind string) {
	switch kind {
	case Nginx:
		o.Services = append(o.Services, service{Name: "nginx", Argv: []string{"/usr/sbin/nginx"}})
	case HAProxy:
		o.Files = append(o.Files, file{Path: haproxyFile, Text: haproxyConfig})
		o.Services = append(o.Services, service{Name: "haproxy", Argv: []string{"/bin/sh", "-c", haproxyStart}, Restart: true})
	}
}

// proxy returns what the host runs: Nginx, HAProxy or NoProxy.
func (h *Host) proxy() string {
	c := h.lab.config
	fronts := h.lab.balancers
	if len(fronts) == 0 {
		fronts = h.lab.hosts
	}
	switch {
	case !slices.Contains(fronts, h):
		return NoProxy
	case c.Proxy == "":
		return Nginx
	}
	return c.Proxy
}

// engine returns the container engine that the host has, or NoEngine.
func (h *Host) engine() string {
	i := slices.Index(h.lab.hosts, h)
	if i < 0 {
		return NoEngine
	}
	return h.lab.config.engineOf(i)
}

// engineOf returns the engine of the ordinary host with this index.
func (c Config) engineOf(i int) string {
	if i < len(c.Engines) {
		return c.Engines[i]
	}
	return c.Engine
}

// errNoProxy says that a host runs none.
var errNoProxy = errors.New("it runs no proxy")

// proxyTimeout bounds what a proxy is given to start, reload or end.
const proxyTimeout = 10 * time.Second

// RestartProxy ends the host's proxy without patience, as a power loss does
// for that one program, starts it again and waits until it is ready. A proxy
// that does not run is started.
func (h *Host) RestartProxy(ctx context.Context) error {
	if err := h.KillProxy(ctx); err != nil {
		return err
	}
	if h.proxy() == Nginx {
		if _, err := h.Exec(ctx, "/usr/sbin/nginx"); err != nil {
			return fmt.Errorf("restart the proxy of %s: %w", h.Name, err)
		}
	}
	return h.Ready(ctx)
}

// KillProxy kills every process of the host's proxy, if there is any, and waits
// until they have ended. HAProxy comes back by itself, a moment later; nginx stays away until
// RestartProxy.
func (h *Host) KillProxy(ctx context.Context) error {
	all, err := h.signalProxy(ctx, "KILL")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill the proxy of %s: %w", h.Name, err)
	}
	return h.await(ctx, "the end of the proxy", func() bool { return !slices.ContainsFunc(all, h.alive) })
}

// FreezeProxy stops every process of the host's proxy where it is: neither
// requests nor its admin socket get an answer, and connections stay open.
func (h *Host) FreezeProxy(ctx context.Context) error {
	// A master that has just come up may make a worker meanwhile, so whoever
	// stands still is counted again.
	var before, now []int
	var refused error
	err := h.await(ctx, "a proxy that stands still", func() bool {
		before = now
		now, refused = h.signalProxy(ctx, "STOP")
		return refused != nil || slices.Equal(before, now) && !slices.ContainsFunc(now, h.moves)
	})
	if err := errors.Join(err, refused); err != nil {
		return fmt.Errorf("freeze the proxy of %s: %w", h.Name, err)
	}
	return nil
}

// ThawProxy lets a frozen proxy go on.
func (h *Host) ThawProxy(ctx context.Context) error {
	if _, err := h.signalProxy(ctx, "CONT"); err != nil {
		return fmt.Errorf("thaw the proxy of %s: %w", h.Name, err)
	}
	return nil
}

// askAgain is how long a proxy may take to begin a reload.
const askAgain = 3 * time.Second

// ReloadProxy checks the configuration, has the proxy read it anew and waits
// until processes that have done so run.
func (h *Host) ReloadProxy(ctx context.Context) error {
	check, reload := []string{"/usr/sbin/nginx", "-t", "-q"}, "HUP"
	if h.proxy() == HAProxy {
		check, reload = []string{"/usr/sbin/haproxy", "-f", haproxyFile, "-c", "-q"}, "USR2"
	}
	master, before, err := h.proxyProcesses()
	if err != nil {
		return fmt.Errorf("reload the proxy of %s: %w", h.Name, err)
	}
	if _, err := h.Exec(ctx, check...); err != nil {
		return fmt.Errorf("reload the proxy of %s: %w", h.Name, err)
	}
	var asked time.Time
	var refused error
	err = h.await(ctx, "new processes of the proxy", func() bool {
		_, now, err := h.proxyProcesses()
		if err == nil && slices.ContainsFunc(now, func(pid int) bool { return !slices.Contains(before, pid) }) {
			return true
		}
		if time.Since(asked) > askAgain { // a master that still reloads may miss it
			asked = time.Now()
			_, refused = h.Exec(ctx, "sh", "-c", `kill -"$1" "$2"`, "lab", reload, strconv.Itoa(master))
		}
		return refused != nil
	})
	if err := errors.Join(err, refused); err != nil {
		return fmt.Errorf("reload the proxy of %s: %w", h.Name, err)
	}
	return h.Ready(ctx)
}

// signalProxy sends a signal to all processes of the proxy and returns their
// numbers, of the host's counting. The master comes first: it would replace the
// others.
func (h *Host) signalProxy(ctx context.Context, signal string) ([]int, error) {
	master, workers, err := h.proxyProcesses()
	if err != nil {
		return nil, err
	}
	all := append([]int{master}, workers...)
	argv := []string{"sh", "-c", `for pid; do kill -"$0" "$pid" 2>/dev/null || [ ! -e "/proc/$pid" ] || exit 1; done`, signal}
	for _, pid := range all {
		argv = append(argv, strconv.Itoa(pid))
	}
	_, err = h.Exec(ctx, argv...)
	return all, err
}

// proxyProcesses returns the master of the host's proxy and its children,
// numbered as the host does. The error is fs.ErrNotExist when it does not run.
func (h *Host) proxyProcesses() (master int, workers []int, err error) {
	file := nginxPID
	switch h.proxy() {
	case NoProxy:
		return 0, nil, errNoProxy
	case HAProxy:
		file = haproxyPID
	}
	b, err := os.ReadFile(h.root() + file)
	if err != nil {
		return 0, nil, err
	}
	if master, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", file, err)
	}
	if !h.alive(master) {
		return 0, nil, fmt.Errorf("process %d: %w", master, fs.ErrNotExist)
	}
	entries, err := os.ReadDir(h.root() + "/proc")
	if err != nil {
		return 0, nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := statIn(h.root()+"/proc", pid); err == nil && s.parent == master && !s.ended() {
			workers = append(workers, pid)
		}
	}
	return master, workers, nil
}

// alive reports whether a process of the host's counting has not ended.
func (h *Host) alive(pid int) bool {
	s, err := statIn(h.root()+"/proc", pid)
	return err == nil && !s.ended()
}

// moves reports whether a process of the host's counting has not been stopped.
func (h *Host) moves(pid int) bool {
	s, err := statIn(h.root()+"/proc", pid)
	return err == nil && s.state != "T"
}

// root returns where the machine sees the host's root.
func (h *Host) root() string { return "/proc/" + strconv.Itoa(h.PID()) + "/root" }

// await waits until something of the host is so.
func (h *Host) await(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	for !is() {
		if !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("wait for %s of %s: %w: %s", what, h.Name, context.Cause(ctx), h.log())
		}
	}
	return nil
}

// commanded reports an error unless HAProxy answers on its admin socket.
func commanded(ctx context.Context, root string) error {
	if err := runs(root, haproxyPID); err != nil {
		return err
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", root+haproxySocket)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("show info\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "Name: HAProxy") {
		err = fmt.Errorf("the admin socket says %q", line)
	}
	return err
}
