// Package network is the seam to network drivers: each gives a VM its one interface. Drivers: user (no root), none
// and bridge. Every implementation passes networktest.Suite.
package network

import (
	"context"
	"errors"
	"net/netip"

	"banger/internal/guest"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Attached is a usable interface, and the kernel object behind it (a handle, never in the database).
type Attached struct {
	NIC       *vmm.NIC       // nil = no interface
	Guest     *guest.Network // what the agent sets up inside; nil = nothing
	TapDevice string
}

// Port is a VM's place in a network, as its row has it: by this everything on the host is named. Plain data.
type Port struct {
	ID   vm.ID
	Name string     // of the VM, for its DNS name
	Addr netip.Addr // leased from the driver's Subnet; zero where it has none
	UID  int        // the user whose process opens the tap device; 0 = root
}

// Driver attaches VMs to one kind of network.
type Driver interface {
	// Name is the word users write after --network.
	Name() string

	// Suits says whether a VMM takes what this driver makes.
	Suits(vmmName string) bool

	// Probe says why this network cannot be used here; nil = it can.
	Probe(ctx context.Context) error

	// Subnet is what the guests' addresses are leased from, its first address being the gateway's. Zero where every guest
	// has the same address, in a network of its own: that of Address.
	Subnet() netip.Prefix

	// Address is every guest's IP where Subnet is zero; empty when there is none.
	Address() string

	// Ensure makes what the VM needs on the host; doing it twice changes nothing, for a guest that runs neither.
	Ensure(ctx context.Context, p Port) (Attached, error)

	// Remove undoes Ensure; removing what is absent is success. It needs nothing but the id.
	Remove(ctx context.Context, id vm.ID) error
}

// Applier is a Driver whose VMs share something on the host (a bridge, a table of packet rules, names). In a process's
// life Apply comes before the first Ensure: what is shared is there for VMs that run already.
type Applier interface {
	// Apply brings all of what is shared to what these ports need, whatever is there; none: everything shared is removed.
	// Ports of VMs that do not run yet are among them. Applying twice changes nothing, and no connection breaks. An error
	// that wraps ErrUnsettled is of what these ports need: nothing is left of others.
	Apply(ctx context.Context, ports []Port) error
}

// ErrUnsettled is wrapped by errors about what the VMs of a network share.
var ErrUnsettled = errors.New("not whole")

// Plugger is a Driver that can give a VM's machine its interface long before the rest is there. A machine takes time to
// boot, which is enough to do the rest beside it.
type Plugger interface {
	// Plug makes what a VMM needs to be started, and nothing more: the interface that Ensure describes, through which nothing
	// passes that is not looked at as it will be after Ensure. It is for a VM whose machine does not run: an interface of an
	// earlier run passes nothing either.
	Plug(ctx context.Context, p Port) (Attached, error)
}
