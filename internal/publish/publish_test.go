package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vm"
)

// loopback is a guest whose ports are those of this host's loopback: the agent's end of each stream runs in here.
type loopback struct{ t testing.TB }

func newLoopback(t testing.TB) *loopback { return &loopback{t} }

func (g *loopback) Forward(ctx context.Context, r guest.ForwardRequest) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, r.Protocol, "127.0.0.1:"+strconv.Itoa(r.Port))
	if err != nil {
		return nil, err
	}
	here, there := socketPair(g.t)
	go func() {
		defer func() { _ = there.Close() }()
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = guest.Forward(there, tcp)
			return
		}
		defer func() { _ = conn.Close() }()
		go func() {
			buf := make([]byte, guest.MaxFrame)
			for {
				n, err := conn.Read(buf)
				if err != nil || guest.WriteDatagram(there, buf[:n]) != nil {
					return
				}
			}
		}()
		buf := make([]byte, guest.MaxFrame)
		for {
			n, err := guest.ReadDatagram(there, buf)
			if err != nil {
				return
			}
			_, _ = conn.Write(buf[:n])
		}
	}()
	return here, nil
}

// socketPair is a channel of bytes that, as those to guests, cannot end in one direction only.
func socketPair(t testing.TB) (a, b net.Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return ends[0], ends[1]
}

func newPublisher(t testing.TB) *Publisher {
	p := New(Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	t.Cleanup(p.Close)
	return p
}

const id = vm.ID("0123456789ab")

// server answers connections on a port of the "guest" by serve.
func server(t testing.TB, serve func(*net.TCPConn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// open publishes a port of the guest at one that the system chooses.
func open(t testing.TB, p *Publisher, g Guest, protocol string, port int) vm.Port {
	t.Helper()
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "127.0.0.1", GuestPort: port, Protocol: protocol}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	release := p.Hold(id, "web", r)
	p.Apply(t.Context(), id, "web", p.Mark(), r.Ports(), true, g)
	release(true)
	return r.Ports()[0]
}

func dial(t testing.TB, p vm.Port) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp4", p.Host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// TestHalfClose has a client say that it has no more, and a server answer only then; and the other way round.
func TestHalfClose(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	sum := open(t, p, g, "tcp", server(t, func(c *net.TCPConn) {
		h := sha256.New()
		_, _ = io.Copy(h, c)
		_, _ = c.Write(h.Sum(nil))
	}))
	c := dial(t, sum)
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if want := sha256.Sum256(data); err != nil || !bytes.Equal(got, want[:]) {
		t.Errorf("answered %x, %v, want %x", got, err, want)
	}

	heard := make(chan int64, 1)
	talks := open(t, p, g, "tcp", server(t, func(c *net.TCPConn) { // it ends first, and goes on reading
		_, _ = c.Write(data)
		_ = c.CloseWrite()
		n, _ := io.Copy(io.Discard, c)
		heard <- n
	}))
	c = dial(t, talks)
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if _, err := c.Write(data); err != nil {
		t.Error(err)
	}
	_ = c.CloseWrite()
	if n := <-heard; n != int64(len(data)) {
		t.Errorf("the server got %d bytes, want %d", n, len(data))
	}
}

// TestBrokenOffIsNoEnd has a server that dies in the middle: its client must not take what it has for all there is.
func TestBrokenOffIsNoEnd(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	c := dial(t, open(t, p, g, "tcp", server(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("half"))
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	})))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v, want a reset", err)
	}

	gone := make(chan error, 1)
	c = dial(t, open(t, p, g, "tcp", server(t, func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		gone <- err
	})))
	_, _ = c.Write([]byte("half"))
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-gone; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server sees %v, want a reset", err)
	}
}

func TestNobodyListens(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	c, err := net.Dial("tcp4", open(t, p, g, "tcp", l.Addr().(*net.TCPAddr).Port).Host())
	if err == nil { // it was quicker than the reset
		_, err = io.ReadAll(c)
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

// TestSlowReader has a client that reads nothing: who sends is made to wait, and what waits in this process has a bound.
func TestSlowReader(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	const all = 64 << 20
	sent := make(chan int, 1)
	stuck := make(chan struct{})
	c := dial(t, open(t, p, g, "tcp", server(t, func(c *net.TCPConn) {
		buf, n := make([]byte, 1<<20), 0
		for n < all {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			m, err := c.Write(buf)
			n += m
			if errors.Is(err, os.ErrDeadlineExceeded) && m == 0 {
				break
			}
		}
		sent <- n
		close(stuck)
		_ = c.SetWriteDeadline(time.Time{})
		for n < all {
			m, err := c.Write(buf[:min(len(buf), all-n)])
			n += m
			if err != nil {
				t.Error(err)
				return
			}
		}
	})))
	before := heap()
	if n := <-sent; n >= all/2 {
		t.Errorf("%d MiB were taken of a server whose client reads nothing", n>>20)
	}
	<-stuck
	if grown := int64(heap()) - int64(before); grown > 16<<20 {
		t.Errorf("%d MiB of memory are held meanwhile", grown>>20)
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	if n, err := io.Copy(io.Discard, c); n != all || err != nil {
		t.Errorf("%d bytes came, %v", n, err)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestManyInARow holds that nothing is left of a connection.
func TestManyInARow(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	port := open(t, p, g, "tcp", server(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
	once := func() {
		c := dial(t, port)
		defer func() { _ = c.Close() }()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	once()
	settled(t, func() bool { return connections(p, port) == 0 })
	before := fds(t)
	for range 1000 {
		once()
	}
	settled(t, func() bool { return connections(p, port) == 0 && fds(t) <= before })
}

func connections(p *Publisher, port vm.Port) int {
	s, _ := p.Status(id, port)
	return s.Connections
}

func fds(t testing.TB) int {
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// settled waits until it is so, as it must come to be by itself.
func settled(t testing.TB, so func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for !so() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it does not come to be")
		}
	}
}

// TestGuestIsWaitedFor has clients come before the guest can be reached.
func TestGuestIsWaitedFor(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	port := open(t, p, nil, "tcp", server(t, func(c *net.TCPConn) { _, _ = c.Write([]byte("here")) }))
	c := dial(t, port)
	if s, _ := p.Status(id, port); !s.Open || s.Connections != 0 {
		t.Errorf("%+v, want an open port that carries nothing", s)
	}
	p.Apply(t.Context(), id, "web", p.Mark(), []vm.Port{port}, true, g)
	if got, err := io.ReadAll(c); err != nil || string(got) != "here" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTakenPort(t *testing.T) {
	p := newPublisher(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	others := vm.Port{HostIP: "127.0.0.1", HostPort: l.Addr().(*net.TCPAddr).Port, GuestPort: 80, Protocol: "tcp"}
	anywhere := others
	anywhere.HostIP = "0.0.0.0"
	for _, port := range []vm.Port{others, anywhere} {
		_, err = p.Reserve(t.Context(), id, "web", []vm.Port{port}, nil)
		if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) || vm.HintOf(err) == "" {
			t.Errorf("%s: %v, want a conflict that names this process", port, err)
		}
	}
	ours := open(t, p, nil, "tcp", 80)
	two := []vm.Port{{HostIP: "127.0.0.1", GuestPort: 80, Protocol: "tcp"}, ours}
	_, err = p.Reserve(t.Context(), "ffffffffffff", "db", two, nil)
	if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "VM web has published it") {
		t.Errorf("%v, want a conflict that names the VM", err)
	}
	if len(p.taken) != 1 {
		t.Errorf("%d ports are taken after a reservation that failed, want 1", len(p.taken))
	}
	if _, err := p.Reserve(t.Context(), id, "web", []vm.Port{ours}, nil); err != nil {
		t.Errorf("its own port: %v", err)
	}
	_, err = p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "192.0.2.1", HostPort: 8080, GuestPort: 80, Protocol: "tcp"}}, nil)
	if vm.CodeOf(err) != vm.CodeInvalid || !strings.Contains(err.Error(), "no such address") {
		t.Errorf("%v", err)
	}
}

// TestPortComesFree has a port that is another's at first: the VM goes without it, is told so, and gets it.
func TestPortComesFree(t *testing.T) {
	taken := true
	var said []string
	p := New(Config{Log: slog.New(slog.DiscardHandler), Changed: func(v vm.ID, name string, _ vm.Port, why string) {
		said = append(said, fmt.Sprint(v, " ", name, " ", why != ""))
	}, Listen: func(ctx context.Context, port vm.Port) (Socket, error) {
		if taken {
			return Socket{}, unix.EADDRINUSE
		}
		port.HostPort = 0
		return Listen(ctx, port)
	}})
	defer p.Close()
	port := vm.Port{HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80, Protocol: "tcp"}
	apply := func() time.Duration { return p.Apply(t.Context(), id, "web", p.Mark(), []vm.Port{port}, true, nil) }
	if again := apply(); again <= 0 || again > time.Second {
		t.Errorf("tried again after %v", again)
	}
	if s, ok := p.Status(id, port); !ok || s.Open || s.Why == "" || s.RetryAt.IsZero() {
		t.Errorf("%+v", s)
	}
	if apply(); p.vms[id].entries[port].tries != 1 {
		t.Error("tried before it was due")
	}
	taken, p.vms[id].entries[port].retryAt = false, time.Time{}
	if again := apply(); again != 0 {
		t.Errorf("to be tried once more, after %v", again)
	}
	if s, _ := p.Status(id, port); !s.Open || s.Why != "" {
		t.Errorf("%+v", s)
	}
	if got := strings.Join(said, "; "); got != "0123456789ab web true; 0123456789ab web false" {
		t.Errorf("told %q", got)
	}
}

// TestRemovedPort breaks off what it carries; a port that is closed with its VM lets that come to its end.
func TestRemovedPort(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	echo := server(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	say := func(c *net.TCPConn) error {
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return err
	}
	a := dial(t, open(t, p, g, "tcp", echo))
	if err := say(a); err != nil {
		t.Fatal(err)
	}
	two := open(t, p, g, "tcp", echo) // whose spec has the first no more
	b := dial(t, two)
	if err := say(b); err != nil {
		t.Fatal(err)
	}
	if err := say(a); err == nil {
		t.Error("a removed port carries on")
	}
	old := p.Mark()
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "127.0.0.1", GuestPort: echo, Protocol: "tcp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	release := p.Hold(id, "web", r)
	third := r.Ports()[0]
	for _, mark := range []uint64{p.Mark(), old} { // held; then released, by a record that was read before
		p.Apply(t.Context(), id, "web", mark, []vm.Port{two}, true, g)
		if s, _ := p.Status(id, third); !s.Open {
			t.Error("a port that is being added was closed")
		}
		release(true)
		release = func(bool) {}
	}
	p.Apply(t.Context(), id, "web", p.Mark(), []vm.Port{two}, false, g) // the VM is to stop
	if _, err := net.Dial("tcp4", two.Host()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want the port closed", err)
	}
	if err := say(b); err != nil {
		t.Errorf("a connection of a VM that stops: %v", err)
	}
	if len(p.taken) != 0 {
		t.Errorf("%d ports are still taken", len(p.taken))
	}
}

func TestHoldGivenBack(t *testing.T) {
	p := newPublisher(t)
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "127.0.0.1", GuestPort: 80, Protocol: "udp"}, {HostIP: "127.0.0.1", GuestPort: 80, Protocol: "tcp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Hold(id, "web", r)(false)
	r.Close()
	if len(p.taken) != 0 || len(p.vms[id].entries) != 0 {
		t.Errorf("%d taken, %d entries, want none", len(p.taken), len(p.vms[id].entries))
	}
}

func TestSystemAvoids(t *testing.T) {
	p := newPublisher(t)
	var first int
	r, err := p.Reserve(t.Context(), "", "new", []vm.Port{{HostIP: "127.0.0.1", GuestPort: 80, Protocol: "tcp"}}, func(port vm.Port) bool {
		if first == 0 {
			first = port.HostPort
		}
		return port.HostPort == first
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := r.Ports()[0].HostPort; got == first || got == 0 || len(p.taken) != 1 {
		t.Errorf("chose %d although it was to avoid %d; %d are taken", got, first, len(p.taken))
	}
}
