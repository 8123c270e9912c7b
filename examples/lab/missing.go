//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A requirement is a program that the lab uses and the Debian package that
// brings it.
type requirement struct {
	program, pkg string
}

// requirements returns what a configuration needs.
func requirements(c Config) []requirement {
	all := []requirement{
		{"ip", "iproute2"},
		{"nsenter", "util-linux"},
		{"ssh", "openssh-client"},
		{"ssh-agent", "openssh-client"},
		{"sshd", "openssh-server"},
		{"sudo", "sudo"},
		{"useradd", "passwd"},
	}
	switch c.Proxy {
	case "", Nginx:
		all = append(all, requirement{"nginx", "nginx-light"})
	case HAProxy:
		all = append(all, requirement{"haproxy", "haproxy"})
	}
	for _, engine := range append([]string{c.Engine}, c.Engines...) {
		all = append(all, engineRequirements(engine)...)
	}
	if c.Services {
		all = append(all, requirement{"git", "git"}, requirement{"docker-registry", "docker-registry"})
	}
	if c.RegistryUser != "" {
		all = append(all, requirement{"htpasswd", "apache2-utils"})
	}
	return all
}

// Missing says, in sentences for people, what this machine lacks for a lab of
// this configuration, with the remedy. Nothing is missing when it is empty.
func Missing(c Config) []string {
	var missing []string
	if os.Getuid() != 0 {
		missing = append(missing, "The lab makes namespaces and mounts: run it as root.")
	}
	var packages []string
	for _, r := range requirements(c) {
		if !installed(r.program) && !slices.Contains(packages, r.pkg) {
			packages = append(packages, r.pkg)
		}
	}
	if len(packages) > 0 {
		missing = append(missing, fmt.Sprintf(
			"The hosts run this machine's programs, and some are not installed: apt-get install --no-install-recommends %s",
			strings.Join(packages, " "),
		))
	}
	return missing
}

// installed looks for a program where root would, whoever asks.
func installed(program string) bool {
	if _, err := exec.LookPath(program); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/local/sbin/", "/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + program); err == nil {
			return true
		}
	}
	return false
}
