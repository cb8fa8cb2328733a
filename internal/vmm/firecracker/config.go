package firecracker

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// The objects of Firecracker's API description (src/firecracker/swagger/firecracker.yaml, v1.12), as far as they are
// used. The file that --config-file takes holds the same objects under these names, so that one exec boots a machine:
// a daemon that dies half-way leaves a machine that boots, or none.

// Machine is the configuration file.
type Machine struct {
	BootSource        BootSource         `json:"boot-source"`
	Drives            []Drive            `json:"drives"`
	MachineConfig     MachineConfig      `json:"machine-config"`
	NetworkInterfaces []NetworkInterface `json:"network-interfaces,omitempty"`
	Vsock             *Vsock             `json:"vsock,omitempty"`
	Logger            *Logger            `json:"logger,omitempty"`
	Metrics           *Metrics           `json:"metrics,omitempty"`
	Entropy           *Entropy           `json:"entropy,omitempty"`
}

// BootSource is PUT /boot-source. Paths are the VMM's: within its jail, where there is one.
type BootSource struct {
	KernelImagePath string `json:"kernel_image_path"`
	InitrdPath      string `json:"initrd_path,omitempty"`
	BootArgs        string `json:"boot_args"`
}

// Drive is PUT /drives/{drive_id}. The guest sees drives as vda, vdb … in their order.
type Drive struct {
	DriveID      string `json:"drive_id"`
	PathOnHost   string `json:"path_on_host"`
	IsRootDevice bool   `json:"is_root_device"` // true would add a root= of Firecracker's own
	IsReadOnly   bool   `json:"is_read_only"`
	CacheType    string `json:"cache_type"` // "Writeback": the guest's flushes reach the disk; "Unsafe": they do nothing
}

// MachineConfig is PUT /machine-config.
type MachineConfig struct {
	VCPUCount  int   `json:"vcpu_count"`
	MemSizeMiB int64 `json:"mem_size_mib"`
	SMT        bool  `json:"smt"`
}

// NetworkInterface is PUT /network-interfaces/{iface_id}.
type NetworkInterface struct {
	IfaceID     string `json:"iface_id"`
	GuestMAC    string `json:"guest_mac,omitempty"`
	HostDevName string `json:"host_dev_name"`
}

// Vsock is PUT /vsock. Connections to the guest begin at UDSPath.
type Vsock struct {
	GuestCID uint32 `json:"guest_cid"`
	UDSPath  string `json:"uds_path"`
}

// Logger is PUT /logger.
type Logger struct {
	LogPath string `json:"log_path"`
	Level   string `json:"level,omitempty"`
}

// Metrics is PUT /metrics: a JSON object a line, each minute and at the end.
type Metrics struct {
	MetricsPath string `json:"metrics_path"`
}

// Entropy is PUT /entropy.
type Entropy struct{}

// files are where the VMM finds what it opens.
type files struct {
	kernel, initramfs string
	disks             []string // in the order of disksOf
	agentSock         string
	log, metrics      string
}

func disksOf(c vmm.Config) []vmm.Disk {
	all := []vmm.Disk{c.Root}
	for _, d := range []*vmm.Disk{c.Work, c.Modules} {
		if d != nil {
			all = append(all, *d)
		}
	}
	return all
}

// configuration is the file for one machine.
func configuration(c vmm.Config, f files) ([]byte, error) {
	args, err := kernelCommandLine(c)
	if err != nil {
		return nil, err
	}
	conf := Machine{
		BootSource:    BootSource{KernelImagePath: f.kernel, InitrdPath: f.initramfs, BootArgs: args},
		Drives:        []Drive{},
		MachineConfig: MachineConfig{VCPUCount: c.VCPU, MemSizeMiB: c.MemoryMiB},
		Vsock:         &Vsock{GuestCID: guestCID, UDSPath: f.agentSock},
		Logger:        &Logger{LogPath: f.log, Level: "Warning"},
		Entropy:       &Entropy{},
	}
	if f.metrics != "" {
		conf.Metrics = &Metrics{MetricsPath: f.metrics}
	}
	for i, d := range disksOf(c) {
		if d.Format != "raw" {
			return nil, fmt.Errorf("disk %s has format %q: Firecracker takes raw disks only", d.Path, d.Format)
		}
		if !filepath.IsAbs(d.Path) {
			return nil, fmt.Errorf("path of disk %q is not absolute", d.Path)
		}
		conf.Drives = append(conf.Drives, Drive{DriveID: fmt.Sprintf("disk%d", i), PathOnHost: f.disks[i], IsReadOnly: d.ReadOnly, CacheType: "Writeback"})
	}
	if n := c.NIC; n != nil {
		if n.User || n.Tap == "" {
			return nil, errors.New("Firecracker takes tap devices only: it has no user-mode network") //nolint:staticcheck // a name
		}
		conf.NetworkInterfaces = []NetworkInterface{{IfaceID: "eth0", GuestMAC: n.MAC, HostDevName: n.Tap}}
	}
	return json.MarshalIndent(conf, "", "  ")
}

// guestCID is every guest's vsock address: Firecracker's vsock ends in a socket of its own, so that nobody else's
// guest is on the same bus.
const guestCID = 3

// maxCommandLine is COMMAND_LINE_SIZE of x86 Linux, with its end; Firecracker refuses what is longer.
const maxCommandLine = 2048

// kernelCommandLine joins the caller's parameters with the driver's own.
func kernelCommandLine(c vmm.Config) (string, error) {
	// reboot=k: the keyboard controller's reset is what ends a Firecracker. Disks go by their order: they have no serial.
	args := []string{"console=ttyS0", "quiet", "panic=-1", "reboot=k", "pci=off", "i8042.noaux", "i8042.nomux", "i8042.dumbkbd",
		guest.ArgRoot + "=dev:vda"}
	next := byte('b')
	for _, d := range []struct {
		arg string
		is  bool
	}{{guest.ArgWork, c.Work != nil}, {guest.ArgModules, c.Modules != nil}} {
		if d.is {
			args = append(args, d.arg+"=dev:vd"+string(next))
			next++
		}
	}
	init := c.Init
	if init == "" {
		init = "agent"
	}
	args = append(args, guest.ArgInit+"="+init, fmt.Sprintf("%s=vsock:%d", guest.ArgChannel, guest.VSockPort))
	args = append(args, c.Args...)
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " \t\n\"") {
			return "", fmt.Errorf("kernel parameter %q is empty or has spaces or quotes", a)
		}
	}
	line := strings.Join(args, " ")
	if len(line) >= maxCommandLine {
		return "", fmt.Errorf("kernel parameters take %d bytes of %d", len(line), maxCommandLine-1)
	}
	return line, nil
}
