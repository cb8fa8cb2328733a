// Package user is the network that needs no rights: the VMM's own user-mode stack, in which every guest is alone with a
// gateway and a resolver and reaches the world by the host's sockets. Nothing reaches a guest but by its agent.
//
// It makes nothing on the host. All guests have the same address, each in a network of its own.
package user

import (
	"context"
	"net/netip"

	"banger/internal/guest"
	"banger/internal/inventory"
	"banger/internal/network"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// QEMU's user-mode network, whose addresses are fixed (docs: "Using the user mode network stack").
const (
	address    = "10.0.2.15"
	prefix     = address + "/24"
	gateway    = "10.0.2.2"
	nameserver = "10.0.2.3"
)

// Driver implements network.Driver.
type Driver struct{}

var _ network.Driver = Driver{}

// New makes the driver.
func New() Driver { return Driver{} }

// Name implements network.Driver.
func (Driver) Name() string { return "user" }

// Suits implements network.Driver: the stack is QEMU's.
func (Driver) Suits(vmmName string) bool { return vmmName == "qemu" }

// Probe implements network.Driver: nothing of the host is needed.
func (Driver) Probe(ctx context.Context) error { return ctx.Err() }

// Subnet implements network.Driver: nothing is leased.
func (Driver) Subnet() netip.Prefix { return netip.Prefix{} }

// Address implements network.Driver.
func (Driver) Address() string { return address }

// Ensure implements network.Driver.
func (Driver) Ensure(ctx context.Context, p network.Port) (network.Attached, error) {
	mac := network.MAC(p.ID)
	return network.Attached{
		NIC:   &vmm.NIC{User: true, MAC: mac},
		Guest: &guest.Network{MAC: mac, Address: prefix, Gateway: gateway, Nameservers: []string{nameserver}},
	}, ctx.Err()
}

// Remove implements network.Driver.
func (Driver) Remove(ctx context.Context, _ vm.ID) error { return ctx.Err() }

// Kinds implements inventory.Source: nothing is made on the host.
func (Driver) Kinds(inventory.Place) []inventory.Kind { return nil }
