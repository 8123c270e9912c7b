package inventory

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// Select returns the hosts that a pattern stands for, in the order of the
// inventory, each once. Patterns are those of Ansible:
//
//	web            a group or a host
//	all, *         every host
//	web*           names with wildcards: *, ? and [abc]
//	~web\d+        names that begin as a regular expression says
//	web[0] web[-1] the first, the last host of a group
//	web[0:4]       the first five hosts, web[5:] those behind them
//	web:lb web,lb  both
//	web:&eu        those of web that are also in eu
//	web:!web03     those of web without web03
//
// First all that is wanted is put together, then what & asks for is kept,
// then what ! excludes is taken out, in whatever order they are written.
// With limits, the hosts must be selected by each of these patterns as well.
//
// It is an error when a part of a pattern matches nothing, or when no host is
// left. An excluded name that matches nothing is an error as well: it would
// deploy to the host that was meant.
func (inv *Inventory) Select(pattern string, limits ...string) ([]Host, error) {
	chosen, err := inv.evaluate(pattern)
	if err != nil {
		return nil, err
	}
	for _, limit := range limits {
		also, err := inv.evaluate(limit)
		if err != nil {
			return nil, err
		}
		chosen.keep(also)
	}
	var out []Host
	for _, h := range inv.hosts {
		if chosen[h.Name] {
			out = append(out, h.clone())
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("pattern %q: no host is left of %d", strings.Join(append([]string{pattern}, limits...), " and "), len(inv.hosts))
	}
	return out, nil
}

// A set holds names of hosts.
type set map[string]bool

func (s set) keep(other set) {
	maps.DeleteFunc(s, func(name string, _ bool) bool { return !other[name] })
}

func (s set) remove(other set) {
	maps.DeleteFunc(s, func(name string, _ bool) bool { return other[name] })
}

// evaluate returns the hosts that a pattern stands for.
func (inv *Inventory) evaluate(pattern string) (set, error) {
	parts := inv.splitPattern(pattern)
	if len(parts) == 0 {
		return nil, fmt.Errorf("pattern %q is empty: write all for every host", pattern)
	}
	var wanted, only, without []set
	for _, part := range parts {
		list, name := &wanted, part
		switch part[0] {
		case '!':
			list, name = &without, part[1:]
		case '&':
			list, name = &only, part[1:]
		}
		hosts, err := inv.part(name)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		*list = append(*list, hosts)
	}
	chosen := set{}
	if len(wanted) == 0 {
		for _, h := range inv.hosts {
			chosen[h.Name] = true
		}
	}
	for _, hosts := range wanted {
		maps.Copy(chosen, hosts)
	}
	for _, hosts := range only {
		chosen.keep(hosts)
	}
	for _, hosts := range without {
		chosen.remove(hosts)
	}
	return chosen, nil
}

// splitPattern takes a pattern apart at colons and commas outside brackets of
// any kind. The name of a host, which may be an IPv6 address, stays whole.
func (inv *Inventory) splitPattern(pattern string) []string {
	name := strings.TrimLeft(pattern, "!&")
	if slices.ContainsFunc(inv.hosts, func(h Host) bool { return h.Name == name }) {
		return []string{pattern}
	}
	var parts []string
	depth, start := 0, 0
	cut := func(end int) {
		if part := strings.TrimSpace(pattern[start:end]); part != "" {
			parts = append(parts, part)
		}
		start = end + 1
	}
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '[', '(', '{':
			depth++
		case ']', ')', '}':
			depth = max(0, depth-1)
		case ':', ',':
			if depth == 0 {
				cut(i)
			}
		}
	}
	cut(len(pattern))
	return parts
}

// part returns the hosts of one part of a pattern, without its sign.
func (inv *Inventory) part(part string) (set, error) {
	base, sub, err := cutSubscript(part)
	if err != nil {
		return nil, err
	}
	names, err := inv.named(base)
	if err != nil {
		return nil, err
	}
	if sub != nil {
		if names, err = sub.of(base, names); err != nil {
			return nil, err
		}
	}
	hosts := make(set, len(names))
	for _, name := range names {
		hosts[name] = true
	}
	return hosts, nil
}

// named returns the hosts that a name, a wildcard or an expression stands
// for, in the order of the inventory.
func (inv *Inventory) named(base string) ([]string, error) {
	match, wild, err := matcher(base)
	if err != nil {
		return nil, err
	}
	hosts := set{}
	found := false
	for _, g := range inv.groups {
		if match(g.Name) {
			found = true
			for _, name := range g.Hosts {
				hosts[name] = true
			}
		}
	}
	if wild || !found {
		for _, h := range inv.hosts {
			if base == "all" || match(h.Name) {
				found = true
				hosts[h.Name] = true
			}
		}
	}
	if !found && base != "all" {
		return nil, inv.unmatched(base, wild)
	}
	var out []string
	for _, h := range inv.hosts {
		if hosts[h.Name] {
			out = append(out, h.Name)
		}
	}
	return out, nil
}

func (inv *Inventory) unmatched(base string, wild bool) error {
	if wild {
		return fmt.Errorf("no host or group matches %q", base)
	}
	known := make([]string, 0, len(inv.groups)+len(inv.hosts)+1)
	for _, g := range inv.groups {
		known = append(known, g.Name)
	}
	for _, h := range inv.hosts {
		known = append(known, h.Name)
	}
	message := fmt.Sprintf("no host or group is named %q", base)
	if hint := tomlfile.DidYouMean(base, append(known, "all")); hint != "" {
		message += ": " + hint
	}
	return errors.New(message)
}

// matcher returns the test of names for a part of a pattern, and whether it
// may match several.
func matcher(base string) (match func(string) bool, wild bool, err error) {
	if expression, ok := strings.CutPrefix(base, "~"); ok {
		re, err := regexp.Compile("^(?:" + expression + ")")
		if err != nil {
			return nil, false, fmt.Errorf("%q is not a regular expression: %w", expression, err)
		}
		return re.MatchString, true, nil
	}
	if !strings.ContainsAny(base, "*?[") {
		return func(name string) bool { return name == base }, false, nil
	}
	glob := strings.ReplaceAll(base, "[!", "[^")
	if _, err := path.Match(glob, ""); err != nil {
		return nil, false, fmt.Errorf("%q is not a wildcard: its brackets do not fit", base)
	}
	return func(name string) bool {
		ok, _ := path.Match(glob, name)
		return ok
	}, true, nil
}

// A subscript takes some hosts out of a list: [2], [-1], [0:4], [5:].
type subscript struct {
	first, last int // last included; negative counts from the end
	single      bool
}

var subscriptExpr = regexp.MustCompile(`^(.+)\[(?:(-?[0-9]{1,9})|([0-9]{1,9})[:-](-?[0-9]{0,9}))\]$`)

// cutSubscript splits "web[0:4]" into "web" and its subscript, nil when there
// is none. A regular expression has none.
func cutSubscript(part string) (string, *subscript, error) {
	m := subscriptExpr.FindStringSubmatch(part)
	if m == nil || part[0] == '~' {
		return part, nil, nil
	}
	if m[2] != "" {
		n, err := strconv.Atoi(m[2])
		return m[1], &subscript{first: n, last: n, single: true}, err
	}
	first, err := strconv.Atoi(m[3])
	if err != nil {
		return "", nil, err
	}
	sub := &subscript{first: first, last: -1}
	if m[4] != "" {
		if sub.last, err = strconv.Atoi(m[4]); err != nil {
			return "", nil, fmt.Errorf("%q: %q is not a number", part, m[4])
		}
	}
	return m[1], sub, nil
}

func (s *subscript) of(base string, names []string) ([]string, error) {
	first, last := s.first, s.last
	if first < 0 {
		first += len(names)
	}
	if last < 0 {
		last += len(names)
	}
	if first < 0 || first >= len(names) || last < first {
		return nil, fmt.Errorf("%q has %d hosts, counted from 0: there is none at the place asked for", base, len(names))
	}
	return names[first : min(last, len(names)-1)+1], nil
}
