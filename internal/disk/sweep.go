package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/host/file"
	"banger/internal/inventory"
)

// ProbePrefix begins the names of all files that a driver's probes make.
func ProbePrefix(driver string) string { return ".probe-" + driver + "-" }

// SweepFiles removes the files of a driver's probes from directories: all of Sweep where a probe makes nothing else.
func SweepFiles(ctx context.Context, driver string, dirs ...string) error {
	var errs []error
	for _, dir := range dirs {
		left, err := Probes(driver, dir)
		errs = append(errs, err)
		for _, path := range left {
			errs = append(errs, file.Remove(ctx, "probe", path))
		}
	}
	return errors.Join(errs...)
}

// Probes lists the files that a driver's probes left in a directory. (No glob: a path may hold its special characters.)
func Probes(driver, dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ProbePrefix(driver)) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, err
}

// Sweep has every driver clear away what probes left.
func Sweep(ctx context.Context, drivers []Driver, p inventory.Place) error {
	imageDirs, err := imageDirs(p)
	errs := []error{err}
	for _, d := range drivers {
		errs = append(errs, d.Sweep(ctx, imageDirs, p.VMs))
	}
	return errors.Join(errs...)
}

// imageDirs are the directories that drivers are tried from: an image's for a VM, the root's own for doctor, and that of
// all images.
func imageDirs(p inventory.Place) ([]string, error) {
	dirs := []string{p.State, p.Images}
	images, err := os.ReadDir(p.Images)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, e := range images {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(p.Images, e.Name()))
		}
	}
	return dirs, err
}
