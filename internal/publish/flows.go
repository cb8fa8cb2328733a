package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"banger/internal/guest"
)

const (
	// flowIdle is how long a client of UDP may be silent, with the guest silent too, until it counts as gone. Kernels give
	// up a conversation after two minutes, and one that nobody answered after half of one.
	flowIdle = 90 * time.Second

	// queued datagrams of one client wait for the guest; more are dropped, as a full buffer of the kernel does.
	queued = 64
)

// flows carries the datagrams of one port. Each client, told by its address, has a stream to the guest of its own, and there a
// socket of its own.
type flows struct {
	v       *ports
	e       *entry
	packets *packets
	idle    time.Duration

	wg sync.WaitGroup
	mu sync.Mutex
	by map[peer]*flow
}

type flow struct {
	in     chan []byte
	cancel context.CancelFunc

	mu   sync.Mutex
	seen time.Time // when either side last said something
}

func newFlows(v *ports, e *entry, c net.PacketConn) *flows {
	return &flows{v: v, e: e, packets: newPackets(c), idle: flowIdle, by: map[peer]*flow{}}
}

func (f *flows) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.by)
}

// run takes datagrams until the port is closed, and returns when all conversations have ended.
func (f *flows) run() {
	defer f.wg.Wait()
	defer f.endAll() // the port is closed: nothing that is answered would reach anybody
	buf := make([]byte, guest.MaxFrame)
	pause := acceptPause
	for {
		n, from, err := f.packets.read(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || wait(f.e.open, pause) != nil {
				return
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		pause = acceptPause
		f.take(buf[:n], from)
	}
}

// take has a datagram wait for the guest, or drops it where it takes them slower than they come.
func (f *flows) take(b []byte, from peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.of(from)
	if c == nil || f.v.waiting.Load()+int64(len(b)) > maxWaiting {
		return
	}
	select {
	case c.in <- append([]byte(nil), b...):
		f.v.waiting.Add(int64(len(b)))
	default:
	}
}

// drop forgets what still waits of a conversation that has ended.
func (f *flows) drop(c *flow) {
	for {
		select {
		case b := <-c.in:
			f.v.waiting.Add(-int64(len(b)))
		default:
			return
		}
	}
}

// seats are the clients of one VM, whichever of its ports they speak to.
type seats struct {
	mu sync.Mutex
	by map[*flow]bool
}

// take gives a client a seat. Where all are taken it gives none, and ends the conversation that was silent longest.
func (s *seats) take(c *flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.by) < maxClients {
		if s.by == nil {
			s.by = map[*flow]bool{}
		}
		s.by[c] = true
		return true
	}
	var oldest *flow
	for other := range s.by {
		if oldest == nil || other.last().Before(oldest.last()) {
			oldest = other
		}
	}
	oldest.cancel()
	return false
}

func (s *seats) leave(c *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, c)
}

func (s *seats) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.by)
}

// of returns the conversation with a client, begun where there is none; nil where the VM has too many: another is ended then,
// and the client's next datagram finds room. Caller holds mu.
func (f *flows) of(from peer) *flow {
	if c := f.by[from]; c != nil {
		return c
	}
	ctx, cancel := context.WithCancel(f.e.ctx)
	c := &flow{in: make(chan []byte, queued), cancel: cancel, seen: time.Now()}
	if !f.v.seats.take(c) {
		cancel()
		return nil
	}
	f.by[from] = c
	f.wg.Go(func() {
		defer func() {
			cancel()
			f.mu.Lock()
			delete(f.by, from)
			f.drop(c)
			f.mu.Unlock()
			f.v.seats.leave(c)
		}()
		f.carry(ctx, c, from)
	})
	return c
}

func (f *flows) endAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.by {
		c.cancel()
	}
}

// carry passes datagrams both ways until both sides are silent, or the guest has ended it.
func (f *flows) carry(ctx context.Context, c *flow, from peer) {
	stream, err := f.v.dial(ctx, f.e.port)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() {
		_ = stream.SetDeadline(time.Unix(1, 0))
		_ = stream.Close()
	})()
	defer func() { _ = stream.Close() }()
	f.wg.Go(func() {
		defer c.cancel()
		buf := make([]byte, guest.MaxFrame)
		for {
			n, err := guest.ReadDatagram(stream, buf)
			if err != nil {
				return
			}
			c.touch()
			f.packets.write(buf[:n], from)
		}
	})
	silence := time.NewTimer(f.idle)
	defer silence.Stop()
	for {
		select {
		case p := <-c.in:
			c.touch()
			err := guest.WriteDatagram(stream, p)
			f.v.waiting.Add(-int64(len(p)))
			if err != nil {
				return
			}
		case <-silence.C:
			left := f.idle - time.Since(c.last())
			if left <= 0 {
				c.cancel()
				return
			}
			silence.Reset(left)
		case <-ctx.Done():
			return
		}
	}
}

func (c *flow) touch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = time.Now()
}

func (c *flow) last() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// peer is a client, and the address of this host that it wrote to: it expects the answer from there.
type peer struct {
	client netip.AddrPort
	local  netip.Addr // zero: what the port is bound to
}
