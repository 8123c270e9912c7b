package remote

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentBytes is how much the kernel takes before it has sent what came before.
const unsentBytes = 256 << 10

// keepShort bounds the queue in front of a slow line. Everything for a host
// goes over one connection: without a bound a sign of life would wait behind
// megabytes of an image, longer than a lock lives without one.
func keepShort(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// Without the option the queue is longer, nothing else.
		_ = unix.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
}
