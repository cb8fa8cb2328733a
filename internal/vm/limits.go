package vm

import "slices"

// What any VM can have at least and at most. CLI, configuration and engine refuse with these same numbers; that a
// certain host gives less is for the engine to say.
const (
	MinVCPU   = 1
	MaxVCPU   = 32       // what every supported VMM takes
	MinMemory = 96 << 20 // bytes: with less the default kernel cannot unpack its initramfs
	MaxMemory = 8 << 40  // bytes
	MinDisk   = 16 << 20 // bytes
	MaxDisk   = 16 << 40 // bytes: ext4 with 4 KiB blocks and 32-bit block numbers
)

// What a VM has when neither the user nor config.toml says otherwise. Sizes as people write them.
const (
	DefaultVCPU   = 1
	DefaultMemory = "1G"
	DefaultDisk   = "8G"
)

// Auto leaves the choice of a driver to the daemon.
const Auto = "auto"

// VMMDrivers are the machine monitors that can be asked for, beside Auto. The daemon has each of them.
func VMMDrivers() []string { return []string{"firecracker", "qemu"} }

// DiskDrivers are the root-disk drivers that can be asked for, beside Auto. The daemon has each of them.
func DiskDrivers() []string { return []string{"reflink", "qcow2", "dmsnap", "copy"} }

// NetworkDrivers are the network drivers that can be asked for, beside Auto. The daemon has each of them.
func NetworkDrivers() []string { return []string{"user", "bridge", "none"} }

// IsDriver says whether name can be asked for: Auto, or one of the drivers.
func IsDriver(name string, drivers []string) bool {
	return name == Auto || slices.Contains(drivers, name)
}
