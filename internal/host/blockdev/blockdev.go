// Package blockdev reads what the kernel says of any block device: its number, its size, who holds it. It changes nothing.
package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// Number is a device's number as sysfs and device-mapper tables write it: "7:0".
func Number(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s is no block device", path)
	}
	return Format(st.Rdev), nil
}

// Format writes a device number as Number does.
func Format(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// Parse is the opposite of Format.
func Parse(number string) (uint64, error) {
	major, minor, ok := strings.Cut(number, ":")
	a, err := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no device number", number)
	}
	return unix.Mkdev(uint32(a), uint32(b)), nil
}

// EnsureNode makes path a node of the device unless it leads to it already: where udev runs it is there, perhaps as a link. A
// node or link that leads elsewhere is replaced; a file of any other kind is somebody's, and an error.
func EnsureNode(ctx context.Context, path, number string) error {
	if got, err := Number(path); err == nil && got == number {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFBLK && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return fmt.Errorf("make device node %s: something else has its name", path)
	}
	dev, err := Parse(number)
	if err != nil {
		return err
	}
	err = act.Do(ctx, "node", func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		tmp := path + ".tmp-" + strconv.Itoa(os.Getpid())
		_ = os.Remove(tmp) // of a process with the same pid that died here
		if err := unix.Mknod(tmp, unix.S_IFBLK|0o600, int(dev)); err != nil {
			return err
		}
		if err := os.Rename(tmp, path); err != nil {
			_ = os.Remove(tmp)
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make device node %s: %w", path, err)
	}
	return nil
}

// RemoveNode removes the node or link at path; anything else, and nothing, is left.
func RemoveNode(ctx context.Context, path string) error {
	st, err := os.Lstat(path)
	if err != nil || st.Mode().Type() != os.ModeSymlink && st.Mode().Type() != os.ModeDevice {
		return nil
	}
	err = act.Do(ctx, "node.remove", func() error { return os.Remove(path) })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Size is a device's size in 512-byte sectors.
func Size(number string) (int64, error) {
	b, err := os.ReadFile(filepath.Join("/sys/dev/block", number, "size"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// Stacked lists the devices that stand on this one, by the kernel's name or, for device-mapper, by the one it was given. A table
// that is loaded but not yet in use counts.
func Stacked(number string) []string {
	entries, err := os.ReadDir(filepath.Join("/sys/dev/block", number, "holders"))
	if err != nil {
		return nil // no such device: nothing stands on it
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if b, err := os.ReadFile(filepath.Join("/sys/class/block", name, "dm/name")); err == nil {
			name = strings.TrimSpace(string(b))
		}
		names = append(names, name)
	}
	return names
}

// Holders tells people who has the device open, as far as this process may see: devices that stand on it, mounts, processes.
func Holders(number string) string {
	held := Stacked(number)
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		held = append(held, mounts(string(b), number)...)
	}
	held = append(held, processes(number)...)
	if len(held) == 0 {
		return "something that does not show itself"
	}
	return strings.Join(held, ", ")
}

// mounts takes the mounts of a device out of mountinfo (proc(5): the third field is the number, the fifth the place).
func mounts(mountinfo, number string) []string {
	var at []string
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 && f[2] == number {
			at = append(at, "mount "+f[4])
		}
	}
	return at
}

// processes looks at every open file. It asks by statx without a sync, which no dead network file system can hang.
func processes(number string) []string {
	dirs, err := filepath.Glob("/proc/[0-9]*/fd")
	if err != nil {
		return nil
	}
	var names []string
	for _, dir := range dirs {
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // ended, or another user's
		}
		if slices.ContainsFunc(fds, func(e os.DirEntry) bool { return opens(filepath.Join(dir, e.Name()), number) }) {
			pid := filepath.Base(filepath.Dir(dir))
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			names = append(names, fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), pid))
		}
	}
	return names
}

func opens(fd, number string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, fd, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && fmt.Sprintf("%d:%d", st.Rdev_major, st.Rdev_minor) == number
}
