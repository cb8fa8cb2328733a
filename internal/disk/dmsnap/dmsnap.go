// Package dmsnap makes overlays of Linux's dm-snapshot: a block device that reads from the image and writes to a sparse file,
// the store. Any VMM opens it, on any file system; it needs root, and each first write to a chunk costs three.
//
// Three kernel objects hold an overlay, and each is found again from its id or file: a read-only loop device on the image,
// shared by all its overlays; one on the store; the device-mapper device on both. None is remembered here.
package dmsnap

import (
	"context"
	"errors"
	"fmt"
	"os"

	"banger/internal/disk"
	"banger/internal/host/blockdev"
	"banger/internal/host/dm"
	"banger/internal/host/file"
	"banger/internal/host/loop"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// Driver implements disk.Driver and disk.Guard.
type Driver struct {
	// shared is held, by having put something in, from the look for an image's loop device until a device stands on it, and
	// while one is removed that nobody stands on: else one VM's end takes another's device away.
	shared chan struct{}

	trials *inventory.Work
}

// New returns the driver. All overlays of an image have to be made through one.
func New() Driver {
	return Driver{shared: make(chan struct{}, 1), trials: new(inventory.Work)}
}

// lock gives up when ctx ends, but not where it need not wait: a tear-down goes as far as it can.
func (d Driver) lock(ctx context.Context) error {
	select {
	case d.shared <- struct{}{}:
		return nil
	default:
	}
	select {
	case d.shared <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d Driver) unlock() { <-d.shared }

const name = "dmsnap"

// Name is "dmsnap".
func (Driver) Name() string { return name }

// Suits every VMM: the overlay is a block device.
func (Driver) Suits(string) bool { return true }

// Ensure makes the store unless it is there, and attaches it. A store that is there must stand on o.Base and be whole
// (vm.CodeCorrupt when not).
func (d Driver) Ensure(ctx context.Context, o disk.Overlay) (disk.Attached, error) {
	id, err := vm.ParseID(o.ID)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	st, err := os.Stat(o.Base)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	want := stampOf(o.Base, st.Size())
	if err := file.Create(ctx, "overlay", o.Path, func(tmp string) error { return writeStore(tmp, want) }); err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	if err := check(o.Path, want); err != nil {
		return disk.Attached{}, err
	}
	_, before, err := dm.Find(id)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	a, err := d.attach(ctx, id, o)
	if err != nil && !before {
		err = errors.Join(err, d.Detach(context.WithoutCancel(ctx), o))
	}
	return a, err
}

func check(path string, want stamp) error {
	got, valid, err := readStore(path)
	const reset = "vm reset makes a new one; everything but /root is lost"
	switch {
	case err != nil:
		return vm.Errorf(vm.CodeCorrupt, "check overlay %s: %w", path, err).WithHint(reset)
	case got != want:
		return vm.Errorf(vm.CodeCorrupt, "overlay %s stands on image %s of %d bytes, not on %s of %d", path, got.image, got.size, want.image, want.size)
	case !valid:
		return invalid(path, disk.StoreInvalid)
	}
	return nil
}

func invalid(path, state string) error {
	return vm.Errorf(vm.CodeCorrupt, "overlay %s is %s: a write to it failed, most likely because the host's disk was full", path, state).
		WithHint("free some space on the file system of %s and start the VM: that repairs it; if it does not, vm reset makes a new overlay, and everything but /root is lost", path)
}

func (d Driver) attach(ctx context.Context, id vm.ID, o disk.Overlay) (disk.Attached, error) {
	if err := d.lock(ctx); err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	defer d.unlock()
	base, err := loop.Ensure(ctx, o.Base, true)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	cow, err := loop.Ensure(ctx, o.Path, false)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	sectors, err := blockdev.Size(base.Number)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	// P: exceptions are kept across activations. O: a store that is full fails writes instead of losing everything.
	table := fmt.Sprintf("0 %d snapshot %s %s PO %d", sectors, base.Number, cow.Number, chunkSectors)
	dev, err := dm.Ensure(ctx, id, table)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	if err := stillOn(o, base, cow); err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	status, err := dm.Status(id)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	h, err := parseStatus(status)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	if h.State != disk.StoreOK {
		return disk.Attached{}, invalid(o.Path, h.State)
	}
	return disk.Attached{
		Path: dev.Path, Format: "raw", Block: true,
		BaseLoop: base.Path, CowLoop: cow.Path, DMName: dev.Name, DMDev: dev.Number,
	}, nil
}

// stillOn looks again whether the loop devices are those of the two files. Until the device stood on them somebody could
// have taken them away (losetup -D), and their numbers could have got other files.
func stillOn(o disk.Overlay, base, cow loop.Device) error {
	for path, d := range map[string]loop.Device{o.Base: base, o.Path: cow} {
		still, err := d.Still(path)
		if err != nil {
			return fmt.Errorf("look again at loop device %s of %s: %w", d.Path, path, err)
		}
		if !still {
			return fmt.Errorf("loop device %s of %s was taken away by somebody else", d.Path, path)
		}
	}
	return nil
}

// Detach removes the device, the store's loop device, and the image's when no other overlay stands on it.
func (d Driver) Detach(ctx context.Context, o disk.Overlay) error {
	id, err := vm.ParseID(o.ID)
	if err != nil {
		return fmt.Errorf("detach overlay %s: %w", o.Path, err)
	}
	err = errors.Join(dm.Remove(ctx, id), loop.Remove(ctx, o.Path), d.dropBase(ctx, o.Base))
	if err != nil {
		return fmt.Errorf("detach overlay %s: %w", o.Path, err)
	}
	return nil
}

func (d Driver) dropBase(ctx context.Context, base string) error {
	if err := d.lock(ctx); err != nil {
		return err
	}
	defer d.unlock()
	return loop.RemoveUnused(ctx, base)
}

// Remove detaches, and deletes the store. It stays while a device could not be removed: deleted it would go on taking
// space where nobody sees it.
func (d Driver) Remove(ctx context.Context, o disk.Overlay) error {
	if err := d.Detach(ctx, o); err != nil {
		if held, ferr := loop.Find(o.Path); ferr != nil || len(held) > 0 {
			return err
		}
		return errors.Join(err, file.Remove(ctx, "overlay", o.Path))
	}
	return file.Remove(ctx, "overlay", o.Path)
}
