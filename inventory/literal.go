package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Literal makes an inventory of a list of hosts with commas, such as
// "web1,deploy@web2:2222,db[1:3],". The hosts are in no group and have no
// variables; what an entry does not say is left to the OpenSSH configuration.
func Literal(list string) (*Inventory, error) {
	var entries []string
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			entries = append(entries, entry)
		}
	}
	return AdHoc(entries, SSH{})
}

// AdHoc makes an inventory of hosts that are written as [user@]host[:port],
// an IPv6 address with a port as [2001:db8::1]:22. A host may hold ranges.
// What an entry does not say is taken from defaults. A host that is named
// with several ports or users gets these into its name, as web1-2222.
func AdHoc(entries []string, defaults SSH) (*Inventory, error) {
	var targets []target
	var errs []error
	for _, entry := range entries {
		expanded, err := expandTarget(entry)
		if err != nil {
			errs = append(errs, fmt.Errorf("host %q: %w", entry, err))
		}
		targets = append(targets, expanded...)
	}
	switch {
	case len(errs) > 0:
		return nil, errors.Join(errs...)
	case len(targets) == 0:
		return nil, errors.New("the list of hosts is empty")
	case len(targets) > maxHosts:
		return nil, fmt.Errorf("the list names more than %d hosts", maxHosts)
	}
	inv := &Inventory{}
	seen := map[target]bool{}
	for i, name := range namesFor(targets) {
		if seen[targets[i]] {
			continue
		}
		seen[targets[i]] = true
		h := Host{Name: name, Address: targets[i].host, Vars: map[string]string{}, SSH: defaults}
		h.SSH.User = cmp.Or(targets[i].user, defaults.User)
		h.SSH.Port = cmp.Or(targets[i].port, defaults.Port)
		inv.hosts = append(inv.hosts, h.clone())
	}
	return inv, nil
}

func expandTarget(entry string) ([]target, error) {
	t, err := splitTarget(entry)
	if err != nil {
		return nil, err
	}
	names, err := expandRanges(t.host)
	if err != nil {
		return nil, err
	}
	out := make([]target, len(names))
	for i, name := range names {
		if err := checkHost("a host name or an address", name); err != nil {
			return nil, err
		}
		out[i] = target{user: t.user, host: name, port: t.port}
	}
	return out, nil
}

// namesFor returns a name for every target: its host, and as much more as
// tells it from the others.
func namesFor(targets []target) []string {
	different, ports := map[string]map[target]bool{}, map[string]map[uint16]bool{}
	for _, t := range targets {
		if ports[t.host] == nil {
			different[t.host], ports[t.host] = map[target]bool{}, map[uint16]bool{}
		}
		different[t.host][t] = true
		ports[t.host][t.port] = true
	}
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.host
		if len(ports[t.host]) > 1 && t.port != 0 {
			names[i] += "-" + strconv.Itoa(int(t.port))
		}
		if len(different[t.host]) > len(ports[t.host]) && t.user != "" {
			names[i] = t.user + "-" + names[i]
		}
	}
	return names
}
