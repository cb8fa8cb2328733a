package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/file"
	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// A jail is what the jailer makes of a directory (docs/jailer.md of Firecracker): BASE/PROGRAM/ID/root, with the program
// copied in and the device nodes made, becomes the root directory of a process of its own user. What the VMM opens is
// there before: disks as hard links that belong to that user, what several VMs share as links that it can only read,
// block devices as nodes. Nothing in it is secret, and nothing that can be written is another VM's.
//
// It lies in the VM's own directory: on the disks' file system, found by rule, and gone with the VM.

// forbidden says what the mount of a directory forbids that a jail needs: "nodev", say; empty when nothing.
func forbidden(dir string) string {
	const noDev, noExec = 4, 8 // ST_NODEV, ST_NOEXEC of statfs(2)
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "" // who makes a jail there will be told
	}
	var all []string
	if st.Flags&noDev != 0 {
		all = append(all, "nodev")
	}
	if st.Flags&noExec != 0 {
		all = append(all, "noexec")
	}
	return strings.Join(all, ", ")
}

// Jailed implements vmm.Jailer. A jailed VMM runs as a user of its own, or is about to, and is a jailer still.
func (*Driver) Jailed(id proc.Identity) (bool, error) {
	uid, err := proc.UID(id.PID)
	args, argsErr := proc.Args(id.PID)
	if !proc.Alive(id) { // the last look: these are that process's
		return true, nil
	}
	if err := errors.Join(err, argsErr); err != nil {
		return false, fmt.Errorf("look whether process %d is in a jail: %w", id.PID, err)
	}
	return uid != os.Geteuid() || valueOf(args, "--chroot-base-dir") != "", nil
}

// jailBase is the jailer's --chroot-base-dir.
func jailBase(ref vmm.Ref) string { return filepath.Join(ref.Dir, "jail") }

// jailRoot is the root directory of the jailed process.
func (d *Driver) jailRoot(ref vmm.Ref, binary string) string {
	return filepath.Join(jailBase(ref), filepath.Base(binary), string(ref.ID), "root")
}

// Names within a jail.
const (
	inKernel    = "/vmlinux"
	inInitramfs = "/initramfs"
	inConfig    = "/vm.json"
	inAPI       = "/api.sock"
	inAgent     = "/agent.sock"
	inLog       = "/vmm.log"
	inMetrics   = "/metrics"
)

// furnish puts into a new jail what the VMM will open, and returns its names in there.
func furnish(ctx context.Context, root string, c vmm.Config) (f files, err error) {
	if err := act.Do(ctx, "jail", func() error { return os.MkdirAll(root, 0o700) }); err != nil {
		return f, err
	}
	f = files{kernel: inKernel, initramfs: inInitramfs, agentSock: inAgent, log: inLog}
	for name, path := range map[string]string{inKernel: c.Kernel, inInitramfs: c.Initramfs} {
		if err := share(ctx, path, filepath.Join(root, name)); err != nil {
			return f, err
		}
	}
	for i, disk := range disksOf(c) {
		name := fmt.Sprintf("/disk%d", i)
		switch at := filepath.Join(root, name); {
		case disk.Block:
			err = node(ctx, disk.Path, at, c.UID)
		case disk.ReadOnly:
			err = share(ctx, disk.Path, at)
		default:
			err = give(ctx, disk.Path, at, c.UID)
		}
		if err != nil {
			return f, err
		}
		f.disks = append(f.disks, name)
	}
	logs := map[string]string{inLog: c.Log}
	if c.Metrics != "" {
		f.metrics = inMetrics
		logs[inMetrics] = c.Metrics
	}
	for name, path := range logs {
		if err := beginLog(ctx, path); err != nil {
			return f, err
		}
		if err := give(ctx, path, filepath.Join(root, name), c.UID); err != nil {
			return f, err
		}
	}
	conf, err := configuration(c, f)
	if err != nil {
		return f, vm.Errorf(vm.CodeInvalid, "%w", err)
	}
	return f, act.Do(ctx, "configuration", func() error {
		return os.WriteFile(filepath.Join(root, inConfig), conf, 0o444) //nolint:gosec // nothing in it is secret
	})
}

// share links a file that several VMs read. On another file system it is copied; it must not be writable by the VM's
// user either way.
func share(ctx context.Context, path, at string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("put %s into the jail: %w", path, err)
	}
	err = act.Do(ctx, "jail.shared", func() error {
		err := os.Link(path, at)
		if errors.Is(err, unix.EXDEV) || err == nil && fi.Mode().Perm()&0o004 == 0 {
			if err == nil {
				err = os.Remove(at) // what only root can read has to be a copy
			}
			if err = errors.Join(ignoreXDev(err), copyShared(ctx, path, at)); err != nil {
				_ = os.Remove(at)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("put %s into the jail: %w", path, err)
	}
	return nil
}

func ignoreXDev(err error) error {
	if errors.Is(err, unix.EXDEV) {
		return nil
	}
	return err
}

func copyShared(ctx context.Context, path, at string) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Chmod(at, 0o444), file.CopySparse(ctx, at, path))
}

// give links a file of this VM alone, and lets its user have it.
func give(ctx context.Context, path, at string, uid int) error {
	if err := act.Do(ctx, "jail.disk", func() error { return os.Link(path, at) }); err != nil {
		return fmt.Errorf("put %s into the jail: %w", path, err)
	}
	if err := act.Do(ctx, "jail.owner", func() error { return os.Lchown(at, uid, uid) }); err != nil {
		return fmt.Errorf("give %s to user %d: %w", path, uid, err)
	}
	return nil
}

// node makes a block device's node for the VM's user.
func node(ctx context.Context, device, at string, uid int) error {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil { // follows links
		return fmt.Errorf("put %s into the jail: %w", device, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return fmt.Errorf("put %s into the jail: it is no block device", device)
	}
	if err := act.Do(ctx, "jail.node", func() error { return unix.Mknod(at, unix.S_IFBLK|0o600, int(st.Rdev)) }); err != nil {
		return fmt.Errorf("make the node of %s in the jail: %w", device, err)
	}
	if err := act.Do(ctx, "jail.owner", func() error { return os.Lchown(at, uid, uid) }); err != nil {
		return fmt.Errorf("give %s to user %d: %w", device, uid, err)
	}
	return nil
}

// jailerArgs start the VMM in its jail.
func jailerArgs(ref vmm.Ref, binary string, uid int) []string {
	id := strconv.Itoa(uid)
	return []string{
		"--id", string(ref.ID), "--exec-file", binary, "--uid", id, "--gid", id, "--chroot-base-dir", jailBase(ref),
		"--cgroup-version", "2", // without --cgroup: the process stays in the one it was started in, which is ours
		"--", "--api-sock", inAPI, "--config-file", inConfig,
	}
}

// Remove implements vmm.Driver: the jail goes, and with it what only it had. Disks are links, and stay.
func (d *Driver) Remove(ctx context.Context, ref vmm.Ref) error {
	if ref.Dir == "" || !filepath.IsAbs(ref.Dir) {
		return fmt.Errorf("remove the jail of VM %s: its directory %q is not absolute", ref.ID, ref.Dir)
	}
	if err := file.RemoveTree(ctx, "jail", jailBase(ref)); err != nil {
		return fmt.Errorf("remove the jail of VM %s: %w", ref.ID, err)
	}
	for _, name := range []string{configFile} {
		err := act.Do(ctx, "configuration.remove", func() error { return os.Remove(filepath.Join(ref.Dir, name)) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the machine's configuration: %w", err)
		}
	}
	return nil
}
