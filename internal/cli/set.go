package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newSet(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set [flags] NAME... | --all",
		Short: "Change what VMs are",
		Long: `Change memory, processors, the size of the work disk, restart policy and labels of VMs. A VM that runs has new memory, processors and disk
size from its next start on, and 'banger vm show' tells both until then (of a machine that this version launched); everything else takes effect at once.

A work disk only grows. It is enlarged at the next start, and the file system in it by the guest.

` + restartHelp,
		Example: `  banger vm set --memory 2G --vcpu 2 web
  banger vm set --disk-size 20G web && banger vm restart web
  banger vm set --restart on-failure:5 web
  banger vm set --label team=web --label-rm urgent 'web-*'`,
	}
	v := setFlags{memory: sizeFlag{min: vm.MinMemory, max: vm.MaxMemory}, disk: sizeFlag{min: vm.MinDisk, max: vm.MaxDisk}}
	f := cmd.Flags()
	f.IntVar(&v.request.VCPU, "vcpu", 0, fmt.Sprintf("`NUMBER` of virtual CPUs, at most %d (also --cpus)", vm.MaxVCPU))
	f.Var(&v.memory, "memory", "memory, as 512M or 2G; a bare number is MiB")
	f.Var(&v.disk, "disk-size", "size of the work disk at /root, as 20G; not less than it has")
	f.StringVar(&v.request.Restart, "restart", "", restartUsage)
	completeRestart(cmd)
	f.StringArrayVarP(&v.labels, "label", "l", nil, "add a label `KEY=VALUE`, or give it that value")
	f.StringArrayVar(&v.request.RemoveLabels, "label-rm", nil, "remove the label `KEY`")
	f.SetNormalizeFunc(cpus)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return v.check(cmd) }
	var mu sync.Mutex
	pending := map[string][]string{} // by name
	return eachCommand(a, cmd, each{
		do: func(ctx context.Context, c *client.Client, name string, _ func(vm.Event)) error {
			_, words, err := c.Set(ctx, name, v.request)
			mu.Lock()
			defer mu.Unlock()
			if len(words) > 0 {
				pending[name] = words
			}
			return err
		},
		notes: func() (lines []string) {
			for _, name := range slices.Sorted(maps.Keys(pending)) {
				verb := "takes"
				if len(pending[name]) > 1 {
					verb = "take"
				}
				lines = append(lines, fmt.Sprintf("%s: %s %s effect at the next start: banger vm restart %s", name, strings.Join(pending[name], ", "), verb, name))
			}
			return lines
		},
	})
}

// setFlags are the flags of set.
type setFlags struct {
	request      api.SetRequest
	memory, disk sizeFlag
	labels       []string // KEY=VALUE
}

// check completes the request. Nothing has been sent when it refuses.
func (v *setFlags) check(cmd *cobra.Command) error {
	f := cmd.Flags()
	r := &v.request
	if f.Changed("vcpu") && (r.VCPU < vm.MinVCPU || r.VCPU > vm.MaxVCPU) {
		return usage(cmd, "--vcpu %d: it must be from %d to %d", r.VCPU, vm.MinVCPU, vm.MaxVCPU)
	}
	r.MemoryMiB, r.DiskSize, r.Labels = v.memory.bytes/mib, v.disk.bytes, parseLabels(v.labels)
	if err := vm.ValidateLabels(r.Labels); err != nil {
		return err
	}
	if err := checkRestart(cmd, r.Restart); err != nil {
		return err
	}
	for _, key := range r.RemoveLabels {
		if _, added := r.Labels[key]; added {
			return usage(cmd, "--label %s and --label-rm %s contradict each other", key, key)
		}
	}
	for _, name := range []string{"vcpu", "memory", "disk-size", "restart", "label", "label-rm"} {
		if f.Changed(name) {
			return nil
		}
	}
	return usage(cmd, "nothing to change: name at least one of --memory, --vcpu, --disk-size, --restart, --label, --label-rm")
}
