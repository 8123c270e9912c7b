package orchestrator

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
)

// The ports of apps lie below the ephemeral range: a port inside it can be
// taken by any outgoing connection at any time.
const (
	firstPort = 20000
	lastPort  = 29999
)

// choosePorts picks free ports for an app with so many replicas, beside those
// that it has. Where to look first follows from its name, so that hosts of one
// app mostly agree.
func choosePorts(app string, has record.Ports, replicas int, f record.Facts) (record.Ports, error) {
	if has.Stable != 0 && len(has.Blue) >= replicas && len(has.Green) >= replicas {
		return has, nil
	}
	next := freePorts(app, f, slices.Concat([]uint16{has.Stable}, has.Blue, has.Green))
	enough := true
	take := func() uint16 {
		port, ok := next()
		enough = enough && ok
		return port
	}
	p := record.Ports{Stable: has.Stable, Blue: slices.Clone(has.Blue), Green: slices.Clone(has.Green)}
	if p.Stable == 0 {
		p.Stable = take()
	}
	for len(p.Blue) < replicas {
		p.Blue = append(p.Blue, take())
	}
	for len(p.Green) < replicas {
		p.Green = append(p.Green, take())
	}
	if !enough {
		return has, noPorts(f)
	}
	return p, nil
}

// choosePort picks one free port for a member of a load balancer.
func choosePort(member string, f record.Facts, others []proxy.Member) (uint16, error) {
	var taken []uint16
	for _, m := range others {
		taken = append(taken, m.Stable.Port())
	}
	port, ok := freePorts(member, f, taken)()
	if !ok {
		return 0, noPorts(f)
	}
	return port, nil
}

func noPorts(f record.Facts) error {
	return fmt.Errorf("not enough free ports between %d and %d outside the ephemeral range %d to %d: "+
		"free some, or narrow net.ipv4.ip_local_port_range", firstPort, lastPort, f.EphemeralLow, f.EphemeralHigh)
}

// freePorts returns a function that returns another free port at each call.
func freePorts(name string, f record.Facts, more []uint16) func() (port uint16, ok bool) {
	taken := map[uint16]bool{}
	for _, ports := range append(slices.Collect(maps.Values(f.AppPorts)), f.Listening, more) {
		for _, p := range ports {
			taken[p] = true
		}
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name))
	const ports = lastPort - firstPort + 1
	at, looked := hash.Sum32()%ports, 0
	return func() (uint16, bool) {
		for ; looked < ports; looked++ {
			port := uint16(firstPort + at)
			at = (at + 1) % ports
			if !taken[port] && (port < f.EphemeralLow || f.EphemeralHigh < port) {
				taken[port] = true
				return port, true
			}
		}
		return 0, false
	}
}
