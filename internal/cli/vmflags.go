package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/api"
	"banger/internal/vm"
)

// vmFlags are the flags that run and create share.
type vmFlags struct {
	request      api.CreateRequest
	memory, disk sizeFlag
	labels       []string // KEY=VALUE
	ports        []string // as vm.ParsePort reads them
}

func newVMFlags(a *app, cmd *cobra.Command) *vmFlags {
	v := &vmFlags{memory: sizeFlag{min: vm.MinMemory, max: vm.MaxMemory}, disk: sizeFlag{min: vm.MinDisk, max: vm.MaxDisk}}
	f := cmd.Flags()
	f.StringVar(&v.request.Name, "name", "", "`NAME` of the VM; without it one is made up")
	f.StringVar(&v.request.Image, "image", "", "`IMAGE` to boot (see 'banger image list')")
	f.StringVar(&v.request.Kernel, "kernel", "", "`KERNEL` to boot (see 'banger kernel list')")
	f.SetNormalizeFunc(cpus)
	f.IntVar(&v.request.VCPU, "vcpu", 0, fmt.Sprintf("`NUMBER` of virtual CPUs, at most %d", vm.MaxVCPU))
	f.Var(&v.memory, "memory", "memory, as 512M or 2G; a bare number is MiB")
	f.Var(&v.disk, "disk-size", "size of the work disk at /root, as 8G; it takes space only as it fills")
	f.StringVar(&v.request.VMM, "vmm", "", "machine monitor (`DRIVER`): "+oneOf(vm.VMMDrivers()))
	f.StringVar(&v.request.Disk, "disk", "", "how the image is made writable (`DRIVER`): "+oneOf(vm.DiskDrivers()))
	f.StringVar(&v.request.Network, "network", "", "network (`DRIVER`): "+oneOf(vm.NetworkDrivers()))
	f.StringVar(&v.request.Restart, "restart", "", restartUsage)
	f.StringArrayVarP(&v.labels, "label", "l", nil, "label the VM with `KEY=VALUE`, for 'banger vm list --filter label='")
	f.StringArrayVarP(&v.ports, "publish", "p", nil, "publish a port of the guest: `[[IP:]PORT:]GUEST_PORT[/udp]` (see 'banger vm ports --help')")
	for name, drivers := range map[string][]string{"vmm": vm.VMMDrivers(), "disk": vm.DiskDrivers(), "network": vm.NetworkDrivers()} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(append([]string{vm.Auto}, drivers...), cobra.ShellCompDirectiveNoFileComp))
	}
	_ = cmd.RegisterFlagCompletionFunc("image", a.completeLibrary(imageLibrary))
	_ = cmd.RegisterFlagCompletionFunc("kernel", a.completeLibrary(kernelLibrary))
	completeRestart(cmd)
	// Only shown: what is not given is not sent, and the daemon fills it in from config.toml, which may say otherwise.
	for name, value := range map[string]string{
		"image": vm.DefaultImage, "kernel": vm.DefaultKernel, "vcpu": strconv.Itoa(vm.DefaultVCPU), "memory": vm.DefaultMemory,
		"disk-size": vm.DefaultDisk, "vmm": vm.Auto, "disk": vm.Auto, "network": vm.Auto, "restart": vm.RestartNo,
	} {
		f.Lookup(name).DefValue = value
	}
	return v
}

// oneOf tells what a driver flag takes.
func oneOf(drivers []string) string { return vm.Auto + " or one of: " + strings.Join(drivers, ", ") }

// create checks the flags and makes the request. Nothing has been sent when it refuses.
func (v *vmFlags) create(cmd *cobra.Command) (api.CreateRequest, error) {
	r := v.request
	f := cmd.Flags()
	if f.Changed("name") {
		if err := vm.ValidateName(r.Name); err != nil {
			return r, err
		}
	}
	if f.Changed("vcpu") && (r.VCPU < vm.MinVCPU || r.VCPU > vm.MaxVCPU) {
		return r, usage(cmd, "--vcpu %d: it must be from %d to %d", r.VCPU, vm.MinVCPU, vm.MaxVCPU)
	}
	for _, choice := range []struct {
		flag, value string
		known       []string
	}{{"vmm", r.VMM, vm.VMMDrivers()}, {"disk", r.Disk, vm.DiskDrivers()}, {"network", r.Network, vm.NetworkDrivers()}} {
		if f.Changed(choice.flag) && !vm.IsDriver(choice.value, choice.known) {
			return r, usage(cmd, "--%s %s: it must be %s", choice.flag, choice.value, oneOf(choice.known))
		}
	}
	if err := checkRestart(cmd, r.Restart); err != nil {
		return r, err
	}
	for _, name := range []string{"image", "kernel"} {
		if f.Changed(name) && f.Lookup(name).Value.String() == "" {
			return r, usage(cmd, "--%s is empty", name)
		}
	}
	r.Labels = parseLabels(v.labels)
	if err := vm.ValidateLabels(r.Labels); err != nil {
		return r, err
	}
	var err error
	if r.Ports, err = parsePorts(v.ports); err != nil {
		return r, err
	}
	r.MemoryMiB, r.DiskSize = v.memory.bytes/mib, v.disk.bytes
	return r, nil
}

// parseLabels reads KEY=VALUE words; nil when there are none.
func parseLabels(words []string) map[string]string {
	if len(words) == 0 {
		return nil
	}
	labels := map[string]string{}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=") // a key alone is a label, as in Docker
		labels[key] = value
	}
	return labels
}

// cpus lets --cpus, which fingers used to Docker write, be --vcpu.
func cpus(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "cpus" {
		name = "vcpu"
	}
	return pflag.NormalizedName(name)
}
