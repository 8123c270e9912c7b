package nginx

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
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

// portPattern matches the ports that nginx shall listen on, as /proc/net/tcp
// writes them.
func portPattern(l proxy.Layout) string {
	var ports []string
	for _, a := range wanted(l) {
		ports = append(ports, fmt.Sprintf("%04X", a.Port()))
	}
	return strings.Join(ports, "|")
}

// parseSockets reads lines of /proc/net/tcp and tcp6, those that listen and
// those that are connected. The others keep nobody from listening for long.
func parseSockets(text string) []socket {
	const established, connecting, listening = "01", "02", "0A"
	var found []socket
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || !slices.Contains([]string{established, connecting, listening}, f[3]) {
			continue
		}
		if addr, err := parseHexAddr(f[1]); err == nil {
			found = append(found, socket{addr: addr, listen: f[3] == listening, inode: f[9]})
		}
	}
	return found
}

// parseHexAddr reads an address as the kernel prints it: words of 32 bit in
// the order of the machine, which is little-endian on all that teal meets.
func parseHexAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("address %q", s)
	}
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.LittleEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil || !ok {
		return netip.AddrPort{}, fmt.Errorf("address %q", s)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), nil
}

// wanted returns the addresses that nginx shall listen on.
func wanted(l proxy.Layout) []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, m := range l.Members {
		addrs = append(addrs, m.Stable)
	}
	if l.Site != nil {
		addrs = append(addrs, l.Site.Listen...)
	}
	return addrs
}

// occupied reports a port that nginx is to listen on and something else holds.
// nginx itself finds that out only after it has accepted a reload.
func (s survey) occupied(l proxy.Layout) error {
	for _, w := range wanted(l) {
		for _, have := range s.ports {
			switch {
			case have.addr.Port() != w.Port() || !overlap(have.addr.Addr(), w.Addr()) || slices.Contains(s.sockets, have.inode):
			case have.listen:
				return fmt.Errorf("another program listens on %s, where nginx shall listen on %s: stop it or choose another port (ss -ltnp names it)", have.addr, w)
			case !s.listened(w.Port()):
				return fmt.Errorf("an outgoing connection holds %s, where nginx shall listen: try again, or choose a port outside of the range %s",
					have.addr, strings.Join(strings.Fields(s.ephemeral), " to "))
			}
		}
	}
	return nil
}

// listened reports whether any program listens on the port: connections from
// it were accepted, then, and keep nobody from listening.
func (s survey) listened(port uint16) bool {
	return slices.ContainsFunc(s.ports, func(have socket) bool { return have.listen && have.addr.Port() == port })
}

// overlap reports whether listening on a keeps another program from listening
// on b.
func overlap(a, b netip.Addr) bool {
	return a == b || a.IsUnspecified() && (a.Is6() || b.Is4()) || b.IsUnspecified() && (b.Is4() == a.Is4())
}

// ephemeralPorts returns the ports of l on this host that an outgoing
// connection may take.
func (s survey) ephemeralPorts(l proxy.Layout) []uint16 {
	var low, high uint16
	if _, err := fmt.Sscan(s.ephemeral, &low, &high); err != nil {
		return nil
	}
	var addrs []netip.AddrPort
	for _, m := range l.Members {
		addrs = slices.Concat(addrs, []netip.AddrPort{m.Stable}, m.Blue, m.Green)
	}
	var ports []uint16
	for _, a := range addrs {
		if p := a.Port(); a.Addr().IsLoopback() && low <= p && p <= high && !isReserved(s.reserved, p) {
			ports = append(ports, p)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// isReserved reports whether a list such as 8080,9000-9100 has the port.
func isReserved(list string, port uint16) bool {
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		low, err1 := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		if errors.Join(err1, err2) == nil && low <= int(port) && int(port) <= high {
			return true
		}
	}
	return false
}
