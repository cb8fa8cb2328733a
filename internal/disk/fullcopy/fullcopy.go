// Package fullcopy makes overlays as whole copies of the image, holes kept. It works everywhere, shares nothing and
// costs the image's size and a second or so per VM: the last resort.
package fullcopy

import (
	"context"

	"banger/internal/disk"
	"banger/internal/host/file"
	"banger/internal/inventory"
)

// Driver implements disk.Driver.
type Driver struct{ trials *inventory.Work }

// New returns the driver.
func New() Driver { return Driver{new(inventory.Work)} }

const name = "copy"

// Name is "copy".
func (Driver) Name() string { return name }

// Suits every VMM: the overlay is a plain file.
func (Driver) Suits(string) bool { return true }

// Probe makes a file in the VM's directory; reading images is what everybody needs.
func (d Driver) Probe(ctx context.Context, _, vmDir string) error {
	defer d.trials.Begin()()
	f, remove, err := file.Temp(ctx, "probe", vmDir, disk.ProbePrefix(name)+"*")
	if err != nil {
		return err
	}
	defer remove()
	return f.Close()
}

// Sweep implements disk.Driver.
func (Driver) Sweep(ctx context.Context, _ []string, vmDir string) error {
	return disk.SweepFiles(ctx, name, vmDir)
}

// Kinds implements inventory.Source.
func (d Driver) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{disk.TrialFiles(d.trials, d.Name(), p)}
}

// Ensure copies the image unless the overlay is there. A cancelled ctx ends the copy and leaves nothing.
func (Driver) Ensure(ctx context.Context, o disk.Overlay) (disk.Attached, error) {
	err := file.Create(ctx, "overlay", o.Path, func(tmp string) error { return file.CopySparse(ctx, tmp, o.Base) })
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
