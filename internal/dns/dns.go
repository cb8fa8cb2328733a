// Package dns is the resolver that guests ask. It knows the names of VMs (NAME.vm) and the addresses of their network;
// all else it passes on to the servers that the host itself asks, as the bytes it came in.
//
// It answers nobody outside that network, and keeps no cache: the host's resolver has one. What one guest may ask at a
// time is bounded.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config is what a Server is made of.
type Config struct {
	Subnet  netip.Prefix // the guests', who alone are answered
	Address netip.Addr   // the server's own: never passed on to
	Hosts   string       // the host's resolv.conf(5)
	Log     *slog.Logger
}

// Server is the resolver of one network.
type Server struct {
	subnet   netip.Prefix
	upstream *upstream
	log      *slog.Logger

	mu    sync.Mutex
	names map[string]netip.Addr // by the VM's name
	addrs map[netip.Addr]string
}

// New makes a server that knows no names yet.
func New(c Config) *Server {
	return &Server{subnet: c.Subnet, upstream: newUpstream(c.Hosts, c.Address), log: c.Log}
}

// SetNames puts these VMs in the place of those there are.
func (s *Server) SetNames(names map[string]netip.Addr) {
	addrs := make(map[netip.Addr]string, len(names))
	for n, a := range names {
		addrs[a] = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names, s.addrs = names, addrs
}

const (
	udpQueries = 256 // at a time, of all guests
	udpEach    = 64  // of one
	tcpConns   = 64
	tcpEach    = 16

	maxQuery = 4096             // bytes: a question and EDNS options
	idle     = 10 * time.Second // for which a TCP connection may say nothing
)

// Sockets are what a Server listens on.
type Sockets struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

// Listen opens the server's sockets.
func Listen(at netip.AddrPort) (*Sockets, error) {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, fmt.Errorf("listen for DNS: %w", err)
	}
	// The port that the kernel chose, where none was asked for.
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(udp.LocalAddr().(*net.UDPAddr).AddrPort()))
	if err != nil {
		_ = udp.Close()
		return nil, fmt.Errorf("listen for DNS: %w", err)
	}
	return &Sockets{udp, tcp}, nil
}

// Close closes what no Server serves.
func (k *Sockets) Close() {
	_ = k.udp.Close()
	_ = k.tcp.Close()
}

// Serve answers until ctx ends, and then returns nil once nothing of it runs. It closes the sockets.
func (s *Server) Serve(ctx context.Context, k *Sockets) error {
	defer k.Close()
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, k.Close)()
	g.Go(func() error { return ended(ctx, s.serveUDP(ctx, g, k.udp)) })
	g.Go(func() error { return ended(ctx, s.serveTCP(ctx, g, k.tcp)) })
	return g.Wait()
}

// ended is nil when err comes of the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) serveUDP(ctx context.Context, g *errgroup.Group, conn *net.UDPConn) error {
	slots := newSlots(udpQueries, udpEach)
	buf := make([]byte, maxQuery)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return fmt.Errorf("read DNS queries: %w", err)
		}
		guest := from.Addr().Unmap()
		if !s.subnet.Contains(guest) || !slots.take(guest) {
			continue // a client asks again
		}
		query := append([]byte(nil), buf[:n]...)
		g.Go(func() error {
			defer slots.give(guest)
			if answer := s.answer(ctx, query, false); answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
			return nil
		})
	}
}

func (s *Server) serveTCP(ctx context.Context, g *errgroup.Group, l *net.TCPListener) error {
	slots := newSlots(tcpConns, tcpEach)
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept DNS connections: %w", err)
		}
		if err != nil { // out of descriptors, for a while
			s.log.Warn("accept a DNS connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		guest := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !s.subnet.Contains(guest) || !slots.take(guest) {
			_ = conn.Close()
			continue
		}
		g.Go(func() error {
			defer slots.give(guest)
			defer func() { _ = conn.Close() }()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			s.serveConn(ctx, conn)
			return nil
		})
	}
}

// serveConn answers one query after the other (RFC 7766), until the client says nothing more.
func (s *Server) serveConn(ctx context.Context, conn *net.TCPConn) {
	for {
		_ = conn.SetDeadline(time.Now().Add(idle))
		query, err := readMessage(conn, maxQuery)
		if err != nil {
			return
		}
		answer := s.answer(ctx, query, true)
		if answer == nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(idle))
		if err := writeMessage(conn, answer); err != nil {
			return
		}
	}
}

// A message on a TCP connection follows its length in two bytes (RFC 1035, 4.2.2).
func readMessage(r io.Reader, most int) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > most {
		return nil, fmt.Errorf("a message of %d bytes, and %d is the most", n, most)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}

func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}

// slots bounds what is done at a time, for all and for each guest.
type slots struct {
	all, each int

	mu    sync.Mutex
	taken map[netip.Addr]int
	total int
}

func newSlots(all, each int) *slots {
	return &slots{all: all, each: each, taken: map[netip.Addr]int{}}
}

func (s *slots) take(guest netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= s.all || s.taken[guest] >= s.each {
		return false
	}
	s.total++
	s.taken[guest]++
	return true
}

func (s *slots) give(guest netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.taken[guest]--; s.taken[guest] == 0 {
		delete(s.taken, guest)
	}
}
