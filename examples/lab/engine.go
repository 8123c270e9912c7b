//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// engineRequirements returns what a host with an engine needs.
func engineRequirements(engine string) []requirement {
	switch engine {
	case Docker:
		return []requirement{
			{"dockerd", "docker.io"},
			{"docker", "docker.io"},
			{"iptables", "iptables"},
			{"busybox", "busybox-static"},
		}
	case Podman, RootlessPodman:
		return []requirement{
			{"podman", "podman"},
			{"runc", "runc"},
			{"iptables", "iptables"},
			{"newuidmap", "uidmap"},
			{"slirp4netns", "slirp4netns"},
			{"setpriv", "util-linux"},
		}
	}
	return nil
}

// addEngine adds a container engine to a host's order. It takes images from
// the registry without TLS.
func (o *order) addEngine(engine string, registry netip.AddrPort) {
	switch engine {
	case Docker:
		o.Files = append(o.Files, file{Path: "/etc/docker/daemon.json", Text: dockerConfig(registry)})
		o.Services = append(o.Services, service{
			Name:    "dockerd",
			Argv:    []string{"/usr/sbin/dockerd", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--log-level", "warn"},
			Restart: true,
		})
	case Podman, RootlessPodman:
		o.Files = append(
			o.Files,
			file{Path: "/etc/subuid", Text: subordinates},
			file{Path: "/etc/subgid", Text: subordinates},
			file{Path: "/etc/containers/containers.conf", Text: podmanConfig},
			file{Path: "/etc/containers/policy.json", Text: `{"default": [{"type": "insecureAcceptAnything"}]}` + "\n"},
			file{Path: "/etc/containers/registries.conf", Text: fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", registry)},
		)
		o.Boot = append(o.Boot, command{Argv: []string{"sh", "-c", podmanBoot, "lab", loginUser}})
		user := ""
		if engine == RootlessPodman {
			user = loginUser
		}
		o.Services = append(o.Services, service{Name: "podman-restart", Argv: []string{"sh", "-c", podmanRestart, "lab", user}})
	}
}

func dockerConfig(registry netip.AddrPort) string {
	b, _ := json.MarshalIndent(map[string]any{"insecure-registries": []string{registry.String()}}, "", "  ") // cannot fail: text only
	return string(b) + "\n"
}

// subordinates are the numbers that the login user's containers have for their
// users.
const subordinates = loginUser + ":100000:65536\n"

// podmanConfig has Podman do without systemd. The limits are below those that
// rootless containers may have on any machine.
const podmanConfig = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
`

// podmanBoot is what systemd does on a host before anybody can log in. It comes
// before the first Podman of the user $1: that one keeps a view of the mounts
// as they are then. Which addresses are given away is forgotten with the power.
// A user may have a /proc in his containers only where the host has one that
// nothing is mounted over, and over /proc there is the host's boot id.
const podmanBoot = `set -e
mkdir /dev/net
mknod -m 666 /dev/net/tun c 10 200
mkdir -p /var/lib/cni
mount -t tmpfs -o mode=755 tmpfs /var/lib/cni
install -d -m 755 /run/user
install -d -m 700 -o "$1" -g "$1" "/run/user/$(id -u "$1")"
mkdir /run/proc
mount -t proc proc /run/proc
mount --make-rshared /`

// podmanRestart is podman-restart.service for the user $1, root when empty.
const podmanRestart = `home=/root
if [ -n "$1" ]; then
	home=/home/$1
	export XDG_RUNTIME_DIR="/run/user/$(id -u "$1")"
	become="setpriv --reuid $1 --regid $1 --init-groups"
fi
HOME=$home exec ${become:-} podman start --all --filter restart-policy=always`
