package publish

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
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
