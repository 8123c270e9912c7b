package remote

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestQueueInFrontOfASlowLineIsShort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	newTransport(c)
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	if controlErr := raw.Control(func(fd uintptr) {
		got, err = unix.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
	}); controlErr != nil || err != nil || got != unsentBytes {
		t.Errorf("%d bytes may wait unsent: %v, %v", got, controlErr, err)
	}
	near, far := net.Pipe()
	newTransport(near) // a proxy command has no such option
	_, _ = near.Close(), far.Close()
}
