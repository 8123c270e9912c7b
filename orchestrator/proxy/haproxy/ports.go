package haproxy

import (
	"slices"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/ports"
)

// ephemeralPorts returns the ports of l on this host that an outgoing
// connection may take.
func (s survey) ephemeralPorts(l proxy.Layout) []uint16 {
	addrs := ports.Binds(l)
	for _, m := range l.Members {
		addrs = slices.Concat(addrs, m.Blue, m.Green)
	}
	return s.ports.Borrowed(addrs)
}
