package config

import (
	"fmt"
	"net/netip"
)

// Network configures the networks of VMs.
type Network struct {
	Bridge Bridge `toml:"bridge"`
}

// Bridge is the network of VMs with addresses of their own.
type Bridge struct {
	Subnet        string `toml:"subnet"`         // IPv4; the guests' addresses are leased from it, the first is the host's
	AllowPeers    bool   `toml:"allow_peers"`    // guests reach each other
	AllowHost     bool   `toml:"allow_host"`     // guests reach all of the host's services, not only its resolver
	AllowMetadata bool   `toml:"allow_metadata"` // guests reach link-local addresses and the metadata services of clouds
}

func defaultNetwork() Network { return Network{Bridge{Subnet: "172.30.0.0/16"}} }

func (n Network) check() error {
	_, err := n.Bridge.Prefix()
	return err
}

// unfit are the ranges that no guest can have an address in: RFC 6890, RFC 5771.
var unfit = []struct {
	of   netip.Prefix
	what string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "addresses of no host"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback addresses"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast addresses"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved addresses"},
}

// Prefix is Subnet, read.
func (b Bridge) Prefix() (netip.Prefix, error) {
	p, err := netip.ParsePrefix(b.Subnet)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 || p != p.Masked() {
		return p, fmt.Errorf("network.bridge.subnet = %q: it must be an IPv4 network of 8 to 29 bits, such as 172.30.0.0/16", b.Subnet)
	}
	for _, u := range unfit {
		if p.Overlaps(u.of) {
			return p, fmt.Errorf("network.bridge.subnet = %q: %s holds %s, which guests cannot have; take one such as 172.30.0.0/16", b.Subnet, u.of, u.what)
		}
	}
	return p, nil
}
