package vm

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Port is a port of a guest that is published on the host.
type Port struct {
	HostIP    string `json:"host_ip"`   // an address of the host; 0.0.0.0 and :: are all of their kind
	HostPort  int    `json:"host_port"` // 0, in what is asked for: one that the system chooses
	GuestPort int    `json:"guest_port"`
	Protocol  string `json:"protocol"` // ProtocolTCP or ProtocolUDP
}

// What a port may carry.
const (
	ProtocolTCP = "tcp"
	ProtocolUDP = "udp"
)

// DefaultHostIP is where a port is published that names no address: what others on the network may reach is to be said.
const DefaultHostIP = "127.0.0.1"

// MaxPorts is how many ports a VM can publish.
const MaxPorts = 100

// maxPortSpec bounds the text of one: with the longest address and protocol it has 65 bytes.
const maxPortSpec = 128

// ParsePort reads [[HOST_IP:]HOST_PORT:]GUEST_PORT[/PROTOCOL], as Docker does. An address of IPv6 stands in brackets. Without
// HOST_PORT, or with an empty one, it is 0; without HOST_IP it is DefaultHostIP.
func ParsePort(s string) (Port, error) {
	p, err := parsePort(s)
	if err == nil && p.HostIP == "" {
		p.HostIP = DefaultHostIP
	}
	return p, err
}

// parsePort leaves empty, or 0, what is not said.
func parsePort(s string) (Port, error) {
	refuse := func(why string, args ...any) (Port, error) {
		shown := s
		if len(shown) > maxPortSpec {
			shown = shown[:maxPortSpec] + "…"
		}
		return Port{}, Errorf(CodeInvalid, "port %q: "+why, append([]any{shown}, args...)...).
			WithHint("write 8080:80, 127.0.0.1:53:53/udp, [::1]:8080:80, or 80 for a host port that the system chooses")
	}
	if len(s) > maxPortSpec {
		return refuse("it is too long")
	}
	rest, protocol, named := strings.Cut(s, "/")
	p := Port{Protocol: ProtocolTCP}
	if named {
		p.Protocol = strings.ToLower(protocol)
	}
	if p.Protocol != ProtocolTCP && p.Protocol != ProtocolUDP {
		return refuse("the protocol must be tcp or udp")
	}
	var guest, host string
	if i := strings.LastIndexByte(rest, ':'); i < 0 {
		guest = rest
	} else {
		guest, host = rest[i+1:], rest[:i]
		var ip string
		if i := strings.LastIndexByte(host, ':'); i >= 0 {
			ip, host = host[:i], host[i+1:]
		}
		if ip != "" {
			addr, why := hostAddress(ip)
			if why != "" {
				return refuse("%s", why)
			}
			p.HostIP = addr.String()
		} else if strings.HasPrefix(rest, ":") && strings.Count(rest, ":") > 1 {
			return refuse("its address is empty")
		}
	}
	var why string
	if p.GuestPort, why = portNumber(guest); why != "" {
		return refuse("the guest's port %s", why)
	}
	if host != "" {
		if p.HostPort, why = portNumber(host); why != "" {
			return refuse("the host's port %s", why)
		}
	}
	return p, nil
}

func hostAddress(s string) (a netip.Addr, why string) {
	bare, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		var closed bool
		if bare, closed = strings.CutSuffix(bare, "]"); !closed {
			return a, "a bracket of its address is missing"
		}
	}
	a, err := netip.ParseAddr(bare)
	switch {
	case err != nil:
		return a, "its address is none (a name of a host is not taken)"
	case a.Zone() != "":
		return a, "its address has a zone"
	case a.Is6() && !bracketed:
		return a, "an address of IPv6 stands in brackets"
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, "its address is none that a host has for itself"
	}
	return a.Unmap(), ""
}

func portNumber(s string) (n int, why string) {
	if strings.ContainsRune(s, '-') {
		return 0, "is a range: name each port by itself"
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1<<16-1 || strings.HasPrefix(s, "+") {
		return 0, "must be a number from 1 to 65535"
	}
	return n, ""
}

// String is the port as ParsePort reads it.
func (p Port) String() string {
	s := strconv.Itoa(p.GuestPort)
	switch {
	case p.HostIP == "" && p.HostPort > 0:
		s = strconv.Itoa(p.HostPort) + ":" + s
	case p.HostIP != "" && p.HostPort > 0:
		s = p.Host() + ":" + s
	case p.HostIP != "" && p.HostIP != DefaultHostIP:
		s = bracket(p.HostIP) + "::" + s
	}
	if p.Protocol != ProtocolTCP {
		s += "/" + p.Protocol
	}
	return s
}

// Host is the address and port on the host.
func (p Port) Host() string { return bracket(p.HostIP) + ":" + strconv.Itoa(p.HostPort) }

func bracket(ip string) string {
	if strings.ContainsRune(ip, ':') {
		return "[" + ip + "]"
	}
	return ip
}

// Overlaps says that the host cannot have both.
func (p Port) Overlaps(q Port) bool {
	if p.Protocol != q.Protocol || p.HostPort != q.HostPort || p.HostPort == 0 {
		return false
	}
	a, aerr := netip.ParseAddr(p.HostIP)
	b, berr := netip.ParseAddr(q.HostIP)
	return aerr == nil && berr == nil && a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// ValidatePorts refuses what ParsePort could not have read, and ports that get into each other's way.
func ValidatePorts(ports []Port) error {
	if len(ports) > MaxPorts {
		return Errorf(CodeInvalid, "%d published ports: a VM has at most %d", len(ports), MaxPorts)
	}
	for i, p := range ports {
		if q, err := ParsePort(p.String()); err != nil {
			return err
		} else if p != q {
			return Errorf(CodeInvalid, "port %q is not complete: it is read as %q", p, q)
		}
		for _, q := range ports[:i] {
			if p.Overlaps(q) {
				return Errorf(CodeInvalid, "the ports %s and %s cannot both be published: they are one on the host", q, p)
			}
		}
	}
	return nil
}

// MatchPorts returns those of ports that spec means: what it leaves out may be anything, but for the protocol, which is tcp.
func MatchPorts(ports []Port, spec string) ([]Port, error) {
	want, err := parsePort(spec)
	if err != nil {
		return nil, err
	}
	var found []Port
	for _, p := range ports {
		if p.GuestPort == want.GuestPort && p.Protocol == want.Protocol &&
			(want.HostPort == 0 || p.HostPort == want.HostPort) && (want.HostIP == "" || p.HostIP == want.HostIP) {
			found = append(found, p)
		}
	}
	return slices.Clip(found), nil
}
