package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeSystemd gives the fixture's host a systemd-run that works for root only,
// notes its arguments, and starts what it is told detached.
func fakeSystemd(t *testing.T, f *fixture, script string) (journal string) {
	t.Helper()
	dir := t.TempDir()
	f.must(os.Chmod(dir, 0o755))
	journal = filepath.Join(dir, "journal")
	f.host.shell.path = withoutFlock(t)
	f.must(os.Chmod(f.host.shell.path, 0o755))
	symlink(t, need(t, "flock"), filepath.Join(f.host.shell.path, "flock"))
	writeProgram(t, filepath.Join(f.host.shell.path, "systemd-run"), "#!/bin/sh\njournal="+journal+"\n"+script)
	f.store.systemd = dir
	return journal
}

const workingSystemd = `[ "$(id -u)" = 0 ] || exit 1
printf '%s\n' "$@" >>"$journal"
while [ "$1" != -- ]; do shift; done
shift
setsid "$@" 4>&- &`

func TestTeardownIsAUnitWhereSystemdRuns(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root may start units")
	}
	f := newFixture(t, shell{name: "systemd"})
	journal := fakeSystemd(t, f, workingSystemd)
	if !f.observe().Facts.Systemd {
		t.Error("systemd was not seen")
	}
	blue := newContainer(t)
	switched := f.released(f.acquire(), f.teardown(blue, time.Second, time.Minute))
	blue.goneBetween(switched, time.Second, 4*time.Second)
	data, err := os.ReadFile(journal)
	f.must(err)
	args := strings.Split(string(data), "\n")
	for _, want := range []string{"--collect", "--uid=0", "/bin/sh"} {
		if !strings.Contains(string(data), want+"\n") {
			t.Errorf("systemd-run got %q, want %s", args, want)
		}
	}
	if unit := args[4]; !strings.HasPrefix(unit, "--unit=teal-teardown-2026-r-1-") {
		t.Errorf("unit %q", unit)
	}
}

func TestTeardownBecomesAUnitOfTheLoginUser(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "systemd"})
	journal := fakeSystemd(t, f, workingSystemd)
	asNobody(t, f)
	f.host.become = true
	blue := &container{t: t, dir: t.TempDir()}
	f.must(os.Chmod(blue.dir, 0o777))
	f.must(os.Chmod(filepath.Dir(blue.dir), 0o755))
	order := f.teardown(blue, 0, 0)
	order.Containers[0].Port = 0
	f.released(f.acquire(), order)
	f.eventually("it is removed", func() bool { return blue.log() == "stop remove" })
	f.nothingPending()
	data, err := os.ReadFile(journal)
	f.must(err)
	if !strings.Contains(string(data), "--uid=65534\n") {
		t.Errorf("systemd-run got %q, want the login user's id", data)
	}
}

func TestTeardownStartsWithoutSystemdWhereUnitsAreRefused(t *testing.T) {
	t.Parallel()
	for _, become := range []bool{false, true} {
		f := newFixture(t, shell{name: "systemd"})
		fakeSystemd(t, f, "exit 1")
		asNobody(t, f)
		f.must(os.MkdirAll(f.store.Root, 0o755))
		f.must(os.Chown(f.store.Root, 65534, 65534))
		f.host.become = become
		blue := &container{t: t, dir: t.TempDir()}
		f.must(os.Chmod(blue.dir, 0o777))
		f.must(os.Chmod(filepath.Dir(blue.dir), 0o755))
		order := f.teardown(blue, 0, 0)
		order.Containers[0].Port = 0
		f.released(f.acquire(), order)
		f.eventually("it is removed", func() bool { return blue.log() == "stop remove" })
		if info, err := os.Stat(filepath.Join(blue.dir, "log")); err != nil || !ownedBy(info, 65534) {
			t.Errorf("become %t: it was not removed with the login user's rights: %v", become, err)
		}
	}
}
