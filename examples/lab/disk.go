//go:build linux

package lab

import (
	"context"
	"fmt"
)

// FillDisk leaves no byte free in a folder of the host and all below it, and no
// place for another file: what is there stays, and whatever wants to write more
// is told that the device is full. Files that are open at that moment keep their space. A power loss takes
// with it what was changed since.
func (h *Host) FillDisk(ctx context.Context, dir string) error {
	// The full disk is put together aside and comes into place in one step. It
	// has 1 MiB besides what it holds, which is more than rounding costs.
	const fill = `set -e
[ ! -e /run/lab-full ] || { echo "a disk is full already" >&2; exit 1; }
mkdir -p "$1" /run/lab-full
kib=$(du -sk "$1" | cut -f 1)
mount -t tmpfs -o size=$((kib * 2 + 1024))k,mode=755 lab /run/lab-full
cp -a "$1"/. /run/lab-full/
head -c 1G /dev/zero >/run/lab-full/.lab-full 2>/dev/null || true
files=$(df --output=iused /run/lab-full | tail -n 1)
mount -o remount,nr_inodes=$((files)) /run/lab-full
mount --move /run/lab-full "$1"`
	if _, err := h.Exec(ctx, "sh", "-c", fill, "lab", dir); err != nil {
		return fmt.Errorf("fill %s on %s: %w", dir, h.Name, err)
	}
	return nil
}

// FreeDisk undoes FillDisk: what the folder holds now goes to the host's disk.
func (h *Host) FreeDisk(ctx context.Context, dir string) error {
	// Below the mount is the former state, which nobody sees until it is
	// replaced.
	const free = `set -e
[ -e "$1/.lab-full" ] || { echo "it is not full" >&2; exit 1; }
rm "$1/.lab-full"
mkdir -p /run/lab-disk
mount --bind "$(dirname "$1")" /run/lab-disk
under=/run/lab-disk/$(basename "$1")
find "$under" -mindepth 1 -delete
cp -a "$1"/. "$under"/
umount "$1" 2>/dev/null || umount -l "$1"
umount /run/lab-disk
rmdir /run/lab-disk /run/lab-full`
	if _, err := h.Exec(ctx, "sh", "-c", free, "lab", dir); err != nil {
		return fmt.Errorf("free %s on %s: %w", dir, h.Name, err)
	}
	return nil
}
