//go:build linux

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cgroups is where the machine's control groups are mounted. Every host gets
// one group of its own at the top of each hierarchy.
type cgroups struct {
	hierarchies []hierarchy
}

type hierarchy struct {
	dir string // on the machine
	cgroupFS
}

// machineCgroups reads which control groups this machine has: those of version
// 1 where it has any with controllers, else the one of version 2.
func machineCgroups() (*cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return parseCgroups(f)
}

// parseCgroups reads the format of /proc/self/mountinfo.
func parseCgroups(r io.Reader) (*cgroups, error) {
	var v1, v2 []hierarchy
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		switch dir := fields[4]; kind[0] {
		case "cgroup":
			v1 = append(v1, hierarchy{dir, cgroupFS{Name: filepath.Base(dir), Options: hierarchyOptions(kind[2])}})
		case "cgroup2":
			v2 = append(v2, hierarchy{dir: dir})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(v1) > 0 {
		return &cgroups{v1}, nil
	}
	if len(v2) > 0 {
		return &cgroups{v2[:1]}, nil
	}
	return nil, errors.New("control groups: none are mounted")
}

// hierarchyOptions keeps of a version 1 mount what names its hierarchy.
func hierarchyOptions(super string) string {
	options := slices.DeleteFunc(strings.Split(super, ","), func(o string) bool {
		return o == "rw" || o == "ro" || o == "clone_children" || o == "xattr" || strings.HasPrefix(o, "release_agent=")
	})
	if slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "name=") }) {
		options = append([]string{"none"}, options...)
	}
	return strings.Join(options, ",")
}

// mounts says how a host mounts them.
func (c *cgroups) mounts() []cgroupFS {
	var all []cgroupFS
	for _, h := range c.hierarchies {
		all = append(all, h.cgroupFS)
	}
	return all
}

// create makes the groups of a host and returns the files that a process
// writes itself into to join them.
func (c *cgroups) create(name string) ([]string, error) {
	var procs []string
	for _, h := range c.hierarchies {
		dir := filepath.Join(h.dir, name)
		if h.Name == "" {
			controllers, err := os.ReadFile(filepath.Join(h.dir, "cgroup.controllers"))
			if err != nil {
				return nil, err
			}
			if err := enable(h.dir, strings.Fields(string(controllers))); err != nil {
				return nil, err
			}
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("create control group: %w", err)
		}
		// A cpuset takes no process before it says where that may run.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(h.dir, f))
			if errors.Is(err, fs.ErrNotExist) || h.Name == "" {
				continue
			}
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(dir, f), value, 0); err != nil {
				return nil, err
			}
		}
		procs = append(procs, filepath.Join(dir, "cgroup.procs"))
	}
	return procs, nil
}

// enable hands controllers of a version 2 group on to the groups below it.
// One that the group cannot hand on is left out: limits on it are then
// refused by the engine, by name, and all else works.
func enable(dir string, controllers []string) error {
	for _, name := range controllers {
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0)
		if err != nil && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// remove removes the groups of a host whose processes have ended. The kernel
// lets go of them a moment later than of the processes.
func (c *cgroups) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, h := range c.hierarchies {
		dir := filepath.Join(h.dir, name)
		for {
			err := removeTree(dir)
			if err == nil {
				break
			}
			if !pause(ctx, 20*time.Millisecond) {
				return fmt.Errorf("remove control group %s: %w", dir, err)
			}
		}
	}
	return nil
}

// removeTree removes a control group and those below it, deepest first: they
// are folders, but their files cannot be removed.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	return nil
}

// pause waits for d and returns true, or returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
