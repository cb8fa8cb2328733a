package daemon

import (
	"log/slog"
	"slices"
	"testing"

	"banger/internal/config"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/vm"
)

// What flags and configuration take is what there is.
func TestDriversAreThoseThatCanBeAskedFor(t *testing.T) {
	d, err := driversOf(paths.Under(t.TempDir()), config.Default(), kernel.New(kernel.Config{}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	defer d.Programs.Close()
	same := func(what string, known []string, there []string) {
		if !slices.Equal(known, there) {
			t.Errorf("%s that can be asked for are %q, there are %q", what, known, there)
		}
	}
	var names []string
	for _, x := range d.VMMs {
		names = append(names, x.Name())
	}
	same("VMMs", vm.VMMDrivers(), names)
	names = nil
	for _, x := range d.Disks {
		names = append(names, x.Name())
	}
	same("disks", vm.DiskDrivers(), names)
	names = nil
	for _, x := range d.Networks {
		names = append(names, x.Name())
	}
	same("networks", vm.NetworkDrivers(), names)
}
