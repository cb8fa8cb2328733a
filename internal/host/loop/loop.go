// Package loop is the thin hand on loop devices: files as block devices, found again by their file. It makes and removes
// only devices that carry our mark, and decides nothing.
package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/blockdev"
	"banger/internal/vm"
)

// mark begins the file name that the kernel keeps with each device of ours (lo_file_name, 63 bytes): a device that a person
// set up on the same file is not ours to use or to remove. losetup shows the whole path from elsewhere.
const mark = "banger:"

// Device is a loop device that is set up.
type Device struct {
	Path     string // "/dev/loop3"
	Number   string // "7:3"
	Backing  string // the file's path as the kernel knows it
	Deleted  bool   // the file has no name any more
	ReadOnly bool
	Ours     bool // carries our mark

	file  identity
	clear bool // goes at its last close
}

// identity is what proves that a device stands on a file; paths can be renamed, linked, reused.
type identity struct{ dev, inode uint64 }

// List returns every loop device on the host, ours and others'. Devices that an ordinary user may not open are left out: they
// are none of his.
func List() ([]Device, error) {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	return list(backing, look, os.Geteuid())
}

func list(backing []string, look func(name string) (Device, error), euid int) ([]Device, error) {
	var all []Device
	for _, p := range backing {
		d, err := look(filepath.Base(filepath.Dir(filepath.Dir(p))))
		switch {
		case err == nil:
			all = append(all, d)
		case gone(err): // since the listing
		case euid != 0 && errors.Is(err, fs.ErrPermission): // who may make one may open it
		default:
			return nil, fmt.Errorf("list loop devices: %w", err)
		}
	}
	return all, nil
}

// gone says that a device could not be asked since it stands on nothing.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

// Still says whether the device stands on the file, which must be there: its number may have got another.
func (d Device) Still(backing string) (bool, error) {
	now, err := look(filepath.Base(d.Path))
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	id, err := identify(backing)
	return err == nil && now.Ours && now.file == id, err
}

// look asks one device, "loop3", what it stands on. It is opened for reading only: udev looks into what was open for writing.
func look(name string) (Device, error) {
	d := Device{Path: "/dev/" + name}
	f, err := os.Open(d.Path)
	if err != nil {
		return Device{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return Device{}, &os.PathError{Op: "ask", Path: d.Path, Err: err}
	}
	backing, err := os.ReadFile(filepath.Join("/sys/block", name, "loop/backing_file"))
	if err != nil {
		return Device{}, err
	}
	number, err := os.ReadFile(filepath.Join("/sys/block", name, "dev"))
	if err != nil {
		return Device{}, err
	}
	d.Number = strings.TrimSpace(string(number))
	d.Backing, d.Deleted = strings.CutSuffix(strings.TrimSuffix(string(backing), "\n"), " (deleted)")
	d.ReadOnly = info.Flags&unix.LO_FLAGS_READ_ONLY != 0
	d.clear = info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0
	d.Ours = strings.HasPrefix(unix.ByteSliceToString(info.File_name[:]), mark) && info.Offset == 0 && info.Sizelimit == 0
	d.file = identity{info.Device, info.Inode}
	return d, nil
}

// Find returns our devices on the file, also on one that has since been deleted at that path.
func Find(backing string) ([]Device, error) {
	all, err := List()
	if err != nil {
		return nil, err
	}
	path, err := resolve(backing)
	if err != nil {
		return nil, err
	}
	id, err := identify(backing)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("find loop devices: %w", err)
	}
	there := err == nil
	var found []Device
	for _, d := range all {
		if d.Ours && (there && d.file == id || d.Deleted && d.Backing == path) {
			found = append(found, d)
		}
	}
	return found, nil
}

func identify(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return identity{st.Dev, st.Ino}, nil
}

// resolve is path as the kernel would write it, as far as its directories are still there.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(dir, filepath.Base(abs)), nil
	}
	return abs, nil
}

// patience bounds how long a removed device may stay: udev and the like open new devices for a moment.
const patience = 5 * time.Second

// Remove removes our devices on the file, and returns when they are gone; none is success. vm.CodeConflict, with who holds
// it, for one that is in use: one on which another device stands is left as it is, any other goes with its last user.
func Remove(ctx context.Context, backing string) error { return remove(ctx, backing, false) }

// RemoveUnused is Remove for a file that several use: devices on which others stand are left, and that is success.
func RemoveUnused(ctx context.Context, backing string) error { return remove(ctx, backing, true) }

func remove(ctx context.Context, backing string, leaveUsed bool) error {
	found, err := Find(backing)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range found {
		stacked := blockdev.Stacked(d.Number)
		switch {
		case len(stacked) == 0:
			errs = append(errs, d.remove(ctx))
		case !leaveUsed:
			errs = append(errs, d.busy())
		}
	}
	return errors.Join(errs...)
}

func (d Device) busy() error {
	return vm.Errorf(vm.CodeConflict, "remove loop device %s of %s: it is in use by %s", d.Path, d.Backing, blockdev.Holders(d.Number))
}

func (d Device) remove(ctx context.Context) error {
	if err := d.release(ctx); err != nil {
		return fmt.Errorf("remove loop device %s of %s: %w", d.Path, d.Backing, err)
	}
	// The kernel tells nobody when the last user closes it.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; {
		if now, err := look(filepath.Base(d.Path)); err != nil || now.file != d.file {
			return nil
		}
		if time.Now().After(end) {
			return d.busy()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove loop device %s of %s: %w", d.Path, d.Backing, ctx.Err())
		case <-tick.C:
		}
	}
}

// release lets go of the file, now or at the last close. The device is looked at again under the same descriptor: its
// number may have got another file since it was found.
func (d Device) release(ctx context.Context) error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if errors.Is(err, unix.ENXIO) || err == nil && (identity{info.Device, info.Inode}) != d.file {
		return nil
	}
	if err != nil {
		return err
	}
	err = act.Do(ctx, "loop.remove", func() error { return unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0) })
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return err
	}
	return nil
}
