package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/vm"
)

// Vacant returns vm.CodeConflict when a VM's cgroup has a process, before anything of a launch is done: two machines on one
// disk ruin it. Each VMM was started in its VM's cgroup, and only root can take one out of there. Empty is no cgroup.
func Vacant(cgroup string) error {
	if cgroup == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("look at the processes of a cgroup: %w", err)
	}
	if pids := strings.Fields(string(b)); len(pids) > 0 {
		return vm.Errorf(vm.CodeConflict, "the VM has a process already: %s, in %s", strings.Join(pids, ", "), cgroup)
	}
	return nil
}
