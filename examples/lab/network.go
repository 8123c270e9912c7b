//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Where things are in the lab's network of 256 addresses.
const (
	machineAddr   = 1
	servicesAddr  = 2
	firstHostAddr = 11
	maxHosts      = 200

	firstBalancerAddr = firstHostAddr + maxHosts
	maxBalancers      = 40
)

// addrAt returns the address with this last byte.
func addrAt(network netip.Prefix, last byte) netip.Addr {
	b := network.Addr().As4()
	b[3] = last
	return netip.AddrFrom4(b)
}

// candidates are the networks to try: the one asked for, or all of
// 10.46.0.0/16 that none of the machine's own addresses touches.
func candidates(asked netip.Prefix, used []netip.Prefix) []netip.Prefix {
	if asked.IsValid() {
		return []netip.Prefix{asked.Masked()}
	}
	var free []netip.Prefix
next:
	for third := range 250 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 46, byte(third + 1), 0}), 24)
		for _, u := range used {
			if u.Overlaps(p) {
				continue next
			}
		}
		free = append(free, p)
	}
	return free
}

// machineNetworks returns the networks that this machine has an address in.
func machineNetworks() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			all = append(all, p.Masked())
		}
	}
	return all, nil
}

// choosing holds the right to choose a network until the file is closed. It is
// a lock on the machine's own network, so that it is among all programs that
// can be in each other's way, and leaves nothing behind.
func choosing(ctx context.Context) (*os.File, error) {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock the choice of a network: %w", err), f.Close())
		}
		if !pause(ctx, 10*time.Millisecond) {
			return nil, errors.Join(fmt.Errorf("wait for others that choose a network: %w", context.Cause(ctx)), f.Close())
		}
	}
}

// connectHub links the machine to the hub and returns the link's name and the
// network it chose. The name holds the network's third byte. Labs choose one
// after the other, and each sees the addresses of those before.
func connectHub(ctx context.Context, hub int, prefix string, asked netip.Prefix) (string, netip.Prefix, error) {
	turn, err := choosing(ctx)
	if err != nil {
		return "", netip.Prefix{}, err
	}
	defer func() { _ = turn.Close() }()
	used, err := machineNetworks()
	if err != nil {
		return "", netip.Prefix{}, err
	}
	for _, p := range candidates(asked, used) {
		name := prefix + strconv.Itoa(int(p.Addr().As4()[2]))
		if _, err := net.InterfaceByName(name); err == nil {
			continue
		}
		// Not cut short, so that it is known whose link there is afterwards.
		err := ipBatch(context.WithoutCancel(ctx), 0, fmt.Sprintf("link add %s type veth peer name up0 netns %d", name, hub))
		if err != nil {
			if _, taken := net.InterfaceByName(name); taken == nil {
				continue
			}
			return "", netip.Prefix{}, err
		}
		err = errors.Join(
			ipBatch(
				ctx, 0,
				fmt.Sprintf("addr add %s/24 dev %s", addrAt(p, machineAddr), name),
				"link set "+name+" up",
			),
			ipBatch(
				ctx, hub,
				"link set lo up",
				"link add bridge0 type bridge",
				"link set bridge0 up",
				"link set up0 master bridge0 up",
			),
		)
		return name, p, err
	}
	return "", netip.Prefix{}, errors.New("choose a network: none is free, or the link of the one asked for exists: is another lab up?")
}

// disconnectHub takes the link away, if there is any. It is found by its end in
// the hub: its name on the machine may be that of another lab's by now. Without
// a hub the kernel takes it away by itself.
func disconnectHub(ctx context.Context, hub int) { _ = ipBatch(ctx, hub, "link del up0") }

// cable returns the name that the hub has for a host's end of the bridge.
func cable(addr netip.Addr) string { return "port" + strconv.Itoa(int(addr.As4()[3])) }

// plug connects a host that has just been started. Its hardware address
// depends on nothing but its address, so that neighbours need not learn a new
// one after a restart.
func plug(ctx context.Context, hub, host int, addr netip.Addr, cut bool) error {
	state := "up"
	if cut {
		state = "down"
	}
	port := cable(addr)
	// The cable of the host's former life may still be there.
	_ = ipBatch(ctx, hub, "link del "+port)
	b := addr.As4()
	err := ipBatch(
		ctx, hub,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %d", port, host),
		fmt.Sprintf("link set %s master bridge0 %s", port, state),
	)
	if err != nil {
		return err
	}
	return ipBatch(
		ctx, host,
		"link set lo up",
		fmt.Sprintf("link set eth0 address 02:7e:%02x:%02x:%02x:%02x up", b[0], b[1], b[2], b[3]),
		fmt.Sprintf("addr add %s/24 dev eth0", addr),
	)
}

// ipBatch runs commands of iproute2 in the network namespace of a process, or
// in the machine's own when pid is 0.
func ipBatch(ctx context.Context, pid int, lines ...string) error {
	argv := []string{"ip", "-batch", "-"}
	if pid != 0 {
		argv = append([]string{"nsenter", "--net", "--target", strconv.Itoa(pid)}, argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", lines[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
