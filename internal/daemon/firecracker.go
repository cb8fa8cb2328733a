package daemon

import (
	"context"
	"hash/fnv"
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

// uidsOf are the users of jails. config.Load has seen that they fit. Daemons know nothing of each other's: unless config.toml
// says where they are, each with a root of its own begins at another place among them, so that two seldom take the same.
func uidsOf(p paths.Paths, c config.Firecracker) engine.UIDs {
	u := engine.UIDs{First: uint32(c.FirstUID), Count: uint32(c.UIDs)} //nolint:gosec // see above
	if root := ownRoot(p); root != "" && c.FirstUID == config.Default().Firecracker.FirstUID {
		sum := fnv.New32a()
		_, _ = sum.Write([]byte(root))
		u.Begin = u.First + sum.Sum32()%u.Count
	}
	return u
}
