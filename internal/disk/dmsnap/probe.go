package dmsnap

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/act"
	"banger/internal/disk"
	"banger/internal/host/file"
	"banger/internal/vm"
)

// probeSize is that of the image Probe makes.
const probeSize = 1 << 20

// probed is the overlay of a probe. Its files are named by its id, so that what holds them is found again by them.
func probed(id, imageDir, vmDir string) disk.Overlay {
	base := disk.ProbePrefix(name) + id
	return disk.Overlay{ID: id, Base: filepath.Join(imageDir, base), Path: filepath.Join(vmDir, base+"-store")}
}

// Probe makes an overlay of a small image and writes to it.
func (d Driver) Probe(ctx context.Context, imageDir, vmDir string) (err error) {
	defer d.trials.Begin()()
	o := probed(string(vm.NewID()), imageDir, vmDir)
	defer func() { err = errors.Join(err, d.unprobe(context.WithoutCancel(ctx), o)) }()
	err = act.Do(ctx, "probe", func() error {
		f, err := os.OpenFile(o.Base, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(probeSize), f.Close())
	})
	if err != nil {
		return err
	}
	a, err := d.Ensure(ctx, o)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(a.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, chunk), 0)
	return errors.Join(err, f.Sync(), f.Close())
}

func (d Driver) unprobe(ctx context.Context, o disk.Overlay) error {
	if err := d.Remove(ctx, o); err != nil {
		return err // what is left is found by its files
	}
	return file.Remove(ctx, "probe", o.Base)
}

// Sweep implements disk.Driver. The image is the last to go: it tells of all else.
func (d Driver) Sweep(ctx context.Context, imageDirs []string, vmDir string) error {
	var errs []error
	for _, dir := range imageDirs {
		left, err := disk.Probes(name, dir)
		errs = append(errs, err)
		for _, path := range left {
			id := strings.TrimPrefix(filepath.Base(path), disk.ProbePrefix(name))
			if _, err := vm.ParseID(id); err == nil {
				errs = append(errs, d.unprobe(ctx, probed(id, dir, vmDir)))
			}
		}
	}
	return errors.Join(errs...)
}
