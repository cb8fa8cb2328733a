package publish

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/guest"
	"banger/internal/vm"
)

// dialWait bounds how long the guest has to take a connection on.
const dialWait = 30 * time.Second

// streams carries the TCP connections of one port.
type streams struct {
	v        *ports
	e        *entry
	listener net.Listener

	live atomic.Int32
	wg   sync.WaitGroup
}

func (s *streams) count() int { return int(s.live.Load()) }

// run accepts until the port is closed, and returns when what it carries has ended. While the guest cannot be reached, or has
// as many connections as it may, clients wait in the kernel's queue.
func (s *streams) run() {
	defer s.wg.Wait()
	pause := acceptPause
	for {
		if _, err := s.v.await(s.e.open); err != nil {
			return
		}
		conn, err := s.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || s.e.open.Err() != nil {
				return
			}
			s.v.p.Log.Warn("a published port takes no connections for the moment", "vm", s.v.nameNow(), "id", s.v.id, "port", s.e.port, "error", err)
			if wait(s.e.open, pause) != nil { // it has no descriptors left, say
				return
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		select {
		case s.v.slots <- struct{}{}:
		case <-s.e.open.Done():
			_ = conn.Close()
			return
		}
		pause = acceptPause
		s.live.Add(1)
		s.wg.Go(func() {
			defer func() {
				s.live.Add(-1)
				<-s.v.slots
			}()
			s.carry(conn)
		})
	}
}

const (
	acceptPause    = 10 * time.Millisecond
	acceptPauseMax = time.Second
)

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// carry joins one connection to the guest's port. Where nobody listens there, it is reset.
func (s *streams) carry(c net.Conn) {
	conn, ok := c.(*net.TCPConn)
	if !ok { // of a host that is not real
		_ = c.Close()
		return
	}
	// A guest that is paused or started again is waited for, as those wait that are still in the queue.
	_, err := s.v.await(s.e.open)
	var stream net.Conn
	if err == nil {
		stream, err = s.v.dial(s.e.ctx, s.e.port)
	}
	if err != nil {
		_ = conn.SetLinger(0)
		_ = conn.Close()
		return
	}
	defer context.AfterFunc(s.e.ctx, func() {
		_ = conn.SetLinger(0)
		_ = conn.Close()
		_ = stream.SetDeadline(time.Unix(1, 0))
		_ = stream.Close()
	})()
	if err := guest.Forward(stream, conn); err != nil {
		s.v.p.Log.Debug("a connection broke off", "vm", s.v.nameNow(), "id", s.v.id, "port", s.e.port, "client", conn.RemoteAddr(), "error", err)
	}
}

// dial opens a stream to a port of the guest, once that can be reached.
func (v *ports) dial(ctx context.Context, port vm.Port) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	g, err := v.await(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := g.Forward(ctx, guest.ForwardRequest{Protocol: port.Protocol, Port: port.GuestPort})
	if err != nil {
		v.p.Log.Debug("the guest took no connection", "vm", v.nameNow(), "id", v.id, "port", port, "error", err)
	}
	return stream, err
}
