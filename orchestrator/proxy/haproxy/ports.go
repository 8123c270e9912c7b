package haproxy

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// A socket is a line of /proc/net/tcp.
type socket struct {
	addr   netip.AddrPort
	listen bool
	inode  string
}

// binds returns where haproxy shall listen.
func binds(l proxy.Layout) []netip.AddrPort {
	var all []netip.AddrPort
	for _, m := range l.Members {
		all = append(all, m.Stable)
	}
	if l.Site != nil {
		all = append(all, l.Site.Listen...)
	}
	return all
}

// portPattern matches the ports of binds as /proc/net/tcp writes them.
func portPattern(l proxy.Layout) string {
	var ports []string
	for _, a := range binds(l) {
		ports = append(ports, fmt.Sprintf("%04X", a.Port()))
	}
	return strings.Join(ports, "|")
}

// parseSockets reads lines of /proc/net/tcp and tcp6: those that listen, and
// connections that are open or being opened. The rest keeps nobody from
// listening for long.
func parseSockets(text string) []socket {
	var found []socket
	for line := range strings.Lines(text) {
		const address, state, inode = 1, 3, 9
		f := strings.Fields(line)
		if len(f) <= inode || f[state] != "0A" && f[state] != "01" && f[state] != "02" {
			continue
		}
		if addr, ok := parseHex(f[address]); ok {
			found = append(found, socket{addr: addr, listen: f[state] == "0A", inode: f[inode]})
		}
	}
	return found
}

// parseHex reads an address as the kernel prints it: words of 32 bits in the
// order of the machine, which is little-endian on all that teal meets.
func parseHex(s string) (netip.AddrPort, bool) {
	text, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), ok && err == nil
}

// occupied reports an address where haproxy shall listen and something else
// is. haproxy itself would find that out in the middle of a reload, and refuse
// all connections of all apps while it tries again.
func (s survey) occupied(l proxy.Layout) error {
	for _, want := range binds(l) {
		listened := slices.ContainsFunc(s.ports, func(k socket) bool { return k.listen && k.addr.Port() == want.Port() })
		for _, k := range s.ports {
			switch {
			case k.addr.Port() != want.Port() || !overlap(k.addr.Addr(), want.Addr()) || slices.Contains(s.inodes, k.inode):
			case k.listen:
				return fmt.Errorf("another program listens on %s, where haproxy shall listen on %s: stop it or choose another port (ss -ltnp names it)", k.addr, want)
			case !listened:
				return fmt.Errorf("an outgoing connection holds %s, where haproxy shall listen: try again, or choose a port outside of the range %s", k.addr, s.ephemeral)
			}
		}
	}
	return nil
}

// overlap reports whether listening on one address is in the way of listening
// on the other.
func overlap(have, want netip.Addr) bool {
	switch {
	case have == want:
		return true
	case have.IsUnspecified():
		return have.Is6() || want.Is4()
	case want.IsUnspecified():
		return have.Is4() == want.Is4()
	}
	return false
}

// ephemeralPorts returns the ports of l on this host that an outgoing
// connection may take.
func (s survey) ephemeralPorts(l proxy.Layout) []uint16 {
	var low, high uint16
	if _, err := fmt.Sscanf(s.ephemeral, "%d to %d", &low, &high); err != nil {
		return nil
	}
	addrs := binds(l)
	for _, m := range l.Members {
		addrs = slices.Concat(addrs, m.Blue, m.Green)
	}
	var ports []uint16
	for _, a := range addrs {
		here := a.Addr().IsLoopback() || a.Addr().IsUnspecified()
		if p := a.Port(); here && low <= p && p <= high && !listed(s.reserved, p) {
			ports = append(ports, p)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// listed reports whether a list such as 8080,9000-9100 has the port.
func listed(list string, port uint16) bool {
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		low, errLow := strconv.Atoi(first)
		high, errHigh := strconv.Atoi(last)
		if errLow == nil && errHigh == nil && low <= int(port) && int(port) <= high {
			return true
		}
	}
	return false
}
