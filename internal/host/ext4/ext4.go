// Package ext4 is the thin hand on ext4 file systems in sparse files. It makes them; mounting is the guest's business.
package ext4

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/file"
	"banger/internal/vm"
)

// The sizes a file system can have, in bytes.
const (
	MinSize = 16 << 20
	MaxSize = 16 << 40 // what a file on the host's own ext4 can hold with 4 KiB blocks
)

// features are spelt out so that the host's mke2fs.conf, which differs between releases, has no say in what guests get.
// Without resize_inode, whose 4 MiB mkfs would write: kernels since 3.7 and resize2fs enlarge such a file system, mounted
// or not.
const features = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file," +
	"huge_file,dir_nlink,extra_isize,metadata_csum"

// Program is mkfs.ext4's path. It lies where ordinary users' PATH does not reach.
func Program() (string, error) {
	for _, name := range []string{"mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", vm.Errorf(vm.CodeMissing, "mkfs.ext4 is not installed").WithHint("apt install e2fsprogs")
}

// Args are the arguments of Program that make an ext4 file system fill the file path, with the content of the directory tree
// from (owners, modes, extended attributes) unless that is "". The file must have its size and be a hole all through.
//
// "discard" makes mkfs ask for holes and, since they read as zeros, mark the inode tables as zeroed. Without that mark
// every guest would write them out (128 MiB for 8 GiB) in its first minutes. No size argument: mkfs would read it in KiB.
func Args(path, label, from string) []string {
	args := []string{
		"-q", "-F", "-L", label, "-m", "0", "-b", "4096", "-I", "256", "-i", "16384", "-O", features, "-e", "remount-ro",
		"-E", "discard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0",
	}
	if from != "" {
		args = append(args, "-d", from)
	}
	return append(args, path)
}

// Make makes a sparse file of size bytes with an empty ext4 file system in it. A file that exists is left untouched,
// whatever its size. Errors: vm.CodeInvalid for a size or label ext4 or the host cannot have,
// CodeNoSpace, CodeMissing without mkfs.ext4.
func (m *Maker) Make(ctx context.Context, path string, size int64, label string) error {
	if err := check(size, label); err != nil {
		return err
	}
	program, err := Program()
	if err != nil {
		return fmt.Errorf("make ext4 disk %s: %w", path, err)
	}
	err = file.Create(ctx, "work-disk", path, func(tmp string) error {
		if err := os.Truncate(tmp, size); err != nil {
			return err
		}
		if known, err := m.write(tmp, kind{size, label}); known || err != nil {
			return err
		}
		if err := mkfs(ctx, program, Args(tmp, label, "")); err != nil {
			return err
		}
		m.remember(tmp, kind{size, label})
		return nil
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EFBIG):
		return vm.Errorf(vm.CodeInvalid, "make ext4 disk %s of %d bytes: the host's file system takes no file of that size: %w", path, size, err).
			WithHint("ask for a smaller disk")
	case file.NoSpace(err):
		return vm.Errorf(vm.CodeNoSpace, "make ext4 disk %s: %w", path, err).WithHint("free some space on the file system of %s", path)
	}
	return fmt.Errorf("make ext4 disk %s: %w", path, err)
}

// Grow gives the file at path size bytes where it has fewer; what is added is a hole. The file system in it stays as it is:
// the guest enlarges that when it mounts it. Errors: vm.CodeInvalid for a size that the host cannot have.
func Grow(ctx context.Context, path string, size int64) error {
	st, err := os.Stat(path)
	if err == nil && st.Size() < size {
		err = act.Do(ctx, "work-disk.grow", func() error { return os.Truncate(path, size) })
	}
	switch {
	case errors.Is(err, unix.EFBIG):
		return vm.Errorf(vm.CodeInvalid, "grow disk %s to %d bytes: the host's file system takes no file of that size: %w", path, size, err).
			WithHint("ask for a smaller disk: banger vm set --disk-size")
	case err != nil:
		return fmt.Errorf("grow disk %s to %d bytes: %w", path, size, err)
	}
	return nil
}

func check(size int64, label string) error {
	switch {
	case size < MinSize:
		return vm.Errorf(vm.CodeInvalid, "disk size of %d bytes is less than the least, 16 MiB", size).WithHint("ask for at least 16M")
	case size > MaxSize:
		return vm.Errorf(vm.CodeInvalid, "disk size of %d bytes is more than the most, 16 TiB", size).WithHint("ask for at most 16T")
	case len(label) > 16:
		return vm.Errorf(vm.CodeInvalid, "ext4 label %q has more than 16 bytes", label)
	}
	return nil
}

func mkfs(ctx context.Context, program string, args []string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if strings.Contains(string(out), "No space left on device") {
		err = unix.ENOSPC // mkfs tells it in words only
	}
	return fmt.Errorf("run %s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
}
