package loader

import "syscall"

// attributes keep Ctrl-C from the plugin and let it die with teal.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
