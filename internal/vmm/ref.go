package vmm

import "banger/internal/vm"

// Ref names a machine by what is known before anything of it is made: by it a driver finds, reaches and clears away
// what it launched, with no file and no memory of the launch.
type Ref struct {
	ID        vm.ID
	Dir       string // the VM's own durable directory
	APISock   string // the VMM's control socket, in the VM's run directory
	AgentSock string // the host's end of the channel to the guest agent, likewise
}
