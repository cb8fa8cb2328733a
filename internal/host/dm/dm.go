// Package dm is the thin hand on device-mapper devices, one per VM. It looks by the kernel's own calls and changes things
// by the dmsetup program, which keeps step with udev (docs/adr/0003-device-mapper.md). It knows no targets, and touches only
// devices that carry our mark.
package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/blockdev"
	"banger/internal/host/proc"
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

// Path is the device's node of a VM by rule.
func Path(id vm.ID) string { return filepath.Join(dir, Name(id)) }

// Device is a device-mapper device.
type Device struct {
	ID        vm.ID
	Name      string
	Number    string // "253:0"
	Open      int    // how many have it open, mounts and devices on top included
	Loaded    bool   // has a table in use
	Suspended bool
	Table     string // of one target: "0 65536 snapshot 7:0 7:1 PO 8"; devices are written as numbers
}

// patience bounds how long a device that is to go may stay in use: a VMM that was killed closes it a moment later, and udev
// looks into each new one.
const patience = 5 * time.Second

// Ensure makes the VM's device with this table, and its node, and resumes it if it is suspended. A device of ours with
// another table, or with none (left by a crash), is replaced. Errors: vm.CodeExists when somebody else's device has its
// name, CodeConflict when the one to replace is in use, CodeMissing without device-mapper or dmsetup.
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
	var made error
	for range 3 { // a dmsetup of a daemon that was killed may be at it still
		if err := ctx.Err(); err != nil {
			return Device{}, err
		}
		d, there, err := c.find(id)
		if err != nil {
			return Device{}, err
		}
		if there && d.Loaded && d.Table == table {
			if d.Suspended {
				if err := dmsetup(ctx, "dm.resume", "resume", "--uuid", UUID(id)); err != nil {
					return Device{}, err
				}
				d.Suspended = false
			}
			return d, blockdev.EnsureNode(ctx, Path(id), d.Number)
		}
		if there {
			if err := c.remove(ctx, d); err != nil {
				return Device{}, err
			}
		}
		if err := c.nameIsFree(id); err != nil {
			return Device{}, err
		}
		made = dmsetup(ctx, "dm", "create", Name(id), "--uuid", UUID(id), "--table", table)
	}
	if made == nil {
		made = fmt.Errorf("it does not keep the table %q", table)
	}
	return Device{}, made
}

// AwaitOthers returns when no dmsetup is at the VM's device. One that a killed daemon had begun goes on without it, and
// would remove what the next has just made.
func AwaitOthers(ctx context.Context, id vm.ID) error {
	others, err := proc.Find(func(args []string) bool {
		return len(args) > 0 && filepath.Base(args[0]) == "dmsetup" && slices.Contains(args, UUID(id))
	})
	ctx, cancel := context.WithTimeout(ctx, hung)
	defer cancel()
	for _, o := range others {
		err = errors.Join(err, proc.Wait(ctx, o))
	}
	if err != nil {
		return fmt.Errorf("wait for another dmsetup at device-mapper device %s: %w", Name(id), err)
	}
	return nil
}

// Find returns the VM's device. Without device-mapper there is none.
func Find(id vm.ID) (Device, bool, error) {
	c, err := open()
	if errors.Is(err, errNone) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, err
	}
	defer c.close()
	return c.find(id)
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
	if errors.Is(err, errNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.close()
	uuids, err := c.uuids()
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

// Suspend lets I/O that is under way end and makes all other wait until Resume. No device, or suspended already: success.
func Suspend(ctx context.Context, id vm.ID) error {
	d, there, err := Find(id)
	if err != nil || !there || d.Suspended {
		return err
	}
	// A guest's file system is not mounted here, so there is nothing to freeze above the device.
	return dmsetup(ctx, "dm.suspend", "suspend", "--nolockfs", "--uuid", UUID(id))
}

// Resume lets I/O that waits go on. No device, or not suspended: success.
func Resume(ctx context.Context, id vm.ID) error {
	d, there, err := Find(id)
	if err != nil || !there || !d.Suspended {
		return err
	}
	return dmsetup(ctx, "dm.resume", "resume", "--uuid", UUID(id))
}

// Remove removes the VM's device and its node; none is success, and so is somebody else's of that name. I/O that waits in a
// suspended one fails: whoever waits for it could not end otherwise. vm.CodeConflict, with who has it open, when it stays
// in use for some seconds.
func Remove(ctx context.Context, id vm.ID) error {
	c, err := open()
	if errors.Is(err, errNone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.close()
	d, there, err := c.find(id)
	if err == nil && there {
		err = c.remove(ctx, d)
	}
	if err == nil && c.nameIsFree(id) == nil {
		err = blockdev.RemoveNode(ctx, Path(id)) // libdevmapper leaves a node that it did not make
	}
	if err != nil {
		return fmt.Errorf("remove device-mapper device %s: %w", Name(id), err)
	}
	return nil
}

func (c control) remove(ctx context.Context, d Device) error {
	if d.Suspended && d.Open > 0 {
		if err := dmsetup(ctx, "dm.wipe", "wipe_table", d.Name); err != nil {
			return err
		}
	}
	if err := c.awaitClosed(ctx, d.ID); err != nil {
		return err
	}
	err := dmsetup(ctx, "dm.remove", "remove", "--retry", "--uuid", UUID(d.ID))
	if d, there, ferr := c.find(d.ID); err != nil && ferr == nil {
		switch {
		case !there:
			return nil // somebody else did it
		case d.Open > 0:
			return busy(d)
		}
	}
	return err
}

// awaitClosed waits until nobody has the device open. The kernel tells nobody when that is.
func (c control) awaitClosed(ctx context.Context, id vm.ID) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; {
		d, there, err := c.find(id)
		if err != nil || !there || d.Open == 0 {
			return err
		}
		if time.Now().After(end) {
			return busy(d)
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

// hung is how long dmsetup may take. It waits for udev, and for ever when udev died under it; the device is as it should
// be by then.
const hung = 20 * time.Second

// dmsetup is not ended by its context: killed half-way it would leave a device without a table, and it takes milliseconds.
func dmsetup(ctx context.Context, what string, args ...string) error {
	program, err := Program()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(context.Background(), hung)
	defer cancel()
	var out []byte
	err = act.Do(ctx, what, func() error {
		cmd := exec.CommandContext(bounded, program, args...)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "DM_DEV_DIR=/dev")
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return fmt.Errorf("dmsetup %s: %w: %s", strings.Join(args, " "), err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}

// Program is dmsetup's path. It lies where ordinary users' PATH does not reach.
func Program() (string, error) {
	for _, name := range []string{"dmsetup", "/usr/sbin/dmsetup", "/sbin/dmsetup"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", vm.Errorf(vm.CodeMissing, "dmsetup is not installed").WithHint("apt install dmsetup")
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
