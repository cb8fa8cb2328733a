package api

import (
	"time"

	"banger/internal/vm"
)

// VMSummary is a VM's line in a list for people: a sixth of its record, which a thousand VMs make felt.
type VMSummary struct {
	ID        vm.ID     `json:"id"`
	Name      string    `json:"name"`
	State     vm.State  `json:"state"`
	Image     string    `json:"image"`
	VMM       string    `json:"vmm"`
	VCPU      int       `json:"vcpu"`
	MemoryMiB int64     `json:"memory_mib"`
	GuestIP   string    `json:"guest_ip,omitempty"`
	LastError string    `json:"last_error,omitempty"`
	CreatedAt time.Time `json:"created_at"`

	Labels map[string]string `json:"labels,omitempty"`

	Network string    `json:"network,omitempty"`
	Restart string    `json:"restart,omitempty"` // as vm.VMSpec has it
	Ports   []vm.Port `json:"ports,omitempty"`   // published

	Silent  time.Time `json:"silent_since,omitzero"` // as vm.Observed has it
	Pending []string  `json:"pending,omitempty"`     // as VMView has it
}

// SummaryOf makes a VM's line.
func SummaryOf(r vm.VMRecord) VMSummary {
	return VMSummary{ID: r.ID, Name: r.Name, State: r.State, Image: r.Image, VMM: r.VMM, VCPU: r.Spec.VCPU,
		MemoryMiB: r.Spec.MemoryMiB, GuestIP: r.Runtime.GuestIP, LastError: r.Runtime.LastError, CreatedAt: r.CreatedAt,
		Labels: r.Spec.Labels, Network: r.Network, Restart: r.Spec.Restart, Ports: r.Spec.Ports}
}
