// Package link is the thin hand on network interfaces: a bridge, the tap devices on it, and what the host says about
// its addresses, routes and forwarding. It decides nothing.
//
// What it makes carries a mark from the moment it can be seen: a bridge its hardware address, which follows from its
// name; a tap its alias, set before the device is made to stay. What has another's name and not the mark is never
// touched.
package link

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"banger/internal/act"
)

// ErrForeign is wrapped by errors about an interface that has a name of ours and is not.
var ErrForeign = errors.New("somebody else's")

// Bridge is a bridge of ours with the host's address in the network behind it.
type Bridge struct {
	Name    string
	Address netip.Prefix // the host's own, with the network's length
}

// address is a bridge's hardware address by rule. It marks the bridge as ours, and does not change with its ports, as
// the kernel's choice would: guests remember it.
func address(name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("banger bridge " + name))
	sum[0] = sum[0]&^0x03 | 0x02
	return sum[:6]
}

// find returns the interface, nil when there is none.
func find(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for interface %s: %w", name, err)
	}
	return l, nil
}

// ourBridge returns the bridge, nil when there is none. One that is not ours is an error.
func ourBridge(name string) (netlink.Link, error) {
	l, err := find(name)
	if l == nil || err != nil {
		return nil, err
	}
	if _, ok := l.(*netlink.Bridge); !ok || !slices.Equal(l.Attrs().HardwareAddr, address(name)) {
		return nil, fmt.Errorf("interface %s (%s, %s) is %w", name, l.Type(), l.Attrs().HardwareAddr, ErrForeign)
	}
	return l, nil
}

// FindBridge says whether the bridge is there. One that is not ours is an error.
func FindBridge(name string) (bool, error) {
	l, err := ourBridge(name)
	return l != nil, err
}

// EnsureBridge makes the bridge, with exactly this address, up, and without IPv6: guests have none, and would reach the
// host's services by the bridge's link-local address.
func EnsureBridge(ctx context.Context, b Bridge) error {
	if err := ensureBridge(ctx, b); err != nil {
		return fmt.Errorf("make bridge %s: %w", b.Name, err)
	}
	return nil
}

func ensureBridge(ctx context.Context, b Bridge) error {
	l, err := ourBridge(b.Name)
	if err != nil {
		return err
	}
	if l == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = b.Name, address(b.Name)
		err := act.Do(ctx, "bridge", func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}) })
		if err != nil {
			return err
		}
		if l, err = ourBridge(b.Name); err != nil {
			return err
		} else if l == nil {
			return errors.New("it went away at once")
		}
	}
	if err := withoutIPv6(ctx, b.Name); err != nil {
		return err
	}
	if err := exactly(ctx, l, b.Address); err != nil {
		return err
	}
	return act.Do(ctx, "bridge.up", func() error { return netlink.LinkSetUp(l) })
}

// exactly gives the interface this IPv4 address, and takes others away.
func exactly(ctx context.Context, l netlink.Link, want netip.Prefix) error {
	have, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	there := false
	for _, a := range have {
		if p, ok := prefix(a.IPNet); ok && p == want {
			there = true
		} else if err := act.Do(ctx, "bridge.address.remove", func() error { return netlink.AddrDel(l, &a) }); err != nil {
			return fmt.Errorf("take address %s away: %w", a.IPNet, err)
		}
	}
	if there {
		return nil
	}
	a := &net.IPNet{IP: want.Addr().AsSlice(), Mask: net.CIDRMask(want.Bits(), want.Addr().BitLen())}
	err = act.Do(ctx, "bridge.address", func() error { return netlink.AddrAdd(l, &netlink.Addr{IPNet: a}) })
	if err != nil {
		return fmt.Errorf("give it %s: %w", want, err)
	}
	return nil
}

// RemoveBridge removes the bridge; its ports stay, without it. Removing what is absent is success, and so is leaving
// alone what is not ours.
func RemoveBridge(ctx context.Context, name string) error {
	l, err := ourBridge(name)
	if errors.Is(err, ErrForeign) || err == nil && l == nil {
		return nil
	}
	if err == nil {
		err = act.Do(ctx, "bridge.remove", func() error { return netlink.LinkDel(l) })
	}
	if err != nil {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok && bits > 0
}
