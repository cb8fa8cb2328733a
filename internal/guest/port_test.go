package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// fakePort behaves as a virtio-serial port under QEMU, at its worst: what one host leaves behind reaches the next, in
// both directions, and the guest sees a host go only when the test says so.
type fakePort struct {
	mu       sync.Mutex
	changed  *sync.Cond
	toGuest  bytes.Buffer
	toHost   bytes.Buffer
	host     net.Conn // QEMU's end of the host's connection
	hostSeen bool     // by the guest
	expired  bool     // the guest's deadline
}

const fakePortRoom = 8 << 10

func newFakePort() *fakePort {
	p := &fakePort{}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// plug connects a host.
func (p *fakePort) plug() net.Conn {
	ours, theirs := net.Pipe()
	p.mu.Lock()
	p.host, p.hostSeen = ours, true
	p.changed.Broadcast()
	p.mu.Unlock()
	go func() {
		b := make([]byte, 1500)
		for {
			n, err := ours.Read(b)
			p.mu.Lock()
			for p.host == ours && p.toGuest.Len() > fakePortRoom {
				p.changed.Wait()
			}
			if p.host == ours {
				p.toGuest.Write(b[:n])
			}
			p.changed.Broadcast()
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		for {
			p.mu.Lock()
			for p.host == ours && p.toHost.Len() == 0 {
				p.changed.Wait()
			}
			if p.host != ours {
				p.mu.Unlock()
				return
			}
			b := bytes.Clone(p.toHost.Next(1000))
			p.changed.Broadcast()
			p.mu.Unlock()
			if _, err := ours.Write(b); err != nil {
				return
			}
		}
	}()
	return theirs
}

// unplug ends the host's connection, losing the first bytes of what is under way in either direction.
func (p *fakePort) unplug(seen bool, loseToGuest, loseToHost int) {
	p.mu.Lock()
	_ = p.host.Close()
	p.host, p.hostSeen = nil, !seen
	p.toGuest.Next(loseToGuest)
	p.toHost.Next(loseToHost)
	p.changed.Broadcast()
	p.mu.Unlock()
}

func (p *fakePort) read(b []byte, waitForHost bool) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.expired:
			return 0, os.ErrDeadlineExceeded
		case p.toGuest.Len() > 0:
			p.changed.Broadcast()
			return p.toGuest.Read(b)
		case !p.hostSeen && !waitForHost:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

func (p *fakePort) Read(b []byte) (int, error)     { return p.read(b, false) }
func (p *fakePort) ReadHost(b []byte) (int, error) { return p.read(b, true) }

func (p *fakePort) Write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		for !p.expired && (!p.hostSeen || p.toHost.Len() > fakePortRoom) {
			p.changed.Wait()
		}
		if p.expired {
			return n, os.ErrDeadlineExceeded
		}
		w, _ := p.toHost.Write(b[:min(len(b), 4096)])
		n, b = n+w, b[w:]
		p.changed.Broadcast()
	}
	return n, nil
}

func (p *fakePort) Offer(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hostSeen && p.toHost.Len() <= fakePortRoom {
		p.toHost.Write(b)
		p.changed.Broadcast()
	}
}

func (p *fakePort) SetDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expired = !t.IsZero()
	p.changed.Broadcast()
	return nil
}

// serveFake serves echoes (see guestStream) until the test ends, and checks that serveDevice ends with its context.
func serveFake(t *testing.T, p *fakePort) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serveDevice(ctx, p, func(l net.Listener) error {
			for {
				c, err := l.Accept()
				if err != nil {
					return err
				}
				go guestStream(c)
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("serveDevice: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("serveDevice goes on after its context")
		}
	})
}

func fakeMux(t *testing.T, p *fakePort) *Mux {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := NewMux(ctx, p.plug())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPortEchoAndEnd(t *testing.T) {
	p := newFakePort()
	serveFake(t, p)
	m := fakeMux(t, p)
	data, _ := io.ReadAll(io.LimitReader(noise(1), 3<<20))
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			c := open(t, m, fmt.Sprintf("sink %d", len(data)))
			go func() { _, _ = c.Write(data) }()
			if b, err := io.ReadAll(c); err != nil || len(b) != 65 {
				t.Errorf("answer %q, %v", b, err)
			}
			c = open(t, m, fmt.Sprintf("source %d", len(data)))
			if n, err := io.Copy(io.Discard, c); err != nil || n != int64(len(data)) {
				t.Errorf("%d bytes, %v", n, err)
			}
			_ = c.Close()
		})
	}
	wait.Wait()
	p.unplug(true, 0, 0)
	select {
	case <-m.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the session outlives its connection")
	}
	if _, err := m.Dial(t.Context()); err == nil {
		t.Error("dialled over an ended session")
	}
}

// TestPortReplacedHosts ends hosts in the middle of transfers, in every way, and expects the next one to be served.
func TestPortReplacedHosts(t *testing.T) {
	for _, seen := range []bool{true, false} {
		t.Run(fmt.Sprintf("guest sees it %v", seen), func(t *testing.T) {
			p := newFakePort()
			serveFake(t, p)
			rng := rand.New(rand.NewPCG(1, 2))
			for range 12 {
				m := fakeMux(t, p)
				oneEcho(t, open(t, m, "echo"))
				for range 2 {
					c := open(t, m, "echo")
					go func() { _, _ = io.Copy(io.Discard, c) }()
					go func() { _, _ = c.Write(make([]byte, 8<<20)) }()
				}
				src := open(t, m, "source 8000000")
				if _, err := io.CopyN(io.Discard, src, rng.Int64N(200_000)); err != nil {
					t.Fatal(err)
				}
				p.unplug(seen, rng.IntN(4000), rng.IntN(4000))
				<-m.Done()
			}
		})
	}
}

// TestPortHostFirst has a host that waits long before the guest is up, its hellos filling the port.
func TestPortHostFirst(t *testing.T) {
	p := newFakePort()
	ready := make(chan *Mux)
	go func() { ready <- fakeMux(t, p) }()
	time.Sleep(700 * time.Millisecond)
	serveFake(t, p)
	m := <-ready
	oneEcho(t, open(t, m, "echo"))
	_ = m.Close()
}

func TestNewMuxEndsWithContext(t *testing.T) {
	p := newFakePort() // no guest
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	conn := p.plug()
	if _, err := NewMux(ctx, conn); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the context", err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection is left open: %v", err)
	}
}

// TestPortGuestEndsSession has serve return early: the host learns it, and the next session works.
func TestPortGuestEndsSession(t *testing.T) {
	p := newFakePort()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = serveDevice(ctx, p, func(l net.Listener) error {
			c, err := l.Accept()
			if err == nil {
				guestStream(c)
			}
			return err
		})
	}()
	for range 3 {
		m := fakeMux(t, p)
		c, err := m.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "stat\n") // the end may come before the sender knows that all of it is sent
		_, _ = io.ReadAll(c)
		select {
		case <-m.Done():
		case <-time.After(5 * time.Second):
			t.Fatal("the host was not told of the end")
		}
		p.unplug(true, 0, 0)
	}
}

// TestPausedGuest fills the port of a guest that reads nothing: nothing is declared dead, closing does not wait.
func TestPausedGuest(t *testing.T) {
	p := newFakePort()
	serveFake(t, p)
	m := fakeMux(t, p)
	c := open(t, m, "drop 4000000")
	p.mu.Lock() // the pause
	go func() { _, _ = c.Write(make([]byte, 4000000)) }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for range 100 { // more than yamux queues
		d, err := m.Dial(ctx)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			break
		}
		_ = d.Close()
	}
	p.mu.Unlock()
	if b, err := io.ReadAll(c); err != nil || string(b) != "done\n" {
		t.Errorf("after the pause: %q, %v", b, err)
	}
}

// TestOneConnectionAhead: when a connection is over, the guest has accepted the next before anybody asks for it.
func TestOneConnectionAhead(t *testing.T) {
	p := newFakePort()
	accepted := make(chan net.Conn, 10)
	go func() {
		_ = serveDevice(t.Context(), p, func(l net.Listener) error {
			for {
				c, err := l.Accept()
				if err != nil {
					return err
				}
				accepted <- c
			}
		})
	}()
	m := fakeMux(t, p)
	defer func() { _ = m.Close() }()
	dial := func() net.Conn {
		c, err := m.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := dial()
	<-accepted
	_ = first.Close()
	ahead := <-accepted
	for end := time.Now().Add(10 * time.Second); len(m.spare) == 0; <-time.After(time.Millisecond) { // the guest may have it first
		if time.Now().After(end) {
			t.Fatal("what was opened ahead is not kept")
		}
	}
	if _, err := dial().Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(ahead, make([]byte, 1)); err != nil {
		t.Errorf("what was opened ahead is not used: %v", err)
	}
	if _, err := dial().Write([]byte("b")); err != nil { // there is one at most
		t.Fatal(err)
	}
	if _, err := io.ReadFull(<-accepted, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}
