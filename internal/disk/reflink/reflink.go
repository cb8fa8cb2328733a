// Package reflink makes overlays as raw files that share the image's blocks on btrfs, XFS and the like. Any VMM opens
// them, nothing stands in the way of I/O, and the kernel holds nothing for them.
package reflink

import (
	"context"
	"slices"

	"banger/internal/disk"
	"banger/internal/host/file"
	"banger/internal/inventory"
)

// Driver implements disk.Driver.
type Driver struct{ trials *inventory.Work }

// New returns the driver.
func New() Driver { return Driver{new(inventory.Work)} }

const name = "reflink"

// Name is "reflink".
func (Driver) Name() string { return name }

// Suits every VMM: the overlay is a plain file.
func (Driver) Suits(string) bool { return true }

// Probe clones a block from one directory to the other.
func (d Driver) Probe(ctx context.Context, imageDir, vmDir string) error {
	defer d.trials.Begin()()
	src, remove, err := file.Temp(ctx, "probe", imageDir, disk.ProbePrefix(name)+"*")
	if err != nil {
		return err
	}
	defer remove()
	_, err = src.Write(make([]byte, 4096))
	if cerr := src.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	dst, remove, err := file.Temp(ctx, "probe", vmDir, disk.ProbePrefix(name)+"*")
	if err != nil {
		return err
	}
	defer remove()
	if err := dst.Close(); err != nil {
		return err
	}
	return file.Clone(dst.Name(), src.Name())
}

// Sweep implements disk.Driver.
func (Driver) Sweep(ctx context.Context, imageDirs []string, vmDir string) error {
	return disk.SweepFiles(ctx, name, append(slices.Clone(imageDirs), vmDir)...)
}

// Kinds implements inventory.Source.
func (d Driver) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{disk.TrialFiles(d.trials, d.Name(), p)}
}

// Ensure clones the image unless the overlay is there.
func (Driver) Ensure(ctx context.Context, o disk.Overlay) (disk.Attached, error) {
	err := file.Create(ctx, "overlay", o.Path, func(tmp string) error { return file.Clone(tmp, o.Base) })
	if err != nil {
		return disk.Attached{}, disk.MakeError(o, err)
	}
	return disk.Attached{Path: o.Path, Format: "raw"}, nil
}

// Detach has nothing to do.
func (Driver) Detach(context.Context, disk.Overlay) error { return nil }

// Flatten copies the overlay, which is a whole disk already.
func (Driver) Flatten(ctx context.Context, o disk.Overlay, dst string) error {
	return disk.FlattenError(o, file.Copy(ctx, dst, o.Path))
}

// Remove deletes the file.
func (Driver) Remove(ctx context.Context, o disk.Overlay) error {
	return file.Remove(ctx, "overlay", o.Path)
}
