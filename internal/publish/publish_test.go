package publish

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"banger/internal/vm"
)

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
