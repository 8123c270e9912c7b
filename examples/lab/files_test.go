//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// twoHosts is a lab that does not run.
func twoHosts() *Lab {
	l := &Lab{
		config:  Config{Dir: "/var/lab", Services: true, Engine: Docker},
		network: netip.MustParsePrefix("10.46.3.0/24"),
		link:    "teal3",
	}
	l.hosts = []*Host{l.newHost("h1", addrAt(l.network, 11)), l.newHost("h2", addrAt(l.network, 12))}
	l.services = l.newHost("services", addrAt(l.network, servicesAddr))
	return l
}

// balanced is such a lab with load balancers.
func balanced(proxy string) *Lab {
	l := twoHosts()
	l.config.Proxy = proxy
	l.balancers = []*Host{l.newHost("lb1", addrAt(l.network, 211)), l.newHost("lb2", addrAt(l.network, 212))}
	return l
}

func TestFilesForTheOperator(t *testing.T) {
	l, podman := twoHosts(), twoHosts()
	podman.config.Engines = []string{Podman, RootlessPodman}
	keys := map[string]string{"h1": "ssh-ed25519 AAA1 lab\n", "h2": "ssh-ed25519 AAA2 lab\n", "services": "ssh-ed25519 AAA3 lab\n"}
	tests := []struct{ name, got, want string }{
		{"known_hosts", knownHosts(l.all(), keys), `10.46.3.11,h1 ssh-ed25519 AAA1
10.46.3.12,h2 ssh-ed25519 AAA2
10.46.3.2,services ssh-ed25519 AAA3
`},
		{"inventory", inventoryFile("/var/lab", l.hosts, l.balancers), `[ssh]
user = "deploy"
identity = ["/var/lab/id"]
known_hosts = ["/var/lab/known_hosts"]
become = "sudo"

[groups.web]
hosts = ["h1", "h2"]

[hosts.h1]
address = "10.46.3.11"

[hosts.h2]
address = "10.46.3.12"
`},
		{"inventory with root's Podman", inventoryFile("/var/lab", podman.hosts, nil), `[ssh]
user = "deploy"
identity = ["/var/lab/id"]
known_hosts = ["/var/lab/known_hosts"]
become = "sudo"

[groups.web]
hosts = ["h1", "h2"]

[hosts.h1]
address = "10.46.3.11"
ssh = { user = "root" }

[hosts.h2]
address = "10.46.3.12"
`},
		{"inventory with load balancers", inventoryFile("/var/lab", l.hosts[:1], balanced(Nginx).balancers), `[ssh]
user = "deploy"
identity = ["/var/lab/id"]
known_hosts = ["/var/lab/known_hosts"]
become = "sudo"

[groups.web]
hosts = ["h1"]

[groups.lb]
hosts = ["lb1", "lb2"]

[hosts.h1]
address = "10.46.3.11"

[hosts.lb1]
address = "10.46.3.211"

[hosts.lb2]
address = "10.46.3.212"
`},
		{"ssh_config", sshConfig("/var/lab", l.hosts, l.services), `Host h1 10.46.3.11
  HostName 10.46.3.11
  User deploy
Host h2 10.46.3.12
  HostName 10.46.3.12
  User deploy
Host services 10.46.3.2
  HostName 10.46.3.2
  User git
Host *
  IdentityFile "/var/lab/id"
  IdentitiesOnly yes
  UserKnownHostsFile "/var/lab/known_hosts"
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 5
  LogLevel ERROR
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFilesOfAHost(t *testing.T) {
	l := twoHosts()
	tests := []struct{ name, got, want string }{
		{"hosts", hostsFile("h2", l.all()), "127.0.0.1\tlocalhost\n127.0.1.1\th2\n10.46.3.11\th1\n10.46.3.2\tservices\n"},
		{"daemon.json", dockerConfig(l.Registry()), "{\n  \"insecure-registries\": [\n    \"10.46.3.2:5000\"\n  ]\n}\n"},
		{"sudoers", sudoers(false), "deploy ALL=(ALL:ALL) NOPASSWD: ALL\n"},
		{"sudoers with a password", sudoers(true), "deploy ALL=(ALL:ALL) ALL\n"},
		{"registry", registryConfig(l.Registry(), true), `version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: /var/lib/docker-registry
  delete:
    enabled: true
http:
  addr: 10.46.3.2:5000
auth:
  htpasswd:
    realm: lab
    path: /etc/lab/htpasswd
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if open := registryConfig(l.Registry(), false); strings.Contains(open, "auth") {
		t.Errorf("an open registry asks for a password:\n%s", open)
	}
}

func TestEveryKindOfHostRunsWhatItIsFor(t *testing.T) {
	with := func(second string) *Lab {
		l := twoHosts()
		l.config.Engines = []string{Docker, second}
		return l
	}
	bare := func(proxy string) *Lab {
		l := twoHosts()
		l.config.Engine, l.config.Proxy = "", proxy
		return l
	}
	tests := []struct {
		name string
		lab  *Lab
		host string
		want []string
	}{
		{"a host", twoHosts(), "h1", []string{"sshd", "nginx", "dockerd"}},
		{"a host without an engine", bare(Nginx), "h2", []string{"sshd", "nginx"}},
		{"a host with root's Podman", with(Podman), "h2", []string{"sshd", "nginx", "podman-restart"}},
		{"a host with its user's Podman", with(RootlessPodman), "h2", []string{"sshd", "nginx", "podman-restart"}},
		{"a host beside one with Podman", with(Podman), "h1", []string{"sshd", "nginx", "dockerd"}},
		{"a host with HAProxy", bare(HAProxy), "h2", []string{"sshd", "haproxy"}},
		{"a host without a proxy", bare(NoProxy), "h1", []string{"sshd"}},
		{"a host behind load balancers", balanced(HAProxy), "h1", []string{"sshd", "dockerd"}},
		{"a load balancer of nginx", balanced(""), "lb1", []string{"sshd", "nginx"}},
		{"a load balancer of HAProxy", balanced(HAProxy), "lb2", []string{"sshd", "haproxy"}},
		{"the services", balanced(HAProxy), "services", []string{"sshd", "registry"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := tt.lab.Lookup(tt.host)
			if h == nil {
				t.Fatalf("no host %s", tt.host)
			}
			o := tt.lab.order(h, "key")
			var got []string
			for _, s := range o.Services {
				got = append(got, s.Name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			ofHAProxy := slices.ContainsFunc(o.Files, func(f file) bool { return f.Path == haproxyFile })
			inGroup := slices.ContainsFunc(o.Setup, func(c command) bool { return slices.Contains(c.Argv, haproxyGroup) })
			if want := slices.Contains(got, "haproxy"); ofHAProxy != want || inGroup != want {
				t.Errorf("configuration of HAProxy %t, user in its group %t; want %t", ofHAProxy, inGroup, want)
			}
		})
	}
}

func TestFrontsAreWhereTheProxiesRun(t *testing.T) {
	plain, none := twoHosts(), twoHosts()
	none.config.Proxy = NoProxy
	for want, l := range map[string]*Lab{"[h1 h2]": plain, "[lb1 lb2]": balanced(HAProxy), "[]": none} {
		if got := fmt.Sprint(l.Fronts()); got != want {
			t.Errorf("fronts are %s, want %s", got, want)
		}
	}
}

func TestPasswordsAreOnNoCommandLine(t *testing.T) {
	l := twoHosts()
	l.config.SudoPassword = "secret"
	for _, c := range l.hostOrder(l.Host(1), "key").Setup {
		if strings.Contains(strings.Join(c.Argv, " "), "secret") {
			t.Errorf("a password on a command line: %q", c.Argv)
		}
	}
}

func TestControlGroupsOfEveryKindOfMachine(t *testing.T) {
	const root = "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
	tests := []struct {
		name, mounts string
		want         []cgroupFS
	}{
		{
			"version 1, one controller a hierarchy",
			"32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n" +
				"40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
			[]cgroupFS{{"cpu", "cpu"}, {"systemd", "none,name=systemd"}},
		},
		{
			"version 1 of systemd",
			"30 26 0:27 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd\n" +
				"33 26 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:14 - cgroup cgroup rw,cpu,cpuacct\n" +
				"34 26 0:31 / /sys/fs/cgroup/cpuset rw shared:15 - cgroup cgroup rw,cpuset,clone_children\n",
			[]cgroupFS{{"systemd", "none,name=systemd"}, {"cpu,cpuacct", "cpu,cpuacct"}, {"cpuset", "cpuset"}},
		},
		{
			"version 2",
			"29 22 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			[]cgroupFS{{}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := parseCgroups(strings.NewReader(root + tt.mounts))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, c.mounts()); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := parseCgroups(strings.NewReader(root)); err == nil {
		t.Error("a machine without control groups is fit for a lab")
	}
}

func TestNetworkIsOneThatTheMachineDoesNotUse(t *testing.T) {
	used := []netip.Prefix{
		netip.MustParsePrefix("10.46.1.0/24"), netip.MustParsePrefix("10.46.2.128/25"),
		netip.MustParsePrefix("192.168.0.0/16"),
	}
	free := candidates(netip.Prefix{}, used)
	if got, want := free[0], netip.MustParsePrefix("10.46.3.0/24"); got != want || len(free) != 248 {
		t.Errorf("%d networks beginning with %s, want 248 from %s", len(free), got, want)
	}
	if none := candidates(netip.Prefix{}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); len(none) != 0 {
		t.Errorf("%v are free in a network that is used as a whole", none)
	}
	asked := netip.MustParsePrefix("10.46.1.7/24")
	if got := candidates(asked, used); len(got) != 1 || got[0].String() != "10.46.1.0/24" {
		t.Errorf("asked for %s, got %v", asked, got)
	}
}

func TestInitLeavesOrdinaryProgramsAlone(t *testing.T) {
	for _, args := range [][]string{nil, {"up"}, {argJoin}, {argBoot}, {argBoot, "x"}} {
		if Init(args) {
			t.Errorf("Init(%q) took the program over, though it is not process 1", args)
		}
	}
}

func TestProcessIsKnownByItsStartTime(t *testing.T) {
	s, err := statIn("/proc", 1)
	if err != nil {
		t.Fatal(err)
	}
	began := s.began
	if p := (&process{PID: 1, Start: began}); !p.alive() {
		t.Error("process 1 of the machine is not alive")
	}
	other := &process{PID: 1, Start: began + 1}
	if other.alive() {
		t.Error("a process that began at another time is taken for the one")
	}
	if err := other.kill(t.Context()); err != nil {
		t.Errorf("the end of a process that is gone: %v", err)
	}
	if (*process)(nil).alive() || (&process{}).alive() {
		t.Error("no process is alive")
	}
}

func TestTailKeepsTheLastLines(t *testing.T) {
	if got, want := tail([]byte("1\n2\n3\n4\n5\n6\n7\n")), "3 | 4 | 5 | 6 | 7"; got != want {
		t.Errorf("tail = %q, want %q", got, want)
	}
	if got := tail(nil); got != "" {
		t.Errorf("tail of nothing = %q", got)
	}
}
