package execruntime

import "syscall"

// attributes keep Ctrl-C from the program and let it die with teal.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
