package bridge

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ping sends one echo request from a namespace.
func ping(namespace, at string, wait time.Duration) error {
	return within(namespace, func() error {
		c, err := net.Dial("ip4:icmp", at)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wait))
		request := []byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1} // type, code, checksum, identifier, sequence
		if _, err := c.Write(request); err != nil {
			return err
		}
		buf := make([]byte, 1500)
		for {
			n, _, err := c.(*net.IPConn).ReadFrom(buf) // Read would leave the IP header
			if err != nil {
				return err
			}
			if n >= 8 && buf[0] == 0 {
				return nil
			}
		}
	})
}

// frame is what a guest's card would send: an Ethernet frame behind the tap device's header.
func frame(dst, src net.HardwareAddr, kind uint16, body []byte) []byte {
	b := make([]byte, 10)
	b = append(append(b, dst...), src...)
	return append(binary.BigEndian.AppendUint16(b, kind), body...)
}

// datagram is an IPv4 UDP packet without the checksum that UDP may leave out.
func datagram(src, dst netip.Addr, port uint16, text string) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[2:], uint16(20+8+len(text)))
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	b = binary.BigEndian.AppendUint16(b, 4000)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(text)))
	return append(append(b, 0, 0), text...)
}

// listenUDP collects the texts of datagrams until one says end.
func listenUDP(t *testing.T, namespace, at string) (texts func() []string) {
	t.Helper()
	var c net.PacketConn
	if err := within(namespace, func() (err error) { c, err = net.ListenPacket("udp4", at); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return func() (got []string) {
		_ = c.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 1500)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				t.Errorf("no end came: %v", err)
				return got
			}
			if string(buf[:n]) == "end" {
				return got
			}
			got = append(got, string(buf[:n]))
		}
	}
}
