package daemon

import (
	"log/slog"

	"banger/internal/binary"
	"banger/internal/config"
	"banger/internal/disk"
	"banger/internal/disk/dmsnap"
	"banger/internal/disk/fullcopy"
	"banger/internal/disk/qcow2"
	"banger/internal/disk/reflink"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/network/bridge"
	"banger/internal/network/none"
	"banger/internal/network/user"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

// Drivers are all there are, in the order in which "auto" tries them; vm.VMMDrivers and its like name the same ones.
type Drivers struct {
	VMMs     []vmm.Driver
	Programs *binary.Library // of VMMs
	Disks    []disk.Driver
	Networks []network.Driver
	Close    func()
}

// wiring makes them.
type wiring func(paths.Paths, config.Config, *kernel.Library, *slog.Logger) (Drivers, error)

func driversOf(p paths.Paths, c config.Config, kernels *kernel.Library, log *slog.Logger) (Drivers, error) {
	subnet, err := c.Network.Bridge.Prefix()
	if err != nil {
		return Drivers{}, err
	}
	firecracker, programs := firecrackerOf(p, c.Firecracker, kernels, log)
	b := bridge.New(bridge.Config{
		Name: bridge.NameFor(ownRoot(p)), Subnet: subnet, Log: log,
		Peers: c.Network.Bridge.AllowPeers, Host: c.Network.Bridge.AllowHost, Metadata: c.Network.Bridge.AllowMetadata,
	})
	return Drivers{
		VMMs:     []vmm.Driver{firecracker, qemu.New(qemu.Config{StateDir: p.Cache, ProveBoot: proveBoot(kernels), Logger: log})},
		Programs: programs,
		Disks:    []disk.Driver{reflink.New(), qcow2.New(), dmsnap.New(), fullcopy.New()},
		Networks: []network.Driver{user.New(), b, none.New()},
		Close:    func() { b.Close() },
	}, nil
}

// ownRoot is what a daemon is told from the host's other daemons by; empty for the one that nobody had to name.
func ownRoot(p paths.Paths) string {
	if system, err := paths.System(); err == nil && p == system {
		return ""
	}
	return p.Root
}
