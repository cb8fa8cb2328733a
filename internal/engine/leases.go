package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"banger/internal/network"
	"banger/internal/store"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// leases are the numbers that a new VM takes for itself alone, for as long as its row lives.
func (e *Engine) leases(f vmm.Features, net network.Driver) (all []store.Range) {
	if f.Jails {
		all = append(all, e.users())
	}
	if s := net.Subnet(); s.IsValid() {
		all = append(all, addresses(net.Name(), s))
	}
	return all
}

// users leases the user of a VM's jail.
func (e *Engine) users() store.Range {
	return store.Range{
		Kind: "user for a jail", First: e.UIDs.First, Last: e.UIDs.First + e.UIDs.Count - 1, Begin: e.UIDs.Begin,
		Set: func(r *vm.VMRecord, n uint32) { r.Runtime.UID = int(n) },
	}
}

// jailed gives a VM that was made while jails were off the user that its jail takes now.
func (e *Engine) jailed(ctx context.Context, r vm.VMRecord) (vm.VMRecord, error) {
	driver, err := e.vmm(r.VMM)
	if err != nil || !driver.Features().Jails || r.Runtime.UID != 0 {
		return r, err
	}
	leased, err := e.Store.LeaseVM(ctx, r.ID, r.Generation, e.users())
	if err != nil {
		return r, fmt.Errorf("lease a user for the jail of VM %s: %w", r.Name, err)
	}
	r.Runtime.UID = leased.Runtime.UID // alone: the rest may have been completed, from a row that cannot be read whole
	return r, nil
}

// Unjailed are the names of the VMs that run outside a jail, though VMs started now get one: they were started while jails were
// off. What could not be found out is an error beside them.
func (e *Engine) Unjailed(ctx context.Context) (names []string, err error) {
	records, err := e.Store.SharedVMs(ctx)
	for _, r := range records {
		driver, derr := e.vmm(r.VMM)
		jailer, ok := driver.(vmm.Jailer)
		if derr != nil || !ok || !driver.Features().Jails || !e.vmAlive(r) {
			continue
		}
		jailed, jerr := jailer.Jailed(e.Handles.Process(r.ID))
		if err = errors.Join(err, jerr); jerr == nil && !jailed {
			names = append(names, r.Name)
		}
	}
	return names, err
}

// addresses leases one of a subnet's: not the network's own, the gateway's (the first) or the broadcast address.
func addresses(kind string, subnet netip.Prefix) store.Range {
	base := subnet.Masked().Addr().As4()
	first := binary.BigEndian.Uint32(base[:])
	return store.Range{
		Kind: "address in network " + kind, First: first + 2, Last: first + 1<<(32-subnet.Bits()) - 2,
		Set: func(r *vm.VMRecord, n uint32) {
			r.Runtime.GuestIP = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))).String()
		},
	}
}
