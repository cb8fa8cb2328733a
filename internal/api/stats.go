package api

import (
	"time"

	"banger/internal/guest"
	"banger/internal/vm"
)

// VMStats answers PathVMStats: a VM's load, as its guest sees it and as the host does. Percentages take two of them.
type VMStats struct {
	ID    vm.ID     `json:"id"`
	Name  string    `json:"name"`
	State vm.State  `json:"state"`
	VCPU  int       `json:"vcpu"`
	At    time.Time `json:"at"`

	Guest *guest.Stats `json:"guest,omitempty"`
	// Error says why there is no Guest: the VM does not run, its agent does not answer.
	Error string    `json:"error,omitempty"`
	Host  HostStats `json:"host"`
}

// HostStats is what a VM takes of its host.
type HostStats struct {
	PID        int   `json:"pid,omitempty"`         // of the VMM, while it lives
	CPUMs      int64 `json:"cpu_ms,omitempty"`      // the VMM has used since its start, vCPUs included
	Resident   int64 `json:"resident,omitempty"`    // bytes of memory the VMM holds, the guest's included
	SystemDisk int64 `json:"system_disk,omitempty"` // bytes that the system overlay takes on the host's disk
	WorkDisk   int64 `json:"work_disk,omitempty"`
}
