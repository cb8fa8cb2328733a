package daemon

import (
	"log/slog"

	"banger/internal/config"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/vmm"
)

// MainWith is Main with one VMM driver in place of all there are.
func MainWith(args []string, driver vmm.Driver) int {
	return mainWith(args, func(p paths.Paths, c config.Config, k *kernel.Library, log *slog.Logger) (Drivers, error) {
		d, err := driversOf(p, c, k, log)
		d.VMMs = []vmm.Driver{driver}
		return d, err
	})
}
