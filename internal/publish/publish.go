// Package publish makes ports of guests reachable on the host: for each it has a listening socket in this process, and carries
// every connection over the guest agent's channel. So it needs neither rights nor a network driver, and nothing of it is left
// on the host when the process ends: the next daemon listens anew for the VMs that live on.
//
// It keeps what it is told and decides about no VM. That a port cannot be had is an error of the port, never of the VM: it is
// tried again.
package publish

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"banger/internal/act"
	"banger/internal/guest"
	"banger/internal/vm"
)

// Guest opens connections to ports of one guest: *guest.Client.
type Guest interface {
	Forward(ctx context.Context, r guest.ForwardRequest) (net.Conn, error)
}

// Socket is a port of the host that is ours: one of the two is set.
type Socket struct {
	Stream  net.Listener
	Packets net.PacketConn
}

// Close gives the port back. Connections that came by it are not ended.
func (s Socket) Close() error {
	if s.Stream != nil {
		return s.Stream.Close()
	}
	return s.Packets.Close()
}

// port is the number that the system chose.
func (s Socket) port() int {
	var addr net.Addr
	if s.Stream != nil {
		addr = s.Stream.Addr()
	} else {
		addr = s.Packets.LocalAddr()
	}
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.Port
	case *net.UDPAddr:
		return a.Port
	}
	return 0
}

// Config is what a Publisher is made of.
type Config struct {
	// Listen takes a port of the host; nil = the real one's, Listen. It is called in an act.
	Listen func(ctx context.Context, p vm.Port) (Socket, error)
	Log    *slog.Logger
	// Changed is told, with no lock held, that a port could not be had (why), or could at last ("").
	Changed func(id vm.ID, name string, p vm.Port, why string)
}

// Publisher has the published ports of all VMs. Safe for several goroutines.
type Publisher struct {
	Config
	ctx  context.Context // of all connections; ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	clock uint64           // grows with each Mark and each hold that is released
	vms   map[vm.ID]*ports // those that have a socket, or wait for one
	taken map[*owned]bool  // every socket there is, those held for a VM that is still to be recorded too
}

// owned is a socket and whose it is.
type owned struct {
	Socket
	port vm.Port // as it is: with a number
	name string  // of the VM that it was taken for, which may not have got it yet
	of   *ports  // the VM that has it; nil = none yet
}

// New makes a Publisher that has no ports yet.
func New(c Config) *Publisher {
	if c.Listen == nil {
		c.Listen = Listen
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Publisher{Config: c, ctx: ctx, stop: stop, vms: map[vm.ID]*ports{}, taken: map[*owned]bool{}}
}

// Listen takes a port of this host.
func Listen(ctx context.Context, p vm.Port) (Socket, error) {
	family := "4"
	if addrOf(p).Is6() {
		family = "6" // and IPv6 alone: [::] leaves the same port of IPv4 to others
	}
	var c net.ListenConfig
	c.SetMultipathTCP(false) // whose sockets no listing shows as what they are
	if p.Protocol == vm.ProtocolUDP {
		packets, err := c.ListenPacket(ctx, "udp"+family, p.Host())
		return Socket{Packets: packets}, err
	}
	stream, err := c.Listen(ctx, "tcp"+family, p.Host())
	return Socket{Stream: stream}, err
}

// take listens, in an act.
func (p *Publisher) take(ctx context.Context, name string, port vm.Port) (*owned, error) {
	o := &owned{name: name}
	err := act.Do(ctx, "port", func() (err error) {
		o.Socket, err = p.Listen(ctx, port)
		return err
	})
	if err != nil {
		if o.Stream != nil || o.Packets != nil {
			_ = o.Socket.Close()
		}
		return nil, p.explain(port, err)
	}
	if port.HostPort == 0 {
		port.HostPort = o.Socket.port()
	}
	o.port = port
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken[o] = true
	return o, nil
}

// give closes a socket.
func (p *Publisher) give(o *owned) {
	_ = o.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, o)
}

// Close gives all ports back, breaks all connections off and waits for their end.
func (p *Publisher) Close() {
	p.mu.Lock()
	var all []*ports
	for _, v := range p.vms {
		all = append(all, v)
	}
	p.mu.Unlock()
	for _, v := range all {
		v.close()
	}
	p.stop()
	p.wg.Wait()
}

// retryAfter is when a port that could not be had is tried again, after the n-th time.
func retryAfter(n int) time.Duration {
	const most = 30 * time.Second // who freed it wonders already
	return min(time.Second<<min(n-1, 10), most)
}
