package publish

import (
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packets is a socket of UDP that answers from the address it was written to: on one bound to all addresses the kernel would
// choose by the route, and clients drop what comes from another than they asked.
type packets struct {
	net.PacketConn
	udp *net.UDPConn // nil: not a real one
}

// newPackets has the kernel tell of each datagram which of our addresses it came to.
func newPackets(c net.PacketConn) *packets {
	p := &packets{PacketConn: c}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		return p
	}
	p.udp = udp
	if raw, err := udp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		})
	}
	return p
}

func (p *packets) read(b []byte) (n int, from peer, err error) {
	if p.udp == nil {
		n, _, err = p.ReadFrom(b)
		return n, from, err
	}
	var oob [128]byte
	n, m, _, client, err := p.udp.ReadMsgUDPAddrPort(b, oob[:])
	return n, peer{client, localOf(oob[:m])}, err
}

// write sends a datagram, which may be lost.
func (p *packets) write(b []byte, to peer) {
	if p.udp == nil {
		return
	}
	_, _, _ = p.udp.WriteMsgUDPAddrPort(b, fromAddr(to.local), to.client)
}

// localOf reads the address that a datagram came to from what the kernel says beside it (ip(7), ipv6(7)).
func localOf(oob []byte) netip.Addr {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range all {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0]))
			return netip.AddrFrom4(info.Spec_dst)
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&m.Data[0]))
			return netip.AddrFrom16(info.Addr)
		}
	}
	return netip.Addr{}
}

// fromAddr is the opposite.
func fromAddr(a netip.Addr) []byte {
	switch {
	case a.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	case a.Is6() && !a.IsLinkLocalUnicast(): // which would take the interface as well
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
	}
	return nil
}
