package haproxy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/proxytest"
)

func TestPrepareThenSwitchThenObserve(t *testing.T) {
	d, l, url := prepared(t, "web1")
	for _, slot := range []proxy.Slot{proxy.Blue, proxy.Green, proxy.Green, proxy.Blue} {
		switchTo(t.Context(), t, d, l, slot)
		observed(t, d, l, proxytest.All(l, slot.All()))
		if got := proxytest.Get(t, url); got != string(slot) {
			t.Errorf("the site answers %q, want %s", got, slot)
		}
	}
}

// The scripts keep to what a small system has.
func TestScriptsRunUnderBusybox(t *testing.T) {
	installed(t)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		unable(t, "busybox is not installed")
	}
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, tool := range []string{"sh", "cat", "chmod", "chown", "cp", "grep", "id", "ls", "mkdir", "mv", "pgrep", "readlink", "rm", "sed", "sha256sum", "sleep", "stat", "sync", "tail", "tr", "wc"} {
		if err := os.Symlink(busybox, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(haproxy, filepath.Join(bin, "haproxy")); err != nil {
		t.Fatal(err)
	}
	d := start(t)
	l := layout(t, d, "web1")
	t.Setenv("PATH", bin)
	prepare(t, d, l, true)
	prepare(t, d, l, false)
	for _, slot := range []proxy.Slot{proxy.Green, proxy.Blue} {
		switchTo(t.Context(), t, d, l, slot)
		observed(t, d, l, proxytest.All(l, slot.All()))
	}
	l.Members = append(l.Members, proxytest.Member(t, "web2"))
	prepare(t, d, l, true)
	if _, err := d.proxy().Check(t.Context(), host(), l); err != nil {
		t.Error(err)
	}
}
