package agent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountPoint is one of the kernel's own file systems.
type mountPoint struct {
	target, fstype, data string
	flags                uintptr
}

const noDevExecSuid = unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID

// earlyMounts is what finding the root disk takes; they go away with the initramfs.
var earlyMounts = []mountPoint{
	{"/proc", "proc", "", noDevExecSuid},
	{"/sys", "sysfs", "", noDevExecSuid},
	{"/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
}

// systemMounts is what a system expects below its root, parents first. systemd takes each over as it finds it.
var systemMounts = append(earlyMounts[:len(earlyMounts):len(earlyMounts)], []mountPoint{
	{"/dev/pts", "devpts", "mode=0620,gid=5,ptmxmode=0666", unix.MS_NOSUID | unix.MS_NOEXEC},
	{"/dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	{"/run", "tmpfs", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
	{"/sys/fs/cgroup", "cgroup2", "nsdelegate", noDevExecSuid},
}...)

// mountAll mounts every one of points, making its directory if that is missing. It does all it can and joins the
// errors: a guest without /dev/shm is still worth having.
func mountAll(points []mountPoint) error {
	var errs []error
	for _, m := range points {
		if err := os.Mkdir(m.target, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
			continue
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err))
		}
	}
	return errors.Join(errs...)
}

// switchRoot makes sysroot the root of this process and its children. The initramfs cannot be unmounted and stays
// below, unreachable but by /proc/self/exe. Everything after this resolves symlinks inside the guest's own root.
func switchRoot(sysroot string) error {
	for i := len(earlyMounts) - 1; i >= 0; i-- {
		_ = unix.Unmount(earlyMounts[i].target, unix.MNT_DETACH) // mounted anew below the new root
	}
	if err := os.Chdir(sysroot); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: move %s to /: %w", sysroot, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch root: chroot: %w", err)
	}
	return os.Chdir("/")
}

// modulesDir is where programs look for the running kernel's modules.
func modulesDir() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // fails for a bad pointer only
	return "/lib/modules/" + unix.ByteSliceToString(u.Release[:])
}

// mountModules puts the modules disk in its place.
func mountModules(node string) error {
	target := modulesDir()
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make mount point for modules: %w", err)
	}
	if err := unix.Mount(node, target, "ext4", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", node, target, err)
	}
	return nil
}

// linkDev makes the names below /dev that programs expect and devtmpfs lacks.
func linkDev() error {
	var errs []error
	for name, to := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, name); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
