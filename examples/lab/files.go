//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The users that the lab makes.
const (
	loginUser = "deploy" // on hosts
	gitUser   = "git"    // on the services host
)

// gitHome holds the repositories of the services host.
const gitHome = "/srv/git"

// registryPort is where the registry of the services host listens.
const registryPort = 5000

const sshdConfig = `# Written by the lab. What is not said is OpenSSH's default.
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
X11Forwarding no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
`

// addUser makes a user ($1) with a shell ($2), a home ($3) and the
// supplementary groups that follow. Nobody can log in with a password.
const addUser = `set -e
user=$1 shell=$2 home=$3
shift 3
getent passwd "$user" >/dev/null || useradd --user-group --no-log-init --no-create-home "$user"
mkdir -p "$home"
usermod --home "$home" --shell "$shell" --password '*' "$user"
for group; do
	getent group "$group" >/dev/null || groupadd "$group"
	usermod --append --groups "$group" "$user"
done
chown "$user:" "$home"`

// emptyDirs are folders of the machine that a host starts without.
func emptyDirs() []string {
	return []string{
		"/root", "/home", "/srv", "/mnt", "/etc/nginx/conf.d", "/etc/nginx/sites-enabled",
		"/etc/ssh/sshd_config.d", "/etc/sudoers.d", "/etc/update-motd.d", "/var/log", "/var/log/nginx", "/var/cache", "/var/tmp",
	}
}

// absentPaths are what a host must not inherit from a machine that is itself
// deployed to or runs an engine.
func absentPaths() []string {
	return []string{"/var/lib/teal", "/var/lib/docker-registry", "/etc/docker"}
}

// commonFiles are on every host: who it is, who may log in, whom it knows.
func (l *Lab) commonFiles(h *Host, hostKey string) []file {
	return []file{
		{Path: "/etc/hostname", Text: h.Name + "\n"},
		{Path: "/etc/machine-id", Text: strings.ReplaceAll(newUUID(), "-", "") + "\n", Mode: 0o444},
		{Path: "/etc/hosts", Text: hostsFile(h.Name, l.all())},
		{Path: "/etc/resolv.conf", Text: "# No name server: a lab knows the names in /etc/hosts.\n"},
		{Path: "/etc/ssh/sshd_config", Text: sshdConfig},
		{Path: "/etc/ssh/ssh_host_ed25519_key", Mode: 0o600, Text: hostKey},
		{Path: "/etc/ssh/ssh_known_hosts", Text: l.knownHosts},
		{Path: "/root/.ssh/authorized_keys", Mode: 0o600, Text: l.publicKey},
		{Path: "/root/.bashrc", Text: ""},
	}
}

// order is what a host is made of.
func (l *Lab) order(h *Host, hostKey string) *order {
	if h == l.services {
		return l.servicesOrder(h, hostKey)
	}
	return l.hostOrder(h, hostKey)
}

// hostOrder is what an ordinary host or a load balancer is made of.
func (l *Lab) hostOrder(h *Host, hostKey string) *order {
	home := "/home/" + loginUser
	user := command{Argv: []string{"sh", "-c", addUser, "lab", loginUser, "/bin/bash", home, "docker"}}
	if h.proxy() == HAProxy {
		user.Argv = append(user.Argv, haproxyGroup)
	}
	o := &order{
		Setup: []command{
			user,
			{Argv: []string{"install", "-d", "-m", "0700", "-o", loginUser, "-g", loginUser, home + "/.ssh"}},
		},
		Files: append(
			l.commonFiles(h, hostKey),
			file{Path: home + "/.ssh/authorized_keys", Mode: 0o600, Owner: loginUser, Text: l.publicKey},
			file{Path: "/etc/sudoers.d/lab", Mode: 0o440, Text: sudoers(l.config.SudoPassword != "")},
		),
		Services: []service{
			{Name: "sshd", Argv: []string{"/usr/sbin/sshd", "-D", "-e"}, Restart: true},
		},
	}
	o.addProxy(h.proxy())
	if l.config.SudoPassword != "" {
		o.Setup = append(o.Setup, command{Argv: []string{"chpasswd"}, Stdin: loginUser + ":" + l.config.SudoPassword + "\n"})
	}
	o.addEngine(h.engine(), l.Registry())
	return o
}

// servicesOrder is what the services host is made of.
func (l *Lab) servicesOrder(h *Host, hostKey string) *order {
	o := &order{
		Setup: []command{
			{Argv: []string{"sh", "-c", addUser, "lab", gitUser, "/usr/bin/git-shell", gitHome}},
			{Argv: []string{"install", "-d", "-m", "0700", "-o", gitUser, "-g", gitUser, gitHome + "/.ssh"}},
		},
		Files: append(
			l.commonFiles(h, hostKey),
			file{Path: gitHome + "/.ssh/authorized_keys", Mode: 0o600, Owner: gitUser, Text: l.publicKey},
			file{Path: "/etc/lab/registry.yml", Text: registryConfig(l.Registry(), l.config.RegistryUser != "")},
		),
		Services: []service{
			{Name: "sshd", Argv: []string{"/usr/sbin/sshd", "-D", "-e"}, Restart: true},
			{Name: "registry", Argv: []string{"/usr/bin/docker-registry", "serve", "/etc/lab/registry.yml"}, Restart: true},
		},
	}
	if l.config.RegistryUser != "" {
		o.Setup = append(o.Setup, command{
			Argv:  []string{"sh", "-c", `mkdir -p /etc/lab && htpasswd -n -i -B -C 4 "$1" >/etc/lab/htpasswd`, "lab", l.config.RegistryUser},
			Stdin: l.config.RegistryPassword + "\n",
		})
	}
	return o
}

func sudoers(password bool) string {
	if password {
		return loginUser + " ALL=(ALL:ALL) ALL\n"
	}
	return loginUser + " ALL=(ALL:ALL) NOPASSWD: ALL\n"
}

// hostsFile names all hosts; a host's own name is its loopback, as Debian
// writes it.
func hostsFile(name string, hosts []*Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost\n127.0.1.1\t%s\n", name)
	for _, h := range hosts {
		if h.Name != name {
			fmt.Fprintf(&b, "%s\t%s\n", h.Addr, h.Name)
		}
	}
	return b.String()
}

func registryConfig(addr netip.AddrPort, auth bool) string {
	text := "version: 0.1\n" +
		"log:\n  level: warn\n" +
		"storage:\n  filesystem:\n    rootdirectory: /var/lib/docker-registry\n  delete:\n    enabled: true\n" +
		"http:\n  addr: " + addr.String() + "\n"
	if auth {
		text += "auth:\n  htpasswd:\n    realm: lab\n    path: /etc/lab/htpasswd\n"
	}
	return text
}

// knownHosts is a known_hosts file of all hosts, by address and by name.
func knownHosts(hosts []*Host, publicKeys map[string]string) string {
	var b strings.Builder
	for _, h := range hosts {
		key := strings.Fields(publicKeys[h.Name])
		fmt.Fprintf(&b, "%s,%s %s %s\n", h.Addr, h.Name, key[0], key[1])
	}
	return b.String()
}

// inventoryFile is an inventory of the hosts, as teal reads it: the group web
// and, when there are load balancers, the group lb.
func inventoryFile(dir string, hosts, balancers []*Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[ssh]\nuser = %q\nidentity = [%q]\nknown_hosts = [%q]\nbecome = \"sudo\"\n",
		loginUser, filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts"))
	fmt.Fprintf(&b, "\n[groups.web]\nhosts = [%s]\n", quotedNames(hosts))
	if len(balancers) > 0 {
		fmt.Fprintf(&b, "\n[groups.lb]\nhosts = [%s]\n", quotedNames(balancers))
	}
	for _, h := range slices.Concat(hosts, balancers) {
		fmt.Fprintf(&b, "\n[hosts.%s]\naddress = %q\n", h.Name, h.Addr)
		if h.engine() == Podman {
			b.WriteString("ssh = { user = \"root\" }\n")
		}
	}
	return b.String()
}

func quotedNames(hosts []*Host) string {
	names := make([]string, 0, len(hosts))
	for _, h := range hosts {
		names = append(names, strconv.Quote(h.Name))
	}
	return strings.Join(names, ", ")
}

// sshConfig is a configuration for the ssh program: ssh -F DIR/ssh_config h1.
func sshConfig(dir string, hosts []*Host, services *Host) string {
	var b strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&b, "Host %s %s\n  HostName %s\n  User %s\n", h.Name, h.Addr, h.Addr, loginUser)
	}
	if services != nil {
		fmt.Fprintf(&b, "Host %s %s\n  HostName %s\n  User %s\n", services.Name, services.Addr, services.Addr, gitUser)
	}
	fmt.Fprintf(&b, "Host *\n  IdentityFile %q\n  IdentitiesOnly yes\n  UserKnownHostsFile %q\n"+
		"  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 5\n  LogLevel ERROR\n",
		filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts"))
	return b.String()
}
