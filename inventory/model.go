package inventory

import (
	"cmp"
	"maps"
	"slices"
)

// A model is an inventory before groups are merged into hosts.
type model struct {
	top        layer
	groups     map[string]*group
	groupOrder []string
	hosts      map[string]*host
	hostOrder  []string
}

type group struct {
	layer    layer
	hosts    []string
	children []string
}

type host struct {
	described string // the key of the table that describes it, "" for none
	address   string
	layer     layer
}

// A layer is what one table says about the hosts it is for.
type layer struct {
	vars map[string]string
	ssh  sshTable
}

func (m *model) addGroup(name string) *group {
	g := &group{}
	m.groups[name] = g
	m.groupOrder = append(m.groupOrder, name)
	return g
}

func (m *model) addHost(name string) *host {
	if h, ok := m.hosts[name]; ok {
		return h
	}
	h := &host{}
	m.hosts[name] = h
	m.hostOrder = append(m.hostOrder, name)
	return h
}

// pathTo returns the groups on a way from one group down to another, both
// included, or nil when there is none.
func (m *model) pathTo(from, to string) []string {
	seen := map[string]bool{}
	var walk func(name string) []string
	walk = func(name string) []string {
		g, ok := m.groups[name]
		if !ok || seen[name] {
			return nil
		}
		if name == to {
			return []string{name}
		}
		seen[name] = true
		for _, child := range g.children {
			if path := walk(child); path != nil {
				return append([]string{name}, path...)
			}
		}
		return nil
	}
	return walk(from)
}

// inventory merges, for every host, what is said about it. Lowest comes what
// is said for all hosts, then groups, the further from the top the stronger
// and among equally far ones the later in the alphabet, then the host itself.
func (m *model) inventory() *Inventory {
	members := m.members()
	depths := m.depths()
	holding := map[string][]string{} // the groups of every host
	for _, name := range m.groupOrder {
		for h := range members[name] {
			holding[h] = append(holding[h], name)
		}
	}
	inv := &Inventory{}
	for _, name := range m.hostOrder {
		h := m.hosts[name]
		groups := slices.SortedFunc(slices.Values(holding[name]), func(a, b string) int {
			return cmp.Or(cmp.Compare(depths[a], depths[b]), cmp.Compare(a, b))
		})
		out := Host{Name: name, Address: cmp.Or(h.address, name), Vars: map[string]string{}}
		m.top.applyTo(&out)
		for _, g := range groups {
			m.groups[g].layer.applyTo(&out)
		}
		h.layer.applyTo(&out)
		out.Groups = slices.Sorted(slices.Values(groups))
		inv.hosts = append(inv.hosts, out)
	}
	for _, name := range m.groupOrder {
		g := Group{Name: name, Children: m.groups[name].children}
		for _, h := range m.hostOrder {
			if members[name][h] {
				g.Hosts = append(g.Hosts, h)
			}
		}
		inv.groups = append(inv.groups, g)
	}
	return inv
}

// members returns the hosts of every group, also those of its children.
func (m *model) members() map[string]set {
	out := map[string]set{}
	var of func(name string) set
	of = func(name string) set {
		if hosts, ok := out[name]; ok {
			return hosts
		}
		hosts := set{}
		out[name] = hosts
		for _, h := range m.groups[name].hosts {
			hosts[h] = true
		}
		for _, child := range m.groups[name].children {
			maps.Copy(hosts, of(child))
		}
		return hosts
	}
	for _, name := range m.groupOrder {
		of(name)
	}
	return out
}

// depths returns how far every group is from the top, on the longest way.
func (m *model) depths() map[string]int {
	parents := map[string][]string{}
	for _, name := range m.groupOrder {
		for _, child := range m.groups[name].children {
			parents[child] = append(parents[child], name)
		}
	}
	out := map[string]int{}
	var of func(name string) int
	of = func(name string) int {
		if d, ok := out[name]; ok {
			return d
		}
		d := 1
		for _, p := range parents[name] {
			d = max(d, of(p)+1)
		}
		out[name] = d
		return d
	}
	for _, name := range m.groupOrder {
		of(name)
	}
	return out
}

// applyTo puts what the layer says over what h has.
func (l layer) applyTo(h *Host) {
	maps.Copy(h.Vars, l.vars)
	put(&h.SSH.User, l.ssh.User)
	put(&h.SSH.Port, l.ssh.Port)
	put(&h.SSH.Identity, l.ssh.Identity)
	put(&h.SSH.Jump, l.ssh.Jump)
	put(&h.SSH.Become, l.ssh.Become)
	put(&h.SSH.KnownHosts, l.ssh.KnownHosts)
	put(&h.SSH.HostKeys, l.ssh.HostKeys)
}

// put replaces *to when there is a value.
func put[T any](to, value *T) {
	if value != nil {
		*to = *value
	}
}
