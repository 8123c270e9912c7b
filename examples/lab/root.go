//go:build linux

package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A rootFS is the root file system of a host: the machine's own root below,
// what the host wrote on top of it. Upper and Work are folders of a real file
// system, not of an overlay; they are the host's disk and outlive it.
type rootFS struct {
	Dir   string            // where the root is put together: empty, one for each host
	Upper string            // what the host changed
	Work  string            // the overlay's own
	Binds map[string]string // real folders by their path in the host: an engine's storage cannot be on an overlay
	Empty []string          // folders of the machine that a host sees empty
}

// cgroupFS is one control group hierarchy as it is mounted in a host.
type cgroupFS struct {
	Name    string // folder under /sys/fs/cgroup; "" for version 2, which is mounted there itself
	Options string // controllers or name=… of version 1
}

// enter puts the file system together and makes it the root of this process
// and of everything that it will start. Nothing of it is seen outside.
func (r *rootFS) enter(cgroups []cgroupFS) error {
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, path := range r.Empty {
		if err := r.hide(path); err != nil {
			return err
		}
	}
	overlay := fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", r.Upper, r.Work)
	if err := mount("overlay", r.Dir, "overlay", 0, overlay); err != nil {
		return err
	}
	for _, step := range []func() error{
		r.mountKernel,
		func() error { return r.mountCgroups(cgroups) },
		r.mountDevices,
		r.mountBinds,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return r.pivot()
}

// hide makes a folder of the machine look empty, in the language of overlays.
// Folders on the way to it keep owner and mode.
func (r *rootFS) hide(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for i := range path {
		if i > 0 && path[i] == '/' {
			if err := r.copyDir(path[:i]); err != nil {
				return err
			}
		}
	}
	if err := r.copyDir(path); err != nil {
		return err
	}
	if err := syscall.Setxattr(r.Upper+path, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("hide %s: %w", path, err)
	}
	return nil
}

func (r *rootFS) copyDir(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Mkdir(r.Upper+path, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	if err := os.Chmod(r.Upper+path, info.Mode()); err != nil { // whatever the umask, and with the bit of /var/tmp
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("stat %s: no owner", path)
	}
	return os.Chown(r.Upper+path, int(stat.Uid), int(stat.Gid))
}

// mountKernel mounts what the kernel shows of the host, and its volatile
// folders. The boot id is the host's own: a program that wants to know
// whether the host has been restarted reads it.
func (r *rootFS) mountKernel() error {
	if err := mount("proc", r.Dir+"/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := mount("sysfs", r.Dir+"/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", r.Dir+"/run", "tmpfs", 0, "mode=755,size=256m"); err != nil {
		return err
	}
	if err := mount("tmpfs", r.Dir+"/tmp", "tmpfs", 0, "mode=1777,size=512m"); err != nil {
		return err
	}
	for _, dir := range []string{"/run/sshd", "/run/lock"} {
		if err := os.Mkdir(r.Dir+dir, 0o755); err != nil {
			return err
		}
	}
	id := r.Dir + "/run/boot_id"
	if err := os.WriteFile(id, []byte(newUUID()+"\n"), 0o444); err != nil {
		return err
	}
	return mount(id, r.Dir+"/proc/sys/kernel/random/boot_id", "", syscall.MS_BIND, "")
}

func (r *rootFS) mountCgroups(cgroups []cgroupFS) error {
	top := r.Dir + "/sys/fs/cgroup"
	if len(cgroups) == 1 && cgroups[0].Name == "" {
		if err := mount("cgroup2", top, "cgroup2", 0, ""); err != nil {
			return err
		}
		return delegate(top)
	}
	if err := mount("tmpfs", top, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, c := range cgroups {
		dir := filepath.Join(top, c.Name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := mount("cgroup", dir, "cgroup", 0, c.Options); err != nil {
			return err
		}
		for name := range strings.SplitSeq(c.Name, ",") { // cpu and cpuacct for cpu,cpuacct
			if name == c.Name {
				continue
			}
			if err := os.Symlink(c.Name, filepath.Join(top, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate lets the host hand its controllers on to containers: version 2
// forbids that to a group that holds processes, so process 1 moves down.
func delegate(top string) error {
	leaf := filepath.Join(top, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	controllers, err := os.ReadFile(filepath.Join(top, "cgroup.controllers"))
	if err != nil {
		return err
	}
	return enable(top, strings.Fields(string(controllers)))
}

// mountDevices makes a /dev of the devices that programs cannot do without.
func (r *rootFS) mountDevices() error {
	dev := r.Dir + "/dev"
	if err := mount("tmpfs", dev, "tmpfs", syscall.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"pts", "shm"} {
		if err := os.Mkdir(filepath.Join(dev, dir), 0o755); err != nil {
			return err
		}
	}
	if err := mount("devpts", dev+"/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620,gid=5"); err != nil {
		return err
	}
	if err := mount("tmpfs", dev+"/shm", "tmpfs", 0, "mode=1777"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "fuse"} {
		if _, err := os.Stat("/dev/" + name); err != nil {
			continue // the machine does not have it either
		}
		if err := bindFile("/dev/"+name, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

func (r *rootFS) mountBinds() error {
	for path, from := range r.Binds {
		if err := os.MkdirAll(r.Dir+path, 0o711); err != nil {
			return err
		}
		if err := mount(from, r.Dir+path, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// pivot swaps the roots and drops the machine's.
func (r *rootFS) pivot() error {
	const old = "/mnt"
	if err := os.MkdirAll(r.Dir+old, 0o755); err != nil {
		return err
	}
	if err := syscall.PivotRoot(r.Dir, r.Dir+old); err != nil {
		return fmt.Errorf("change the root to %s: %w", r.Dir, err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := syscall.Unmount(old, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	return nil
}

func mount(from, to, kind string, flags uintptr, options string) error {
	if err := syscall.Mount(from, to, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, to, err)
	}
	return nil
}

func bindFile(from, to string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return mount(from, to, "", syscall.MS_BIND, "")
}

// owner returns the numbers of a user of this root; "" is root.
func owner(name string) (uid, gid int, err error) {
	if name == "" {
		return 0, 0, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
