//go:build !linux

package remote

import "net"

// keepShort does nothing: the option is Linux's.
func keepShort(net.Conn) {}
