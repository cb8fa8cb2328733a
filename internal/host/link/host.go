package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// Use is a range of addresses that the host uses: those behind an interface, or of a route.
type Use struct {
	Range netip.Prefix // masked; the default route's has 0 bits
	Link  string       // empty for a route that leads to none (blackhole)
	Route bool         // by a route, and not by an address of the interface
}

// names are the interfaces' by their index.
func names(links []netlink.Link) map[int]string {
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names
}

// Uses lists the ranges of IPv4 addresses that the host has an address in or a route to, in any routing table.
func Uses() ([]Use, error) {
	links, err := list(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := names(links)
	var uses []Use
	addrs, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok {
			uses = append(uses, Use{Range: p.Masked(), Link: names[a.LinkIndex]})
		}
	}
	routes, err := list(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		p := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Dst != nil {
			var ok bool
			if p, ok = prefix(r.Dst); !ok {
				continue
			}
		}
		switch r.Type {
		case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_MULTICAST:
			continue // follow from the addresses
		}
		uses = append(uses, Use{Range: p.Masked(), Link: names[r.LinkIndex], Route: true})
		for _, hop := range r.MultiPath {
			uses = append(uses, Use{Range: p.Masked(), Link: names[hop.LinkIndex], Route: true})
		}
	}
	return uses, nil
}

// Changes sends a value, if none waits to be received, whenever an address or route of the host changes, until ctx ends.
func Changes(ctx context.Context) (<-chan struct{}, error) {
	routes := make(chan netlink.RouteUpdate)
	if err := netlink.RouteSubscribe(routes, ctx.Done()); err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	changes := make(chan struct{}, 1)
	go func() {
		for range routes {
			select {
			case changes <- struct{}{}:
			default:
			}
		}
		close(changes)
	}()
	return changes, nil
}

// An interface has a directory of parameters for each protocol (kernel: Documentation/networking/ip-sysctl.rst). "all"
// is one too.
func parameter(protocol, name, key string) string {
	return filepath.Join("/proc/sys/net", protocol, "conf", name, key)
}

// Forwarding says whether IPv4 packets that come in by the interface are passed on. An absent one passes nothing on.
func Forwarding(name string) (bool, error) {
	b, err := os.ReadFile(parameter("ipv4", name, "forwarding"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the forwarding of %s: %w", name, err)
	}
	return !bytes.Equal(bytes.TrimSpace(b), []byte("0")), nil
}

// SetForwarding has IPv4 packets that come in by the interface passed on, or not. An absent one is left so.
func SetForwarding(ctx context.Context, name string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if err := set(ctx, "forwarding", parameter("ipv4", name, "forwarding"), value); err != nil {
		return fmt.Errorf("set the forwarding of %s: %w", name, err)
	}
	return nil
}

func withoutIPv6(ctx context.Context, name string) error {
	if err := set(ctx, "ipv6-off", parameter("ipv6", name, "disable_ipv6"), "1"); err != nil {
		return fmt.Errorf("turn its IPv6 off: %w", err)
	}
	return nil
}

// set writes a kernel parameter that has another value. One that does not exist (a kernel without IPv6) is left so.
func set(ctx context.Context, object, path, value string) error {
	have, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && string(bytes.TrimSpace(have)) == value {
		return nil
	}
	return act.Do(ctx, object, func() error { return os.WriteFile(path, []byte(value), 0) })
}
