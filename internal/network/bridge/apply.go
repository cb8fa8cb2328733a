package bridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"banger/internal/host/link"
	"banger/internal/host/nft"
	"banger/internal/network"
	"banger/internal/vm"
)

// Apply implements network.Applier.
func (d *Driver) Apply(ctx context.Context, ports []network.Port) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	had := d.ports
	d.ports = make(map[vm.ID]network.Port, len(ports))
	for _, p := range ports {
		d.ports[p.ID] = p
		if !d.fits(p.Addr) && had[p.ID].Addr != p.Addr {
			d.Log.Warn("a VM has no network, since its address is none of the guests' subnet: set the subnet back in config.toml, or delete the VM and make it anew",
				"vm", p.Name, "id", p.ID, "address", p.Addr, "subnet", d.Config.Subnet)
		}
	}
	if len(ports) == 0 {
		return d.tearDown(ctx)
	}
	return d.bringUp(ctx)
}

// Close ends the resolver. What is on the host stays: VMs outlive this process.
func (d *Driver) Close() {
	d.turn <- struct{}{}
	defer d.give()
	d.stopService()
	d.ports, d.applied = nil, false
}

// bringUp makes what is shared as d.ports need it, whatever is there. Whatever of it cannot be made, nobody else is in the
// packet rules any more: network.ErrUnsettled.
func (d *Driver) bringUp(ctx context.Context) error {
	d.applied = false
	if err := d.checkPorts(); err != nil {
		return err
	}
	var closed []string
	var err error
	lack := d.makeBridge(ctx)
	if lack != nil {
		err = d.shed(ctx)
	} else if closed, err = d.load(ctx); err == nil {
		lack = d.open(ctx, closed)
	}
	switch {
	case err != nil:
		return errors.Join(lack, fmt.Errorf("load the packet rules of %s: %w", d.Config.Name, err))
	case lack != nil && ctx.Err() == nil:
		return fmt.Errorf("%w: %w", network.ErrUnsettled, lack)
	}
	d.applied = lack == nil
	return lack
}

func (d *Driver) makeBridge(ctx context.Context) error {
	if err := d.free(); err != nil {
		return err
	}
	return link.EnsureBridge(ctx, link.Bridge{Name: d.Config.Name, Address: d.gateway})
}

// shed takes those who are gone out of the packet rules where there is no bridge for others, and opens nothing.
func (d *Driver) shed(ctx context.Context) error {
	ours, err := nft.Ours(d.Config.Name)
	if !ours || err != nil {
		return err
	}
	opened, err := nft.Forwarding(d.Config.Name)
	if err != nil {
		return err
	}
	return nft.Apply(ctx, d.table(d.ports, opened))
}

// load puts the packet rules in place, and returns the interfaces that are to pass packets on next. The table keeps which
// these are, and guests pass nothing that it does not look at.
func (d *Driver) load(ctx context.Context) (closed []string, err error) {
	uplinks, err := d.uplinks()
	if err != nil {
		return nil, err
	}
	closed, kept, err := d.closed(uplinks)
	if err != nil {
		return nil, err
	}
	if err := nft.Apply(ctx, d.table(d.ports, kept)); err != nil {
		return nil, err
	}
	d.taken.Store(true)
	return closed, nil
}

// open has packets pass that the rules let, and answers them.
func (d *Driver) open(ctx context.Context, closed []string) error {
	for _, name := range append(closed, d.Config.Name) {
		if err := link.SetForwarding(ctx, name, true); err != nil {
			return err
		}
	}
	for _, p := range d.ports {
		if err := link.RejoinTap(ctx, d.tap(p.ID, p.UID)); err != nil {
			return err
		}
	}
	if nft.Legacy() && !d.warned {
		d.warned = true
		d.Log.Warn("this host also has packet rules of iptables-legacy, which may drop what guests send; let them accept what comes from and goes to the bridge", "bridge", d.Config.Name)
	}
	return d.serve(ctx)
}

// free says why the bridge cannot be made now. The host's network may be another than when its VMs were: a laptop's, a
// VPN's. A bridge that is there has its place, and VMs on it.
func (d *Driver) free() error {
	there, err := link.FindBridge(d.Config.Name)
	if there || err != nil {
		return err
	}
	uses, err := link.Uses()
	if err != nil {
		return err
	}
	return overlap(uses, d.Config.Subnet, d.Config.Name)
}

// fits says whether a guest of the subnet may have the address. A VM that was made under another subnet has one that
// does not: it is left without network, and others are not.
func (d *Driver) fits(a netip.Addr) bool {
	return d.Config.Subnet.Contains(a) && a != d.Config.Subnet.Addr() && a != d.gateway.Addr()
}

// checkPorts refuses what would give one guest another's packets.
func (d *Driver) checkPorts() error {
	taken := map[netip.Addr]vm.ID{}
	for _, p := range d.ports {
		if other, ok := taken[p.Addr]; ok {
			return fmt.Errorf("the VMs %s and %s both have the address %s", d.ports[other].Name, p.Name, p.Addr)
		}
		taken[p.Addr] = p.ID
	}
	return nil
}

// table is what is asked of packets now.
func (d *Driver) table(ports map[vm.ID]network.Port, forwarding []string) nft.Table {
	t := nft.Table{
		Bridge: d.Config.Name, Subnet: d.Config.Subnet, Gateway: d.gateway.Addr(),
		Peers: d.Peers, Host: d.Host, Metadata: d.Metadata, Forwarding: forwarding,
	}
	for _, p := range ports {
		if d.fits(p.Addr) {
			t.Guests = append(t.Guests, nft.Guest{Tap: tapName(p.ID), MAC: network.MAC(p.ID), Addr: p.Addr})
		} else {
			t.Shut = append(t.Shut, tapName(p.ID)) // its machine may run still
		}
	}
	return t
}

// Packets are passed on by interface. For the bridge that is ours to say, and goes with it. For what comes back to
// guests the host's other interfaces must do it too: those that some route leads to. A host's own setting (ip_forward)
// would turn it on for all others as well.

// uplinks are these interfaces.
func (d *Driver) uplinks() ([]string, error) {
	uses, err := link.Uses()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, u := range uses {
		if u.Route && u.Link != "" && u.Link != "lo" && u.Link != d.Config.Name && !isBridge(u.Link) {
			names[u.Link] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// closed returns which of the interfaces pass nothing on, and all those that our table is to keep: it has them already,
// or another daemon's table has.
func (d *Driver) closed(uplinks []string) (closed, kept []string, err error) {
	ours, others, err := d.opened()
	if err != nil {
		return nil, nil, err
	}
	kept = ours
	for _, name := range uplinks {
		on, err := link.Forwarding(name)
		if err != nil {
			return nil, nil, err
		}
		if !on {
			closed = append(closed, name)
		}
		if !slices.Contains(kept, name) && (!on || slices.Contains(others, name)) {
			kept = append(kept, name)
		}
	}
	return closed, kept, nil
}

// opened are the interfaces that pass packets on because of us, and because of other daemons of ours.
func (d *Driver) opened() (ours, others []string, err error) {
	tables, err := nft.Tables()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range tables {
		if name != d.Config.Name && !isBridge(name) {
			continue
		}
		opened, err := nft.Forwarding(name)
		switch {
		case name == d.Config.Name && err != nil:
			return nil, nil, err
		case name == d.Config.Name:
			ours = opened
		case err == nil: // else not ours, or just gone
			others = append(others, opened...)
		}
	}
	return ours, others, nil
}

// tearDown removes what is shared. Nothing there, and no right or no program to look with, is success.
func (d *Driver) tearDown(ctx context.Context) error {
	d.applied = false
	d.stopService()
	there, err := link.FindBridge(d.Config.Name)
	if errors.Is(err, link.ErrForeign) {
		there, err = false, nil
	}
	if err != nil || !there && os.Geteuid() != 0 {
		return err
	}
	err = errors.Join(d.close(ctx), nft.Remove(ctx, d.Config.Name))
	if (errors.Is(err, nft.ErrMissing) || errors.Is(err, nft.ErrDenied)) && !there {
		return nil
	}
	return errors.Join(err, link.RemoveBridge(ctx, d.Config.Name))
}

// close puts the forwarding back that we turned on, unless somebody else wants it by now.
func (d *Driver) close(ctx context.Context) error {
	ours, others, err := d.opened()
	if errors.Is(err, nft.ErrForeign) {
		return nil
	}
	if err != nil {
		return err
	}
	if all, err := link.Forwarding("all"); all || err != nil {
		return err
	}
	for _, name := range ours {
		if !slices.Contains(others, name) {
			err = errors.Join(err, link.SetForwarding(ctx, name, false))
		}
	}
	return err
}
