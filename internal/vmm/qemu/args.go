package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// maxCommandLine is COMMAND_LINE_SIZE of x86 Linux, with its end; what is longer is cut off without a word.
const maxCommandLine = 2048

// machine is what the arguments need to know of the host.
type machine struct {
	kvm     bool
	cpu     string // the guest's processor under KVM
	threads bool   // several emulated processors may run at the same time
	places  bool   // what was translated of a program is used wherever in memory that program is loaded
	tscKHz  uint64 // rate of the host's time stamp counter; 0 = unknown, or not needed (kvm)
	sandbox bool
	agentFD int // descriptor of the agent's listening socket in the new process
}

// arguments returns QEMU's command line without its name.
func arguments(c vmm.Config, m machine) ([]string, error) {
	kernelArgs, err := kernelCommandLine(c, m)
	if err != nil {
		return nil, err
	}
	args := []string{
		"-name", escape(c.Name),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-qmp", qmpArgument(c.APISock),
		"-no-reboot", // the guest's restart ends the process: what happens next is the engine's to decide
		"-smp", strconv.Itoa(c.VCPU),
		"-m", strconv.FormatInt(c.MemoryMiB, 10) + "M",
		"-kernel", c.Kernel,
		"-initrd", c.Initramfs,
		"-append", kernelArgs,
		"-chardev", "file,id=console,append=on,path=" + escape(c.Console),
		"-serial", "chardev:console",
		// The socket is listened on before QEMU starts: a dial right after Launch waits in the backlog, and never fails.
		"-device", "virtio-serial-device",
		"-chardev", fmt.Sprintf("socket,id=agent,fd=%d,server=on,wait=off", m.agentFD),
		"-device", "virtserialport,chardev=agent,name=" + guest.ChannelName,
		"-object", "rng-random,id=rng,filename=/dev/urandom",
		"-device", "virtio-rng-device,rng=rng",
	}
	args = append(args, accelArguments(m, c.VCPU)...)
	if m.sandbox {
		args = append(args, "-sandbox", sandboxOptions)
	}
	for _, d := range disksOf(c) {
		blockdev, err := blockdevJSON(d)
		if err != nil {
			return nil, err
		}
		args = append(args, "-blockdev", blockdev, "-device", "virtio-blk-device,drive="+d.node+",serial="+d.serial)
	}
	nic, err := nicArguments(c.NIC)
	return append(args, nic...), err
}

// sandboxOptions is the seccomp filter: no old system calls, no other user, no new program, no scheduling.
const sandboxOptions = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// kvmCPUs are the processors to try under KVM, the best first. Below some hypervisors QEMU refuses to start with the
// host's own, since it cannot set the register behind arch-capabilities.
var kvmCPUs = []string{"host", "host,-arch-capabilities"}

func accelArguments(m machine, vcpus int) []string {
	if m.kvm {
		// Under KVM the machine has no real-time clock unless it is asked for, and a kernel that finds none waits for it, a
		// second and more.
		return []string{"-machine", "microvm,rtc=on", "-accel", "kvm", "-cpu", m.cpu}
	}
	thread := "multi"
	if vcpus > 1 && !m.threads {
		thread = "single"
	}
	// Told that string instructions are fast, a kernel copies by them a byte at a time, which the emulator does a byte at a
	// time: by words it is two and a half times as fast.
	return []string{"-machine", "microvm", "-accel", "tcg,thread=" + thread, "-cpu", "max,-erms,-fsrm"}
}

// qmpArgument is the argument that carries the API socket, and by which Find knows the process.
func qmpArgument(apiSock string) string { return "unix:" + escape(apiSock) + ",server=on,wait=off" }

// escape doubles the commas of a value in one of QEMU's option lists.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// kernelCommandLine joins the caller's parameters with the driver's own.
func kernelCommandLine(c vmm.Config, m machine) (string, error) {
	args := []string{"console=ttyS0", "panic=-1", "reboot=t"} // t: a triple fault, which ends a microvm at once
	if m.kvm {
		args = append(args, "quiet") // each byte on the console is an exit from the guest, and a talkative boot prints 15 kB
	} else {
		// Emulated, the counter runs at the host's rate and the guest has nothing to calibrate it by: without these, one
		// boot in three hangs. Mitigations cost time and protect nothing that runs on an emulated processor.
		if m.tscKHz != 0 {
			args = append(args, fmt.Sprintf("tsc_early_khz=%d", m.tscKHz))
		}
		args = append(args, "tsc=reliable", "no_timer_check", "mitigations=off")
		if !m.places {
			// Else each start of a program is translated anew, since it lies somewhere else in memory: that takes five times
			// as long, and 1.5 MiB of the host's memory each time.
			args = append(args, "norandmaps")
		}
	}
	args = append(args, guest.ArgRoot+"=serial:"+guest.SerialRoot)
	if c.Work != nil {
		args = append(args, guest.ArgWork+"=serial:"+guest.SerialWork)
	}
	if c.Modules != nil {
		args = append(args, guest.ArgModules+"=serial:"+guest.SerialModules)
	}
	init := c.Init
	if init == "" {
		init = "agent"
	}
	args = append(args, guest.ArgInit+"="+init, guest.ArgChannel+"=virtio:"+guest.ChannelName)
	args = append(args, c.Args...)
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " \t\n\"") {
			return "", fmt.Errorf("kernel parameter %q is empty or has spaces or quotes", a)
		}
	}
	line := strings.Join(args, " ")
	// QEMU appends one virtio_mmio.device=… a device where it does not describe them by ACPI; leave them room.
	const devices = 7 * len(" virtio_mmio.device=512@0xfeb00e00:12")
	if len(line)+devices >= maxCommandLine {
		return "", fmt.Errorf("kernel parameters take %d bytes of %d", len(line), maxCommandLine-devices-1)
	}
	return line, nil
}

// drive is a disk with its names: in QEMU's block graph, and on the guest's bus.
type drive struct {
	vmm.Disk
	node, serial string
}

func disksOf(c vmm.Config) []drive {
	all := []drive{{c.Root, "root", guest.SerialRoot}}
	if c.Work != nil {
		all = append(all, drive{*c.Work, "work", guest.SerialWork})
	}
	if c.Modules != nil {
		all = append(all, drive{*c.Modules, "modules", guest.SerialModules})
	}
	return all
}

// blockdevJSON describes one disk. Cache: writeback with flushes honoured. What the guest has synced is on the host's
// disk (cache=unsafe would lose it in a host crash), and machines on one base share the page cache (cache=none would
// read it from the disk for each, and is refused on some file systems). Discards and zeroes give the space back.
// QEMU's image locks stay on: a shared base is opened read-only, by any number; a writable disk by one.
func blockdevJSON(d drive) (string, error) {
	if d.Format != "raw" && d.Format != "qcow2" {
		return "", fmt.Errorf("disk %s has format %q, want raw or qcow2", d.Path, d.Format)
	}
	if !filepath.IsAbs(d.Path) {
		return "", fmt.Errorf("path of disk %q is not absolute", d.Path)
	}
	type cache struct {
		Direct  bool `json:"direct"`
		NoFlush bool `json:"no-flush"`
	}
	type file struct {
		Driver   string `json:"driver"`
		Filename string `json:"filename"`
		ReadOnly bool   `json:"read-only"`
		Discard  string `json:"discard"`
		Cache    cache  `json:"cache"`
	}
	type node struct {
		Driver       string `json:"driver"`
		NodeName     string `json:"node-name"`
		ReadOnly     bool   `json:"read-only"`
		Discard      string `json:"discard"`
		DetectZeroes string `json:"detect-zeroes"`
		Cache        cache  `json:"cache"`
		File         file   `json:"file"`
	}
	protocol := "file" // which takes regular files only
	if d.Block {
		protocol = "host_device"
	}
	n := node{
		Driver: d.Format, NodeName: d.node, ReadOnly: d.ReadOnly, Discard: "unmap", DetectZeroes: "unmap",
		File: file{Driver: protocol, Filename: d.Path, ReadOnly: d.ReadOnly, Discard: "unmap"},
	}
	if d.ReadOnly {
		n.DetectZeroes = "off"
	}
	b, err := json.Marshal(n)
	return string(b), err
}

func nicArguments(n *vmm.NIC) ([]string, error) {
	if n == nil {
		return nil, nil
	}
	var backend string
	switch {
	case n.User && n.Tap != "", !n.User && n.Tap == "":
		return nil, errors.New("a network interface is either user mode or a tap device")
	case n.User:
		backend = "user,id=net,ipv6=off"
	default:
		backend = "tap,id=net,ifname=" + escape(n.Tap) + ",script=no,downscript=no"
	}
	device := "virtio-net-device,netdev=net"
	if n.MAC != "" {
		device += ",mac=" + n.MAC
	}
	return []string{"-netdev", backend, "-device", device}, nil
}
