package api

import (
	"time"

	"banger/internal/guest"
	"banger/internal/vm"
)

// VMPorts answers PathVMPorts.
type VMPorts struct {
	Published []PortStatus `json:"published"`

	// Listeners are the ports on which somebody in the guest waits.
	Listeners []guest.Listener `json:"listeners"`
	// Error says why there are no Listeners: the VM does not run, its agent does not answer.
	Error string `json:"error,omitempty"`
}

// PortStatus is how a published port is.
type PortStatus struct {
	vm.Port
	State       string    `json:"state"`                 // one of the Port constants
	Error       string    `json:"error,omitempty"`       // of PortFailed
	RetryAt     time.Time `json:"retry_at,omitzero"`     // of PortFailed: when it is tried next
	Connections int       `json:"connections,omitempty"` // that it carries now, or clients of UDP
}

// States of published ports.
const (
	PortOpen   = "open"
	PortClosed = "closed" // the VM does not run
	PortFailed = "failed" // the host's port could not be had
)

// PortsRequest changes what a VM publishes: all of it or nothing. A port of the host that is removed is free for what is added only
// by a later request.
type PortsRequest struct {
	Add []vm.Port `json:"add,omitempty"`
	// Remove are words as vm.MatchPorts reads them; each must mean at least one port.
	Remove []string `json:"remove,omitempty"`
}
