//go:build unix && !linux

package execruntime

import "syscall"

// attributes keep Ctrl-C from the program.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
