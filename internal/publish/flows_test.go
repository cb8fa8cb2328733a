package publish

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// upper answers datagrams in capitals.
func upper(t testing.TB) (port int) {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(strings.ToUpper(string(buf[:n]))), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// ask sends a datagram until it is answered: one may be lost.
func ask(t testing.TB, c net.Conn, what string) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	for range 600 {
		if _, err := c.Write([]byte(what)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Read(buf)
		if err == nil {
			return string(buf[:n])
		}
	}
	t.Fatal("no answer")
	return ""
}

func TestDatagrams(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	port := open(t, p, g, "udp", upper(t))
	for _, what := range []string{"a", "", strings.Repeat("x", 60_000)} {
		for range 2 {
			c, err := net.Dial("udp4", port.Host())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if got := ask(t, c, what); got != strings.ToUpper(what) {
				t.Errorf("%d bytes were answered with %d", len(what), len(got))
			}
		}
	}
	if n := connections(p, port); n != 6 {
		t.Errorf("%d clients, want 6", n)
	}
	p.Apply(t.Context(), id, "web", p.Mark(), nil, true, g)
	settled(t, func() bool { return p.vms[id].seats.taken() == 0 })
}

// TestAnswersFromWhereItWasAsked has a port at all addresses.
func TestAnswersFromWhereItWasAsked(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "0.0.0.0", GuestPort: upper(t), Protocol: "udp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Hold(id, "web", r)(true)
	p.Apply(t.Context(), id, "web", p.Mark(), r.Ports(), true, g)
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), uint16(r.Ports()[0].HostPort))
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to)) // hears nobody else
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if got := ask(t, c, "a"); got != "A" {
		t.Errorf("answered %q", got)
	}
}

func TestSilentClientIsForgotten(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := p.of(id, "web")
	v.reach(g)
	e := v.newEntry(vm.Port{HostIP: "127.0.0.1", GuestPort: upper(t), Protocol: "udp"})
	f := newFlows(v, e, packets)
	f.idle = 50 * time.Millisecond
	done := make(chan struct{})
	go func() { f.run(); close(done) }()
	c, err := net.Dial("udp4", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ask(t, c, "a")
	settled(t, func() bool { return f.count() == 0 && v.seats.taken() == 0 })
	if got := ask(t, c, "b"); got != "B" {
		t.Errorf("after its silence: %q", got)
	}
	_ = packets.Close()
	<-done
}

// TestManyClients has more of them than there is room for: the one that was silent longest makes room.
func TestManyClients(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	port := open(t, p, g, "udp", upper(t))
	for range maxClients + 10 {
		c, err := net.Dial("udp4", port.Host())
		if err != nil {
			t.Fatal(err)
		}
		ask(t, c, "x")
		_ = c.Close()
	}
	if n := connections(p, port); n > maxClients {
		t.Errorf("%d clients, want at most %d", n, maxClients)
	}
}

// TestClientsOfAnotherPort has one port's clients take all the room that a VM has: another port has clients all the same.
func TestClientsOfAnotherPort(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	server := upper(t)
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "127.0.0.1", GuestPort: server, Protocol: "udp"}, {HostIP: "127.0.0.1", GuestPort: server, Protocol: "udp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer p.Hold(id, "web", r)(true)
	p.Apply(t.Context(), id, "web", p.Mark(), r.Ports(), true, g)
	busy, other := r.Ports()[0], r.Ports()[1]
	for range maxClients {
		c, err := net.Dial("udp4", busy.Host())
		if err != nil {
			t.Fatal(err)
		}
		ask(t, c, "x")
		_ = c.Close()
	}
	c, err := net.Dial("udp4", other.Host())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if got := ask(t, c, "y"); got != "Y" {
		t.Errorf("answered %q", got)
	}
	if n := p.vms[id].seats.taken(); n > maxClients {
		t.Errorf("%d clients, want at most %d", n, maxClients)
	}
}
