//go:build unix && !linux

package loader

import "syscall"

// attributes keep Ctrl-C from the plugin. That it dies with teal is left to
// the watch that package sdk keeps.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
