package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/blockdev"
	"banger/internal/vm"
)

// Ensure returns our device on the file, made if there is none. It stays until Remove, whatever becomes of this process.
//
// A read-only device goes through the host's page cache, which all who share the file then share; a writable one goes around
// it where the file system allows: its content is cached above it already.
func Ensure(ctx context.Context, backing string, readOnly bool) (Device, error) {
	found, err := Find(backing)
	if err != nil {
		return Device{}, err
	}
	for _, d := range found {
		if d.Deleted || d.ReadOnly != readOnly {
			continue
		}
		if !d.clear {
			return d, nil
		}
		// Somebody told it to go with its last user. Unused it may be gone any moment.
		if len(blockdev.Stacked(d.Number)) > 0 {
			return d, d.keep(ctx)
		}
	}
	d, err := create(ctx, backing, readOnly)
	if err != nil {
		return Device{}, fmt.Errorf("make loop device of %s: %w", backing, err)
	}
	return d, nil
}

// keep takes back that the device goes at its last close.
func (d Device) keep(ctx context.Context) error {
	f, err := os.Open(d.Path)
	if err != nil {
		return fmt.Errorf("keep loop device: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err == nil {
		info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
		err = act.Do(ctx, "loop.keep", func() error { return unix.IoctlLoopSetStatus64(int(f.Fd()), info) })
	}
	if err != nil {
		return fmt.Errorf("keep loop device %s: %w", d.Path, err)
	}
	return nil
}

// tries bounds how often a free number may be taken from under us.
const tries = 100

func create(ctx context.Context, backing string, readOnly bool) (Device, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return Device{}, vm.Errorf(vm.CodeMissing, "no loop devices: %w", err).WithHint("as root: modprobe loop")
	}
	defer func() { _ = control.Close() }()
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(backing, mode, 0)
	if err != nil {
		return Device{}, err
	}
	defer func() { _ = file.Close() }()
	path, err := resolve(backing)
	if err != nil {
		return Device{}, err
	}
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for range tries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return Device{}, fmt.Errorf("ask for a free one: %w", err)
		}
		name := "loop" + strconv.Itoa(n)
		err = setUp(ctx, name, file, path, readOnly)
		if err == nil {
			return look(name)
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) {
			return Device{}, err
		}
		select {
		case <-ctx.Done():
			return Device{}, ctx.Err()
		case <-pause.C:
		}
	}
	return Device{}, fmt.Errorf("free ones were taken by others %d times", tries)
}

// setUp binds the device to the file. EBUSY: somebody else was quicker.
func setUp(ctx context.Context, name string, file *os.File, path string, readOnly bool) error {
	dev := "/dev/" + name
	if number, err := os.ReadFile(filepath.Join("/sys/block", name, "dev")); err == nil {
		if err := blockdev.EnsureNode(ctx, dev, strings.TrimSpace(string(number))); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{File_name: fileName(path)}}
	if readOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	} else {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO // the kernel drops it where the file system cannot
	}
	err = act.Do(ctx, "loop", func() error {
		err := unix.IoctlLoopConfigure(int(f.Fd()), &config)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) { // before Linux 5.8
			err = setUpInSteps(f, file, config.Info)
		}
		return err
	})
	if err != nil {
		return &os.PathError{Op: "set up", Path: dev, Err: err}
	}
	return nil
}

// setUpInSteps is LOOP_CONFIGURE for kernels that lack it. Whether it is read-only follows from how file is open.
func setUpInSteps(f, file *os.File, info unix.LoopInfo64) error {
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err != nil {
		return err
	}
	direct := info.Flags&unix.LO_FLAGS_DIRECT_IO != 0
	info.Flags = 0
	if err := unix.IoctlLoopSetStatus64(int(f.Fd()), &info); err != nil {
		return errors.Join(err, unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0))
	}
	if direct {
		_ = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_DIRECT_IO, 1) // slower without
	}
	return nil
}

// fileName is our mark and as much of the path's end as there is room for.
func fileName(path string) (name [unix.LO_NAME_SIZE]uint8) {
	room := len(name) - 1 - len(mark)
	copy(name[:], mark+path[max(0, len(path)-room):])
	return name
}
