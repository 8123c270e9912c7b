// Package ports reads which TCP ports of a host are taken, for the proxies: each
// finds out only in the middle of a reload, or after it, that it cannot listen.
//
// The boundary: it knows the text of /proc/net/tcp and of two settings of the
// kernel. Which command brings them over is the caller's.
package ports

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// Binds returns where a proxy shall listen.
func Binds(l proxy.Layout) []netip.AddrPort {
	var all []netip.AddrPort
	for _, m := range l.Members {
		all = append(all, m.Stable)
	}
	if l.Site != nil {
		all = append(all, l.Site.Listen...)
	}
	return all
}

// Pattern matches the ports of Binds as /proc/net/tcp writes them: a regular
// expression of alternatives in hexadecimal.
func Pattern(l proxy.Layout) string {
	var ports []string
	for _, a := range Binds(l) {
		ports = append(ports, fmt.Sprintf("%04X", a.Port()))
	}
	return strings.Join(ports, "|")
}

// A Socket is a line of /proc/net/tcp.
type Socket struct {
	Addr   netip.AddrPort // local
	Listen bool           // else it is connected
	Inode  string
}

// Parse reads lines of /proc/net/tcp and tcp6: those that listen, and
// connections that are open or being opened. The rest keeps nobody from
// listening for long.
func Parse(text string) []Socket {
	var found []Socket
	for line := range strings.Lines(text) {
		const address, state, inode = 1, 3, 9
		f := strings.Fields(line)
		if len(f) <= inode || f[state] != "0A" && f[state] != "01" && f[state] != "02" {
			continue
		}
		if addr, ok := parseHex(f[address]); ok {
			found = append(found, Socket{Addr: addr, Listen: f[state] == "0A", Inode: f[inode]})
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

// Taken is what a host says of its ports.
type Taken struct {
	Sockets   []Socket
	Own       []string // inodes of the proxy's own sockets
	Ephemeral string   // net.ipv4.ip_local_port_range: two numbers
	Reserved  string   // net.ipv4.ip_local_reserved_ports
}

// Occupied returns an error that names the address in Binds at which something
// other than the program already is, and nil when there is none.
func (t Taken) Occupied(program string, l proxy.Layout) error {
	for _, want := range Binds(l) {
		// Connections from a port at which somebody listens were accepted, and
		// keep nobody from listening.
		listened := slices.ContainsFunc(t.Sockets, func(k Socket) bool { return k.Listen && k.Addr.Port() == want.Port() })
		for _, k := range t.Sockets {
			switch {
			case k.Addr.Port() != want.Port() || !Overlap(k.Addr.Addr(), want.Addr()) || slices.Contains(t.Own, k.Inode):
			case k.Listen:
				return fmt.Errorf("another program listens on %s, where %s shall listen on %s: stop it or choose another port (ss -ltnp names it)", k.Addr, program, want)
			case !listened:
				return fmt.Errorf("an outgoing connection holds %s, where %s shall listen: try again, or choose a port outside of the range %s",
					k.Addr, program, strings.Join(strings.Fields(t.Ephemeral), " to "))
			}
		}
	}
	return nil
}

// Overlap reports whether listening on one address is in the way of listening
// on the other.
func Overlap(have, want netip.Addr) bool {
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

// Borrowed returns those ports of the addresses on this host that an outgoing
// connection may take at any time, sorted.
func (t Taken) Borrowed(addrs []netip.AddrPort) []uint16 {
	var low, high uint16
	if _, err := fmt.Sscan(t.Ephemeral, &low, &high); err != nil {
		return nil
	}
	var ports []uint16
	for _, a := range addrs {
		here := a.Addr().IsLoopback() || a.Addr().IsUnspecified()
		if p := a.Port(); here && low <= p && p <= high && !listed(t.Reserved, p) {
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
