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

// Prefix is Subnet, read.
func (b Bridge) Prefix() (netip.Prefix, error) {
	p, err := netip.ParsePrefix(b.Subnet)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 || p != p.Masked() {
		return p, fmt.Errorf("network.bridge.subnet = %q: it must be an IPv4 network of 8 to 29 bits, such as 172.30.0.0/16", b.Subnet)
	}
	return p, nil
}
