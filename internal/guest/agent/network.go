package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// interfaceWait bounds the wait for the interface: its module may still be loading when the agent answers.
const interfaceWait = 15 * time.Second

const sysNet = "/sys/class/net"

// network is a guest.Network whose texts have been read.
type network struct {
	mac     net.HardwareAddr // nil = any
	address netip.Prefix
	gateway netip.Addr // invalid = none
	mtu     int
}

func parseNetwork(n *guest.Network) (network, error) {
	var p network
	var err error
	if n.MAC != "" {
		if p.mac, err = net.ParseMAC(n.MAC); err != nil || len(p.mac) != 6 {
			return network{}, fmt.Errorf("hardware address %q is none", n.MAC)
		}
	}
	if p.address, err = netip.ParsePrefix(n.Address); err != nil {
		return network{}, fmt.Errorf("address %q is no CIDR: %w", n.Address, err)
	}
	if n.Gateway != "" {
		if p.gateway, err = netip.ParseAddr(n.Gateway); err != nil {
			return network{}, fmt.Errorf("gateway %q: %w", n.Gateway, err)
		}
		if p.gateway.Is4() != p.address.Addr().Is4() {
			return network{}, fmt.Errorf("gateway %s is of another family than address %s", p.gateway, p.address)
		}
	}
	for _, ns := range n.Nameservers {
		a, err := netip.ParseAddr(ns)
		if err == nil && !oneWord(a.Zone()) && a.Zone() != "" {
			err = errors.New("its zone is no interface")
		}
		if err != nil {
			return network{}, fmt.Errorf("nameserver %q: %w", ns, err)
		}
	}
	for _, domain := range n.Search {
		if !oneWord(domain) {
			return network{}, fmt.Errorf("search domain %q is none", domain)
		}
	}
	if n.MTU < 0 || n.MTU > 1<<16 {
		return network{}, fmt.Errorf("MTU %d", n.MTU)
	}
	p.mtu = n.MTU
	return p, nil
}

// oneWord tells whether s is one word of resolv.conf, of visible ASCII.
func oneWord(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// configureNetwork gives the guest's interface its address and default route, and no other.
func configureNetwork(n *guest.Network) error {
	want, err := parseNetwork(n)
	if err != nil {
		return fmt.Errorf("configure network: %w", err)
	}
	name, err := waitInterface(want.mac)
	if err != nil {
		return fmt.Errorf("configure network: %w", err)
	}
	index, err := strconv.Atoi(readSys(path.Join(sysNet, name, "ifindex")))
	if err != nil {
		return fmt.Errorf("configure network: interface %s: %w", name, err)
	}
	nl, err := openRtnetlink()
	if err != nil {
		return fmt.Errorf("configure network: %w", err)
	}
	defer nl.close()
	if err := nl.apply(uint32(index), want); err != nil {
		return fmt.Errorf("configure network: interface %s: %w", name, err)
	}
	return nil
}

// loopbackUp is for every guest: programs talk to themselves where there is no network as well.
func loopbackUp() error {
	nl, err := openRtnetlink()
	if err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	defer nl.close()
	if err := nl.up(1, network{}); err != nil { // lo is always the first
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

func (n *rtnetlink) apply(index uint32, want network) error {
	if err := n.up(index, want); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	// In this order: with its first address of a subnet an interface loses the others of it.
	if err := n.dropOtherAddresses(index, want.address); err != nil {
		return fmt.Errorf("drop old addresses: %w", err)
	}
	if err := n.addAddress(index, want.address); err != nil {
		return fmt.Errorf("add address %s: %w", want.address, err)
	}
	if want.gateway.IsValid() {
		if err := n.defaultRoute(index, want.gateway); err != nil {
			return fmt.Errorf("set default route by %s: %w", want.gateway, err)
		}
	}
	return nil
}

// up sets MTU and hardware address where they are wanted, and the interface up.
func (n *rtnetlink) up(index uint32, want network) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], index)
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)  // flags
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP) // of which this one changes
	if want.mtu > 0 {
		body = attribute(body, unix.IFLA_MTU, u32(uint32(want.mtu)))
	}
	if want.mac != nil {
		body = attribute(body, unix.IFLA_ADDRESS, want.mac)
	}
	return n.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, body, nil)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func addressBody(index uint32, p netip.Prefix) []byte {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0], body[1] = family(p.Addr()), byte(p.Bits())
	binary.NativeEndian.PutUint32(body[4:], index)
	body = attribute(body, unix.IFA_LOCAL, p.Addr().AsSlice())
	return attribute(body, unix.IFA_ADDRESS, p.Addr().AsSlice())
}

func (n *rtnetlink) addAddress(index uint32, p netip.Prefix) error {
	err := n.request(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, addressBody(index, p), nil)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// dropOtherAddresses removes what an earlier identity left (of the same family; IPv6's link-local stays).
func (n *rtnetlink) dropOtherAddresses(index uint32, keep netip.Prefix) error {
	var others []netip.Prefix
	dump := make([]byte, unix.SizeofIfAddrmsg)
	dump[0] = family(keep.Addr())
	err := n.request(unix.RTM_GETADDR, unix.NLM_F_DUMP, dump, func(body []byte) error {
		if len(body) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(body[4:]) != index {
			return nil
		}
		attributes(body[unix.SizeofIfAddrmsg:], func(kind uint16, data []byte) {
			a, ok := netip.AddrFromSlice(bytes.Clone(data))
			local := kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && a.Is6()
			if p := netip.PrefixFrom(a, int(body[1])); ok && local && p != keep && !a.IsLinkLocalUnicast() {
				others = append(others, p)
			}
		})
		return nil
	})
	for _, p := range others {
		if e := n.request(unix.RTM_DELADDR, unix.NLM_F_ACK, addressBody(index, p), nil); e != nil && !errors.Is(e, unix.EADDRNOTAVAIL) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (n *rtnetlink) defaultRoute(index uint32, gateway netip.Addr) error {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family(gateway)
	body[4], body[5], body[6], body[7] = unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	body = attribute(body, unix.RTA_GATEWAY, gateway.AsSlice())
	body = attribute(body, unix.RTA_OIF, u32(index))
	return n.request(unix.RTM_NEWROUTE, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body, nil)
}

// waitInterface returns the name of the interface to configure, when it is there.
func waitInterface(mac net.HardwareAddr) (string, error) {
	events, err := openUevents()
	if err != nil {
		return "", err
	}
	defer events.close()
	var name string
	err = events.await(interfaceWait, "network interface", func() (bool, error) {
		name = pickInterface(sysNet, mac)
		return name != "", nil
	})
	return name, err
}

// pickInterface chooses the interface with that hardware address, else the first one of a device: after a fork the
// guest still has the address of its origin, and is to be given mac.
func pickInterface(class string, mac net.HardwareAddr) string {
	entries, err := os.ReadDir(class)
	if err != nil {
		return ""
	}
	first := ""
	for _, e := range entries {
		dir := path.Join(class, e.Name())
		if _, err := os.Stat(path.Join(dir, "device")); err != nil {
			continue // lo, bridges, tunnels
		}
		if mac != nil && strings.EqualFold(readSys(path.Join(dir, "address")), mac.String()) {
			return e.Name()
		}
		if first == "" {
			first = e.Name()
		}
	}
	return first
}

func readSys(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
