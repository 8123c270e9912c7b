//go:build !linux

package remote

import "net"

// quickAck returns a function that does nothing: the option is Linux's.
func quickAck(net.Conn) func() { return func() {} }
