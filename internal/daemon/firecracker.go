package daemon

import (
	"context"
	"log/slog"

	"banger/internal/binary"
	"banger/internal/config"
	"banger/internal/engine"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
)

// firecrackerOf makes the driver, and the library of its programs: each asks the other, so that what is installed is used
// at once.
func firecrackerOf(p paths.Paths, c config.Firecracker, kernels *kernel.Library, log *slog.Logger) (*firecracker.Driver, *binary.Library) {
	var driver *firecracker.Driver
	programs := binary.New(binary.Config{
		Dir: p.VMMs(), Binary: c.Binary, Jailer: c.Jailer, Release: c.Release,
		Programs: binary.Programs{
			Tested: firecracker.Tested, Supported: firecracker.Supported, Supports: firecracker.Supports,
			Version: firecracker.Version, Resolve: firecracker.Program,
			Probe: func(ctx context.Context) vmm.Probe { return driver.Probe(ctx) },
		},
	})
	driver = firecracker.New(firecracker.Config{
		Locate: programs.Locate, NoJail: !c.Jail, StateDir: p.Cache, VMs: p.VMs(), ProveBoot: proveBoot(kernels), Logger: log,
	})
	return driver, programs
}

// uidsOf are the users of jails. config.Load has seen that they fit.
func uidsOf(c config.Firecracker) engine.UIDs {
	return engine.UIDs{First: uint32(c.FirstUID), Count: uint32(c.UIDs)} //nolint:gosec // see above
}
