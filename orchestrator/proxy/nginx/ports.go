package nginx

import (
	"net/netip"
	"slices"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

// ephemeralPorts returns the ports of l on this host that an outgoing
// connection may take.
func (s survey) ephemeralPorts(l proxy.Layout) []uint16 {
	var addrs []netip.AddrPort
	for _, m := range l.Members {
		addrs = slices.Concat(addrs, []netip.AddrPort{m.Stable}, m.Blue, m.Green)
	}
	return s.taken.Borrowed(addrs)
}
