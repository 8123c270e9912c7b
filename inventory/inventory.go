// Package inventory answers where: the hosts of a file, their groups,
// variables and SSH settings, and the patterns that select among them.
//
// An inventory is a TOML file, or hosts named on the command line. Everything
// in it is checked when it is read, with the line and the column of what is
// wrong, so that nothing that connects has to doubt a name, an address or a
// port: they hold no space, no control character, nothing that a shell would
// interpret, and do not begin with a dash. Values of variables are free text.
//
// The package connects to nothing and knows no app.
package inventory

import (
	"fmt"
	"maps"
	"os"
	"slices"
)

// A Host is one server as the inventory describes it, with everything that
// groups and defaults add already merged in.
type Host struct {
	Name    string            // as written, ranges expanded; unique
	Address string            // what to connect to; Name when nothing else is said
	Groups  []string          // all groups that hold it, also through children, sorted
	Vars    map[string]string // values as text
	SSH     SSH
}

func (h Host) clone() Host {
	h.Groups = slices.Clone(h.Groups)
	h.Vars = maps.Clone(h.Vars)
	h.SSH.Identity = slices.Clone(h.SSH.Identity)
	h.SSH.KnownHosts = slices.Clone(h.SSH.KnownHosts)
	return h
}

// SSH says how a host is reached. A zero value leaves the answer to the
// user's OpenSSH configuration.
type SSH struct {
	User       string
	Port       uint16
	Identity   []string // private key files, ~ not expanded
	Jump       string   // a comma-separated chain, as ProxyJump; "none" for no jump
	Become     string   // "sudo" or ""
	KnownHosts []string // files, ~ not expanded
	HostKeys   string   // "" or "strict", or "accept-new"
}

// A Group is a named set of hosts.
type Group struct {
	Name     string
	Hosts    []string // names, also those of children, in the order of the inventory
	Children []string // names of the groups directly below, as written
}

// An Inventory is a set of hosts in a fixed order. It does not change.
type Inventory struct {
	hosts  []Host
	groups []Group
}

// Load reads the inventory file at path. When the file is wrong the error is
// a tomlfile.Problems with everything that is.
func Load(path string) (*Inventory, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read inventory: %w", err)
	}
	return Parse(path, src)
}

// Hosts returns all hosts in the order of the inventory: as they are first
// named in the file.
func (inv *Inventory) Hosts() []Host {
	out := make([]Host, len(inv.hosts))
	for i, h := range inv.hosts {
		out[i] = h.clone()
	}
	return out
}

// Groups returns all groups in the order of the inventory.
func (inv *Inventory) Groups() []Group {
	out := make([]Group, len(inv.groups))
	for i, g := range inv.groups {
		out[i] = Group{g.Name, slices.Clone(g.Hosts), slices.Clone(g.Children)}
	}
	return out
}
