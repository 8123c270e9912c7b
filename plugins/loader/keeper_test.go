package loader

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// group starts a process with a child, both of a group of their own.
func group(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", "trap '' TERM HUP; sleep 60 & wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd
}

func TestKeeperEndsWhatWasLeftAndRemovesTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a folder")
	if err := os.MkdirAll(filepath.Join(dir, "with", "content"), 0o700); err != nil {
		t.Fatal(err)
	}
	k, err := newKeeper(dir)
	if err != nil {
		t.Fatal(err)
	}
	first, ended, last := group(t), group(t), group(t)
	k.started(first.Process.Pid)
	done := k.started(ended.Process.Pid)
	k.started(last.Process.Pid)
	done()
	k.close()
	k.close()
	k.started(1)() // nobody is told any more
	for _, cmd := range []*exec.Cmd{first, last} {
		_ = cmd.Wait()
		for limit := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if syscall.Kill(-cmd.Process.Pid, 0) != nil {
				break
			}
			if time.Now().After(limit) {
				t.Fatal("a child lives on")
			}
		}
	}
	if err := syscall.Kill(ended.Process.Pid, 0); err != nil {
		t.Errorf("a group that was not the keeper's any more: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is there: %v", err)
	}
}
