package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/sockets"
	"banger/internal/vm"
)

// forwardWait bounds a connection within the guest: it is there at once, or not at all.
const forwardWait = 10 * time.Second

// handleForward connects the host to a port of the guest. Nothing is answered before the connection is there.
func (s *Server) handleForward(w http.ResponseWriter, r *http.Request) {
	var req guest.ForwardRequest
	if !readJSON(w, r, &req) {
		return
	}
	if req.Port < 1 || req.Port > 1<<16-1 || req.Protocol != vm.ProtocolTCP && req.Protocol != vm.ProtocolUDP {
		writeError(w, http.StatusBadRequest, vm.Errorf(vm.CodeInvalid, "forward to port %d/%s: there is no such port", req.Port, req.Protocol))
		return
	}
	conn, err := dialSelf(r.Context(), "/proc", req)
	if err != nil {
		writeError(w, http.StatusServiceUnavailable, vm.Errorf(vm.CodeUnavailable, "connect to port %d/%s of the guest: %w", req.Port, req.Protocol, err))
		return
	}
	defer func() { _ = conn.Close() }()
	stream, err := hijack(w, r, guest.UpgradeForward)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	defer func() { _ = stream.Close() }()
	if _, err := stream.Write(nil); err != nil { // the answer's head: the host waits for it
		return
	}
	switch conn := conn.(type) {
	case *net.TCPConn:
		_ = guest.Forward(stream, conn) // the host has its own view of what went wrong
	case *net.UDPConn:
		(&datagrams{req: req, proc: "/proc", conn: conn}).forward(r.Context(), stream)
	}
}

// dialSelf connects to a port of this machine. Servers listen on the loopback, on all addresses, or on one; the first two are
// reached at the loopback.
func dialSelf(ctx context.Context, proc string, req guest.ForwardRequest) (net.Conn, error) {
	d := net.Dialer{Timeout: forwardWait}
	dial := func(a netip.Addr) (net.Conn, error) {
		return d.DialContext(ctx, req.Protocol, net.JoinHostPort(a.String(), strconv.Itoa(req.Port)))
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if req.Protocol == vm.ProtocolTCP {
		conn, err := dial(loopback)
		if !errors.Is(err, unix.ECONNREFUSED) {
			return conn, err
		}
	}
	all, err := sockets.List(proc)
	if err != nil {
		return nil, err
	}
	refused := error(unix.ECONNREFUSED)
	for _, a := range addresses(all, req) {
		conn, err := dial(a)
		if err == nil {
			return conn, nil
		}
		refused = err
	}
	if req.Protocol == vm.ProtocolUDP { // its server may come later
		return dial(loopback)
	}
	return nil, refused
}

// addresses are where a port of this machine is reached, the most general first.
func addresses(all []sockets.Socket, req guest.ForwardRequest) []netip.Addr {
	loopback4, loopback6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	var general, special []netip.Addr
	for _, s := range all {
		if s.Protocol != req.Protocol || int(s.Addr.Port()) != req.Port {
			continue
		}
		switch a := s.Addr.Addr().Unmap(); {
		case a == netip.IPv4Unspecified(), a == loopback4:
			general = append(general, loopback4)
		case a == netip.IPv6Unspecified(), a == loopback6:
			special = append([]netip.Addr{loopback6}, special...)
		default:
			special = append(special, a)
		}
	}
	return append(general, special...)
}
