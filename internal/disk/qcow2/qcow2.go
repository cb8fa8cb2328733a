// Package qcow2 makes overlays that QEMU itself reads and writes: a few KiB per VM on any file system, no root needed.
//
// The empty file is written here, not by qemu-img: that is another package on most hosts, and its start costs more than
// all else that is done for a disk.
package qcow2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"banger/internal/disk"
	"banger/internal/host/file"
	"banger/internal/inventory"
	format "banger/internal/qcow2"
	"banger/internal/vm"
)

// Driver implements disk.Driver.
type Driver struct{ trials *inventory.Work }

// New returns the driver.
func New() Driver { return Driver{new(inventory.Work)} }

const name = "qcow2"

// Name is "qcow2".
func (Driver) Name() string { return name }

// Suits QEMU only.
func (Driver) Suits(vmmName string) bool { return vmmName == "qemu" }

// Probe makes an empty overlay in the VM's directory.
func (d Driver) Probe(ctx context.Context, _, vmDir string) error {
	defer d.trials.Begin()()
	f, remove, err := file.Temp(ctx, "probe", vmDir, disk.ProbePrefix(name)+"*")
	if err != nil {
		return err
	}
	defer remove()
	return errors.Join(format.WriteEmpty(f, "probe", format.Cluster), f.Close())
}

// Sweep implements disk.Driver.
func (Driver) Sweep(ctx context.Context, _ []string, vmDir string) error {
	return disk.SweepFiles(ctx, name, vmDir)
}

// Kinds implements inventory.Source.
func (d Driver) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{disk.TrialFiles(d.trials, d.Name(), p)}
}

// Ensure makes the overlay unless it is there. One that is there must stand on o.Base (vm.CodeCorrupt when not): its
// content means nothing on another image.
func (Driver) Ensure(ctx context.Context, o disk.Overlay) (disk.Attached, error) {
	base, err := filepath.Abs(o.Base) // QEMU takes a relative name as relative to the overlay
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	st, err := os.Stat(base)
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	if err := file.Create(ctx, "overlay", o.Path, func(tmp string) error { return create(tmp, base, st.Size()) }); err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	if err := check(o.Path, base); err != nil {
		return disk.Attached{}, err
	}
	return disk.Attached{Path: o.Path, Format: "qcow2"}, nil
}

func create(path, base string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(format.WriteEmpty(f, base, size), f.Close())
}

func check(path, base string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("check overlay %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	i, err := format.Open(f)
	if err == nil && i.Backing == "" {
		err = errors.New("qcow2 file has no backing file")
	}
	if err != nil {
		return vm.Errorf(vm.CodeCorrupt, "check overlay %s: %w", path, err).WithHint("vm reset makes a new one; everything but /root is lost")
	}
	if got := i.Backing; got != base {
		return vm.Errorf(vm.CodeCorrupt, "overlay %s stands on %s, not on %s", path, got, base).
			WithHint("qemu-img rebase -u -F raw -b %s %s, if the image was only moved", base, path)
	}
	return nil
}

// Detach has nothing to do: QEMU holds the file, the kernel nothing.
func (Driver) Detach(context.Context, disk.Overlay) error { return nil }

// Flatten copies the image, and writes over that what the overlay has.
func (Driver) Flatten(ctx context.Context, o disk.Overlay, dst string) error {
	base, err := filepath.Abs(o.Base)
	if err != nil {
		return disk.FlattenError(o, err)
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return disk.FlattenError(o, err)
	}
	defer func() { _ = f.Close() }()
	if err := check(o.Path, base); err != nil {
		return err
	}
	i, err := format.Open(f)
	if err == nil {
		err = file.Copy(ctx, dst, base)
	}
	if err == nil {
		err = over(ctx, dst, i)
	}
	return disk.FlattenError(o, err)
}

func over(ctx context.Context, dst string, i *format.Image) error {
	out, err := os.OpenFile(dst, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(i.CopyTo(ctx, out), out.Close())
}

// Remove deletes the file.
func (Driver) Remove(ctx context.Context, o disk.Overlay) error {
	return file.Remove(ctx, "overlay", o.Path)
}
