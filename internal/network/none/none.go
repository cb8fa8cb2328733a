// Package none is the network of guests that shall have none: no interface, on the host or in the guest.
package none

import (
	"context"
	"net/netip"

	"banger/internal/inventory"
	"banger/internal/network"
	"banger/internal/vm"
)

// Driver implements network.Driver.
type Driver struct{}

var _ network.Driver = Driver{}

// New makes the driver.
func New() Driver { return Driver{} }

// Name implements network.Driver.
func (Driver) Name() string { return "none" }

// Suits implements network.Driver.
func (Driver) Suits(_ string) bool { return true }

// Probe implements network.Driver.
func (Driver) Probe(ctx context.Context) error { return ctx.Err() }

// Subnet implements network.Driver.
func (Driver) Subnet() netip.Prefix { return netip.Prefix{} }

// Address implements network.Driver.
func (Driver) Address() string { return "" }

// Ensure implements network.Driver.
func (Driver) Ensure(ctx context.Context, _ network.Port) (network.Attached, error) {
	return network.Attached{}, ctx.Err()
}

// Remove implements network.Driver.
func (Driver) Remove(ctx context.Context, _ vm.ID) error { return ctx.Err() }

// Kinds implements inventory.Source: nothing is made on the host.
func (Driver) Kinds(inventory.Place) []inventory.Kind { return nil }
