//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The container engines that a host can have.
const (
	NoEngine       = ""
	Docker         = "docker"
	Podman         = "podman"          // root's, so that teal logs in as root
	RootlessPodman = "rootless-podman" // of the login user
)

// readyTimeout bounds the start of one host, for callers whose ctx does not.
const readyTimeout = time.Minute

// A Config says what to start. It is kept in the lab's folder.
type Config struct {
	// Dir is the lab's folder, absolute, on a real file system (not an
	// overlay). It must be absent or empty. Stop removes it.
	Dir string `json:"dir"`

	Hosts     int    `json:"hosts"`     // h1, h2, …; at most 200
	Balancers int    `json:"balancers"` // lb1, lb2, …, which run the proxy in place of the hosts; at most 40
	Proxy     string `json:"proxy"`     // Nginx, the default, HAProxy or NoProxy
	Engine    string `json:"engine"`    // of the hosts; load balancers have none
	Services  bool   `json:"services"`  // a registry and git repositories

	// Engines are those of h1, h2, … where they differ: Engine is for the rest.
	Engines []string `json:"engines,omitempty"`

	// Prefix begins the names of the machine's link to the lab and of the
	// control groups; at most 8 lower-case letters. Default: "teal".
	Prefix string `json:"prefix"`

	// Net is the lab's network, an IPv4 one of 256 addresses. Default: one of
	// 10.46.0.0/16 in which the machine has no address.
	Net netip.Prefix `json:"net"`

	SudoPassword     string `json:"sudo_password"` // of the user deploy; "": sudo asks for none
	RegistryUser     string `json:"registry_user"` // "": the registry is open to all
	RegistryPassword string `json:"registry_password"`

	// Detached lets the hosts live on when the program that started them has
	// ended, until Open and Stop, or Down, end them.
	Detached bool `json:"detached"`
}

// A Lab is a number of running hosts. Its methods may be called at the same
// time by several goroutines.
type Lab struct {
	config     Config
	network    netip.Prefix
	link       string // the machine's end; the control groups' names begin with it
	hub        *process
	hosts      []*Host
	balancers  []*Host
	services   *Host // nil: none
	publicKey  string
	knownHosts string
	cgroups    *cgroups
	mu         sync.Mutex // held to write the state file
}

// state is the content of lab.json, from which another process knows the lab.
type state struct {
	Config    Config       `json:"config"`
	Link      string       `json:"link"`
	Network   netip.Prefix `json:"network"`
	Hub       *process     `json:"hub"`
	Hosts     []hostState  `json:"hosts"`
	Balancers []hostState  `json:"balancers,omitempty"`
	Services  *hostState   `json:"services,omitempty"`
}

// Start starts a lab and waits until all its hosts are ready. When it cannot,
// nothing is left.
func Start(ctx context.Context, config Config) (*Lab, error) {
	if err := check(&config); err != nil {
		return nil, fmt.Errorf("start a lab: %w", err)
	}
	l := &Lab{config: config}
	if err := l.start(ctx); err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("start a lab: %w", err), l.Stop(clean))
	}
	return l, nil
}

func check(c *Config) error {
	if os.Getuid() != 0 {
		return errors.New("only root can make hosts")
	}
	if c.Prefix == "" {
		c.Prefix = "teal"
	}
	if c.Proxy == "" {
		c.Proxy = Nginx
	}
	switch {
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("the folder %q is not absolute", c.Dir)
	case c.Hosts < 0 || c.Hosts > maxHosts:
		return fmt.Errorf("%d hosts: 0 to %d are possible", c.Hosts, maxHosts)
	case c.Balancers < 0 || c.Balancers > maxBalancers:
		return fmt.Errorf("%d load balancers: 0 to %d are possible", c.Balancers, maxBalancers)
	case c.Proxy != Nginx && c.Proxy != HAProxy && c.Proxy != NoProxy:
		return fmt.Errorf("unknown proxy %q", c.Proxy)
	case c.Proxy == NoProxy && c.Balancers > 0:
		return fmt.Errorf("%d load balancers, and no proxy for them to run", c.Balancers)
	case len(c.Engines) > c.Hosts:
		return fmt.Errorf("%d engines for %d hosts", len(c.Engines), c.Hosts)
	case !regexp.MustCompile(`^[a-z]{1,8}$`).MatchString(c.Prefix):
		return fmt.Errorf("the prefix %q is not one to eight lower-case letters", c.Prefix)
	case c.Net.IsValid() && (!c.Net.Addr().Is4() || c.Net.Bits() != 24):
		return fmt.Errorf("the network %s is not an IPv4 network of 256 addresses", c.Net)
	}
	for _, engine := range append([]string{c.Engine}, c.Engines...) {
		if !slices.Contains([]string{NoEngine, Docker, Podman, RootlessPodman}, engine) {
			return fmt.Errorf("unknown engine %q", engine)
		}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("the folder %s is not empty: is there another lab, or what is left of one?", c.Dir)
	}
	const overlayMagic = 0x794c7630
	var at syscall.Statfs_t
	if err := syscall.Statfs(c.Dir, &at); err != nil {
		return fmt.Errorf("inspect %s: %w", c.Dir, err)
	}
	if at.Type == overlayMagic {
		return fmt.Errorf("the folder %s lies on an overlay: choose one on a real file system or a tmpfs", c.Dir)
	}
	return nil
}

func (l *Lab) start(ctx context.Context) error {
	var err error
	if l.cgroups, err = machineCgroups(); err != nil {
		return err
	}
	// Written down at once, and again whenever there is more: Down has to find
	// what a crash leaves at any moment.
	if err := l.save(); err != nil {
		return err
	}
	if err := l.makeKeys(ctx, "id"); err != nil {
		return err
	}
	// The hub comes first: its link and network say what all else is called.
	if err := l.startHub(ctx); err != nil {
		return err
	}
	for i := range l.config.Hosts {
		l.hosts = append(l.hosts, l.newHost("h"+strconv.Itoa(i+1), addrAt(l.network, byte(firstHostAddr+i))))
	}
	for i := range l.config.Balancers {
		l.balancers = append(l.balancers, l.newHost("lb"+strconv.Itoa(i+1), addrAt(l.network, byte(firstBalancerAddr+i))))
	}
	if l.config.Services {
		l.services = l.newHost("services", addrAt(l.network, servicesAddr))
	}
	if err := l.save(); err != nil {
		return err
	}
	if err := l.writeFiles(ctx); err != nil {
		return err
	}
	return l.each(func(h *Host) error {
		if err := h.Start(ctx); err != nil {
			return err
		}
		return h.Ready(ctx)
	})
}

// startHub starts the namespace that holds the bridge, and in it the agent.
func (l *Lab) startHub(ctx context.Context) error {
	var err error
	l.hub, err = start(ctx, syscall.CLONE_NEWNET|syscall.CLONE_NEWPID, filepath.Join(l.config.Dir, "hub.log"))
	if err != nil {
		return err
	}
	if err := l.save(); err != nil {
		return err
	}
	l.link, l.network, err = connectHub(ctx, l.hub.PID, l.config.Prefix, l.config.Net)
	if err != nil {
		return err
	}
	err = l.hub.send(&order{
		Detached: l.config.Detached,
		Services: []service{{Name: "agent", Argv: []string{"ssh-agent", "-D", "-a", l.AgentSocket()}}},
	})
	if err != nil {
		return err
	}
	return l.fillAgent(ctx)
}

// fillAgent waits for the agent and gives it the lab's key.
func (l *Lab) fillAgent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		cmd := exec.CommandContext(ctx, "ssh-add", "-q", l.path("id"))
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+l.AgentSocket())
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("give the agent its key: %w: %s", err, out)
		}
	}
}

// makeKeys makes a key pair in the lab's folder and keeps what all hosts need
// to know of the lab's own.
func (l *Lab) makeKeys(ctx context.Context, name string) error {
	cmd := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", l.path(name))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the key %s: %w: %s", name, err, out)
	}
	return nil
}

// writeFiles writes what people and programs need to reach the hosts.
func (l *Lab) writeFiles(ctx context.Context) error {
	err := l.each(func(h *Host) error {
		if err := os.Mkdir(h.dir(), 0o700); err != nil {
			return err
		}
		return l.makeKeys(ctx, filepath.Join(h.Name, "key"))
	})
	if err != nil {
		return err
	}
	keys := map[string]string{}
	for _, h := range l.all() {
		key, err := os.ReadFile(l.path(h.Name, "key.pub"))
		if err != nil {
			return err
		}
		keys[h.Name] = string(key)
	}
	l.knownHosts = knownHosts(l.all(), keys)
	for name, text := range map[string]string{
		"known_hosts":    l.knownHosts,
		"ssh_config":     sshConfig(l.config.Dir, slices.Concat(l.hosts, l.balancers), l.services),
		"inventory.toml": inventoryFile(l.config.Dir, l.hosts, l.balancers),
	} {
		if err := os.WriteFile(l.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	key, err := os.ReadFile(l.path("id.pub"))
	l.publicKey = string(key)
	return err
}

// Open returns the lab that another process has started in a folder, detached.
func Open(dir string) (*Lab, error) {
	b, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if err != nil {
		return nil, fmt.Errorf("open a lab: %w", err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("open the lab %s: %w", dir, err)
	}
	l := &Lab{config: s.Config, link: s.Link, network: s.Network, hub: s.Hub}
	if l.cgroups, err = machineCgroups(); err != nil {
		return nil, err
	}
	for _, h := range s.Hosts {
		l.hosts = append(l.hosts, l.openHost(h))
	}
	for _, h := range s.Balancers {
		l.balancers = append(l.balancers, l.openHost(h))
	}
	if s.Services != nil {
		l.services = l.openHost(*s.Services)
	}
	for name, to := range map[string]*string{"id.pub": &l.publicKey, "known_hosts": &l.knownHosts} {
		// A lab that died while it started has no such files; it can still be
		// stopped.
		b, err := os.ReadFile(l.path(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		*to = string(b)
	}
	return l, nil
}

// Down stops the lab of a folder, or what a crash has left of it. No lab there
// is no error.
func Down(ctx context.Context, dir string) error {
	l, err := Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.Stop(ctx)
}

// Stop ends all hosts and removes everything that the lab has made, its folder
// included. It may be called again.
func (l *Lab) Stop(ctx context.Context) error {
	err := l.each(func(h *Host) error { return h.Stop(ctx) })
	if l.hub.alive() {
		disconnectHub(ctx, l.hub.PID)
	}
	if kill := l.hub.kill(ctx); kill != nil {
		return errors.Join(err, kill)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(l.config.Dir)
}

// each calls do for all hosts at once, load balancers and services included.
func (l *Lab) each(do func(*Host) error) error {
	var wg sync.WaitGroup
	all := l.all()
	errs := make([]error, len(all))
	for i, h := range all {
		wg.Go(func() { errs[i] = do(h) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *Lab) all() []*Host {
	all := slices.Concat(l.hosts, l.balancers)
	if l.services != nil {
		all = append(all, l.services)
	}
	return all
}

// save writes the state file.
func (l *Lab) save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := state{Config: l.config, Link: l.link, Network: l.network, Hub: l.hub}
	for _, h := range l.hosts {
		s.Hosts = append(s.Hosts, h.state())
	}
	for _, h := range l.balancers {
		s.Balancers = append(s.Balancers, h.state())
	}
	if l.services != nil {
		of := l.services.state()
		s.Services = &of
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	next := l.path("lab.json.new")
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, l.path("lab.json"))
}

func (l *Lab) path(elem ...string) string {
	return filepath.Join(append([]string{l.config.Dir}, elem...)...)
}

// Dir returns the lab's folder. In it are inventory.toml, known_hosts,
// ssh_config, and the private key id, which all hosts accept for the users
// root and deploy, and the services host for git.
func (l *Lab) Dir() string { return l.config.Dir }

// Inventory returns the path of an inventory of all hosts: groups web and, with
// load balancers, lb; user deploy, sudo.
func (l *Lab) Inventory() string { return l.path("inventory.toml") }

// AgentSocket returns the socket of an SSH agent that holds the lab's key.
func (l *Lab) AgentSocket() string { return l.path("agent") }

// Registry returns the address of the services host's registry. It speaks
// plain HTTP.
func (l *Lab) Registry() netip.AddrPort {
	return netip.AddrPortFrom(addrAt(l.network, servicesAddr), registryPort)
}

// Network returns the lab's network.
func (l *Lab) Network() netip.Prefix { return l.network }

// Hosts returns the ordinary hosts.
func (l *Lab) Hosts() []*Host { return slices.Clip(l.hosts) }

// Balancers returns the load balancers.
func (l *Lab) Balancers() []*Host { return slices.Clip(l.balancers) }

// Fronts returns the hosts that run a proxy, and so are where clients go: the
// load balancers, or without any the ordinary hosts.
func (l *Lab) Fronts() []*Host {
	switch {
	case l.config.Proxy == NoProxy:
		return nil
	case len(l.balancers) > 0:
		return l.Balancers()
	}
	return l.Hosts()
}

// Host returns the host number i: Host(1) is h1. A number that no host has is
// a mistake in the program, as an index out of range is.
func (l *Lab) Host(i int) *Host { return l.hosts[i-1] }

// Lookup returns the host of a name, load balancers and services included, or
// nil.
func (l *Lab) Lookup(name string) *Host {
	for _, h := range l.all() {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Services returns the services host, or nil when the lab has none.
func (l *Lab) Services() *Host { return l.services }

// Env returns the environment, as NAME=value, in which teal and ssh find the
// lab: its agent, and where its files are.
func (l *Lab) Env() []string {
	return []string{
		"SSH_AUTH_SOCK=" + l.AgentSocket(),
		"TEAL_LAB=" + l.config.Dir,
		"TEAL_LAB_INVENTORY=" + l.Inventory(),
		"TEAL_LAB_REGISTRY=" + l.Registry().String(),
		"GIT_SSH_COMMAND=ssh -F '" + strings.ReplaceAll(l.path("ssh_config"), "'", `'\''`) + "'", // git hands it to a shell
	}
}
