package remote

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// quickAck returns a function that makes the kernel acknowledge what was read
// at once. sshd holds a small answer back until the one before is
// acknowledged, and a kernel likes to delay that by 40 ms; the option falls
// back by itself, so it is set after every read. The result does nothing for
// what is no TCP connection.
func quickAck(c net.Conn) func() {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return func() {}
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return func() {}
	}
	set := func(fd uintptr) {
		// Without the option it is slower, nothing else.
		_ = unix.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	}
	return func() { _ = raw.Control(set) }
}
