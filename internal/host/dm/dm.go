// Package dm is the thin hand on device-mapper devices, one per VM, by the kernel's own calls (docs/adr/0003-device-mapper.md).
// It knows no targets, and touches only devices that carry our mark.
package dm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/blockdev"
	"banger/internal/vm"
)

// A device's name can be anybody's. Its uuid, given when it was made, is what proves that it is ours; nobody can change it.
const (
	namePrefix = "banger-"
	uuidPrefix = "BANGER-"
	dir        = "/dev/mapper"
)

// Name is the device's name of a VM by rule.
func Name(id vm.ID) string { return namePrefix + string(id) }

// UUID is the device's mark of a VM by rule.
func UUID(id vm.ID) string { return uuidPrefix + string(id) }

// Link is the name by which people know a VM's device: udev makes it, a moment after the device, and takes it away. Where
// the kernel keeps no nodes in /dev, it is a node, and ours.
func Link(id vm.ID) string { return filepath.Join(dir, Name(id)) }

// Device is a device-mapper device.
type Device struct {
	ID        vm.ID
	Name      string
	Number    string // "253:0"
	Path      string // its node
	Open      int    // how many have it open, mounts and devices on top included
	Loaded    bool   // has a table in use
	Suspended bool
	Table     string // of one target: "0 65536 snapshot 7:0 7:1 PO 8"; devices are written as numbers
}

// patience bounds how long a device that is to go may stay in use: a VMM that was killed closes it a moment later, and udev
// looks into each new one.
const patience = 5 * time.Second

// Ensure makes the VM's device with this table of one target, and its node, and resumes it if it is suspended. A device of
// ours with another table, or with none (left by a crash), is replaced. Errors: vm.CodeExists when somebody else's device
// has its name, CodeConflict when the one to replace is in use, CodeMissing without device-mapper.
func Ensure(ctx context.Context, id vm.ID, table string) (Device, error) {
	d, err := ensure(ctx, id, table)
	if err != nil {
		return Device{}, fmt.Errorf("make device-mapper device %s: %w", Name(id), err)
	}
	return d, nil
}

func ensure(ctx context.Context, id vm.ID, table string) (Device, error) {
	c, err := open()
	if err != nil {
		return Device{}, err
	}
	defer c.close()
	d, there, err := c.find(id)
	if err != nil {
		return Device{}, err
	}
	if there && (!d.Loaded || d.Table != table) {
		if err := c.remove(ctx, d); err != nil {
			return Device{}, err
		}
		there = false
	}
	if !there {
		if err := c.nameIsFree(id); err != nil {
			return Device{}, err
		}
		if err := c.make(ctx, id, table); err != nil {
			return Device{}, err
		}
		if d, there, err = c.find(id); err != nil {
			return Device{}, err
		}
		if !there || d.Table != table {
			return Device{}, fmt.Errorf("it does not keep the table %q", table)
		}
	}
	if d.Suspended {
		if err := c.resume(ctx, id); err != nil {
			return Device{}, err
		}
		d.Suspended = false
	}
	return d, c.ensureNode(ctx, d)
}

// Find returns the VM's device. Without device-mapper there is none.
func Find(id vm.ID) (Device, bool, error) {
	c, err := open()
	if none(err) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, err
	}
	defer c.close()
	d, there, err := c.find(id)
	if none(err) {
		err = nil
	}
	return d, there, err
}

// Status is what the target of the VM's device says of itself: "0 65536 snapshot 16/81920 16".
func Status(id vm.ID) (string, error) {
	c, err := open()
	if err != nil {
		return "", err
	}
	defer c.close()
	s, err := c.table(UUID(id), false)
	if err != nil {
		return "", fmt.Errorf("ask device-mapper device %s: %w", Name(id), err)
	}
	return s, nil
}

// List returns our devices.
func List() ([]Device, error) {
	c, err := open()
	if none(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.close()
	uuids, err := c.uuids()
	if none(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list device-mapper devices: %w", err)
	}
	var ours []Device
	for _, uuid := range uuids {
		id, err := vm.ParseID(strings.TrimPrefix(uuid, uuidPrefix))
		if err != nil || !strings.HasPrefix(uuid, uuidPrefix) {
			continue
		}
		d, there, err := c.find(id)
		if err != nil {
			return nil, err
		}
		if there {
			ours = append(ours, d)
		}
	}
	return ours, nil
}

// hung is how long a suspension may wait for I/O that is under way: on a file system that hangs it would wait for ever.
const hung = 20 * time.Second

// Suspend lets I/O that is under way end and makes all other wait until Resume. No device, or suspended already: success.
func Suspend(ctx context.Context, id vm.ID) error {
	d, there, err := Find(id)
	if err != nil || !there || d.Suspended {
		return err
	}
	done := make(chan error, 1)
	go func() {
		c, err := open()
		if err == nil {
			err = c.suspend(ctx, id)
			c.close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(hung):
		return fmt.Errorf("suspend device-mapper device %s: I/O that is under way does not end", Name(id))
	}
}

// Resume lets I/O that waits go on. No device, or not suspended: success.
func Resume(ctx context.Context, id vm.ID) error {
	return suspended(id, func(c control, _ Device) error { return c.resume(ctx, id) })
}

// Wipe makes I/O that waits in the VM's suspended device fail, and all that comes; its table is gone. No device, or not
// suspended: success.
func Wipe(ctx context.Context, id vm.ID) error {
	return suspended(id, func(c control, d Device) error {
		if err := c.wipe(ctx, d); err != nil {
			return fmt.Errorf("wipe device-mapper device %s: %w", Name(id), err)
		}
		return nil
	})
}

// suspended does something to the VM's device where it is suspended; no device, or another state: success.
func suspended(id vm.ID, do func(control, Device) error) error {
	d, there, err := Find(id)
	if err != nil || !there || !d.Suspended {
		return err
	}
	c, err := open()
	if err != nil {
		return err
	}
	defer c.close()
	return do(c, d)
}

// Remove removes the VM's device and its node; none is success, and so is somebody else's of that name. I/O that waits in a
// suspended one fails: whoever waits for it could not end otherwise. vm.CodeConflict, with who has it open, when it stays
// in use for some seconds.
func Remove(ctx context.Context, id vm.ID) error {
	c, err := open()
	if none(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.close()
	d, there, err := c.find(id)
	if none(err) {
		return nil
	}
	if err == nil && there {
		err = c.remove(ctx, d)
	}
	if err == nil && c.nameIsFree(id) == nil {
		err = blockdev.RemoveNode(ctx, Link(id)) // udev leaves a node that it did not make
	}
	if err != nil {
		return fmt.Errorf("remove device-mapper device %s: %w", Name(id), err)
	}
	return nil
}

// remove removes a device when nobody has it open. The kernel tells nobody when that is, and udev looks into each new
// device: closed a moment ago, it can be open again.
func (c control) remove(ctx context.Context, d Device) error {
	if d.Suspended && d.Open > 0 {
		if err := c.wipe(ctx, d); err != nil {
			return err
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; {
		now, there, err := c.find(d.ID)
		if err != nil || !there {
			return err
		}
		if now.Open == 0 {
			err = c.drop(ctx, d.ID)
			if !errors.Is(err, unix.EBUSY) {
				return err
			}
		}
		if time.Now().After(end) {
			return busy(now)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func busy(d Device) error {
	return vm.Errorf(vm.CodeConflict, "%s (%s) is in use by %s", d.Name, d.Number, blockdev.Holders(d.Number))
}

// nameIsFree refuses when a device that is not ours has the VM's name.
func (c control) nameIsFree(id vm.ID) error {
	uuid, err := c.uuidOf(Name(id))
	switch {
	case errors.Is(err, unix.ENXIO):
		return nil
	case err != nil:
		return err
	case uuid == UUID(id): // made since the last look
		return nil
	}
	return vm.Errorf(vm.CodeExists, "the name %s belongs to a device-mapper device that is not banger's (uuid %q)", Name(id), uuid).
		WithHint("look at it with dmsetup info %s", Name(id))
}
