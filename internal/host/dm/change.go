package dm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/blockdev"
	"banger/internal/vm"
)

// change makes a call that changes something.
func (c control) change(ctx context.Context, what string, req uint, r request) error {
	return act.Do(ctx, what, func() error {
		_, _, err := c.call(req, r)
		return err
	})
}

// make makes the VM's device, with this table in use. Killed half-way it leaves a device without a table.
func (c control) make(ctx context.Context, id vm.ID, table string) error {
	if err := c.change(ctx, "dm", unix.DM_DEV_CREATE, request{name: Name(id), uuid: UUID(id)}); err != nil {
		return err
	}
	err := c.load(ctx, "dm.table", id, table)
	if err == nil {
		err = c.resume(ctx, id)
	}
	if err != nil {
		return errors.Join(err, c.drop(context.WithoutCancel(ctx), id))
	}
	return nil
}

// load gives a device a table, which is in use from its next resume.
func (c control) load(ctx context.Context, what string, id vm.ID, table string) error {
	data, err := formatTarget(table)
	if err == nil {
		err = c.change(ctx, what, unix.DM_TABLE_LOAD, request{uuid: UUID(id), targets: 1, data: data})
	}
	if err != nil {
		return fmt.Errorf("load the table %q: %w (the kernel's log says why)", table, err)
	}
	return nil
}

// formatTarget is a table of one target as the kernel takes it: the opposite of parseTargets.
func formatTarget(table string) ([]byte, error) {
	var s unix.DmTargetSpec
	words := strings.SplitN(table, " ", 4)
	if len(words) < 3 || len(words[2]) >= len(s.Target_type) {
		return nil, unix.EINVAL
	}
	var err, err2 error
	s.Sector_start, err = strconv.ParseUint(words[0], 10, 64)
	s.Length, err2 = strconv.ParseUint(words[1], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	copy(s.Target_type[:], words[2])
	parameters := strings.Join(words[3:], "")
	size := (unix.SizeofDmTargetSpec + len(parameters) + 1 + 7) &^ 7
	s.Next = uint32(size)
	b, err := binary.Append(make([]byte, 0, size), binary.NativeEndian, s)
	if err != nil {
		return nil, err
	}
	return append(b, parameters...)[:size], nil
}

func (c control) resume(ctx context.Context, id vm.ID) error {
	if err := c.change(ctx, "dm.resume", unix.DM_DEV_SUSPEND, request{uuid: UUID(id)}); err != nil {
		return fmt.Errorf("resume it: %w", err)
	}
	return nil
}

// suspend freezes nothing above the device: a guest's file system is not mounted here.
func (c control) suspend(ctx context.Context, id vm.ID) error {
	err := c.change(ctx, "dm.suspend", unix.DM_DEV_SUSPEND, request{uuid: UUID(id), flags: unix.DM_SUSPEND_FLAG | unix.DM_SKIP_LOCKFS_FLAG})
	if err != nil {
		return fmt.Errorf("suspend device-mapper device %s: %w", Name(id), err)
	}
	return nil
}

// wipe makes what waits in a suspended device fail, and all that comes.
func (c control) wipe(ctx context.Context, d Device) error {
	words := strings.Fields(d.Table)
	if len(words) < 2 {
		return nil // without a table nothing waits
	}
	if err := c.load(ctx, "dm.wipe", d.ID, words[0]+" "+words[1]+" error"); err != nil {
		return err
	}
	err := c.change(ctx, "dm.resume", unix.DM_DEV_SUSPEND, request{uuid: UUID(d.ID), flags: unix.DM_SKIP_LOCKFS_FLAG | unix.DM_NOFLUSH_FLAG})
	if err != nil {
		return fmt.Errorf("resume it: %w", err)
	}
	return nil
}

// drop removes a device that nobody has open; EBUSY when somebody has. None is success.
func (c control) drop(ctx context.Context, id vm.ID) error {
	err := c.change(ctx, "dm.remove", unix.DM_DEV_REMOVE, request{uuid: UUID(id)})
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	return err
}

// node is where a device is opened: at the kernel's own node, which is there as soon as the device has a table. Only where
// /dev is not kept by the kernel (in a container) it is one that we make.
func node(id vm.ID, dev uint64) string {
	kernels := filepath.Join("/dev", "dm-"+strconv.Itoa(int(unix.Minor(dev))))
	if number, err := blockdev.Number(kernels); err == nil && number == blockdev.Format(dev) {
		return kernels
	}
	return Link(id)
}

func (c control) ensureNode(ctx context.Context, d Device) error {
	if d.Path != Link(d.ID) {
		return nil
	}
	return blockdev.EnsureNode(ctx, d.Path, d.Number)
}
