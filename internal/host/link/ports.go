package link

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Port is a tap device, and the bridge it is a port of; empty when of none.
type Port struct{ Name, Alias, Bridge string }

// Taps lists the tap devices whose alias begins with this mark, whoever made them.
func Taps(mark string) ([]Port, error) {
	links, err := list(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := names(links)
	var taps []Port
	for _, l := range links {
		t, ok := l.(*netlink.Tuntap)
		if !ok || t.Mode != netlink.TUNTAP_MODE_TAP || !strings.HasPrefix(t.Alias, mark) {
			continue
		}
		taps = append(taps, Port{Name: t.Name, Alias: t.Alias, Bridge: names[t.MasterIndex]})
	}
	return taps, nil
}

// Bridges lists the names of the bridges that carry our mark, of whichever daemon of ours they are.
func Bridges() ([]string, error) {
	links, err := list(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, l := range links {
		if b, ok := l.(*netlink.Bridge); ok && slices.Equal(b.HardwareAddr, address(b.Name)) {
			names = append(names, b.Name)
		}
	}
	return names, nil
}
