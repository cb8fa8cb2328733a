package agent

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/sockets"
	"banger/internal/vm"
)

func forwarder(t testing.TB) *guest.Client {
	_, socket := serveAgent(t)
	return guest.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	})
}

// carried is a TCP connection, and the far end of it carried over a stream to the agent.
func carried(t *testing.T, stream net.Conn) *net.TCPConn {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	near, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = guest.Forward(stream, far.(*net.TCPConn)) }()
	_ = near.SetDeadline(time.Now().Add(time.Minute))
	return near.(*net.TCPConn)
}

// TestForward reaches servers wherever they listen, by the port alone.
func TestForward(t *testing.T) {
	c := forwarder(t)
	for _, at := range []string{"127.0.0.1", "0.0.0.0", "[::1]", "[::]", "127.0.0.9"} {
		l, err := net.Listen("tcp", at+":0")
		if err != nil && strings.HasPrefix(at, "[") {
			t.Logf("not looked at: %v", err) // a host without IPv6
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			s, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(s)
			_, _ = s.Write(bytes.ToUpper(b))
			_ = s.Close()
		}()
		port := l.Addr().(*net.TCPAddr).Port
		stream, err := c.Forward(t.Context(), guest.ForwardRequest{Protocol: "tcp", Port: port})
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		conn := carried(t, stream)
		_, _ = conn.Write([]byte("hello"))
		_ = conn.CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != "HELLO" {
			t.Errorf("%s: %q, %v", at, got, err)
		}
		_ = l.Close()
		if _, err := c.Forward(t.Context(), guest.ForwardRequest{Protocol: "tcp", Port: port}); vm.CodeOf(err) != vm.CodeUnavailable || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s, with nobody there: %v", at, err)
		}
	}
	for _, bad := range []guest.ForwardRequest{{Protocol: "tcp"}, {Protocol: "tcp", Port: 1 << 16}, {Protocol: "unix", Port: 1}, {Port: 80}} {
		if _, err := c.Forward(t.Context(), bad); vm.CodeOf(err) != vm.CodeInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestForwardDatagrams(t *testing.T) {
	c := forwarder(t)
	s, err := net.ListenPacket("udp4", "127.0.0.9:0") // as a resolver, on an address of its own
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	stream, err := c.Forward(t.Context(), guest.ForwardRequest{Protocol: "udp", Port: s.LocalAddr().(*net.UDPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	_ = s.SetDeadline(time.Now().Add(time.Minute))
	_ = stream.SetDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, guest.MaxFrame)
	for _, what := range []string{"a", "", strings.Repeat("x", 65_000)} {
		if err := guest.WriteDatagram(stream, []byte(what)); err != nil {
			t.Fatal(err)
		}
		n, from, err := s.ReadFrom(buf)
		if err != nil || string(buf[:n]) != what {
			t.Fatalf("%d bytes came, %v, want %d", n, err, len(what))
		}
		if _, err := s.WriteTo(buf[:n], from); err != nil {
			t.Fatal(err)
		}
		if n, err = guest.ReadDatagram(stream, buf); err != nil || string(buf[:n]) != what {
			t.Fatalf("%d bytes came back, %v, want %d", n, err, len(what))
		}
	}
}

// TestServerOfUDPComesLater, and not on the address at which it was expected: the client's next datagrams find it.
func TestServerOfUDPComesLater(t *testing.T) {
	s, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skipf("this host has no IPv6: %v", err)
	}
	addr := s.LocalAddr().(*net.UDPAddr)
	_ = s.Close()
	stream, err := forwarder(t).Forward(t.Context(), guest.ForwardRequest{Protocol: "udp", Port: addr.Port})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	if err := guest.WriteDatagram(stream, []byte("nobody is there")); err != nil {
		t.Fatal(err)
	}
	if s, err = net.ListenPacket("udp6", addr.String()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	heard := make(chan net.Addr, 1)
	go func() {
		if _, from, err := s.ReadFrom(make([]byte, guest.MaxFrame)); err == nil {
			heard <- from
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var from net.Addr
	for end := time.After(time.Minute); from == nil; {
		if err := guest.WriteDatagram(stream, []byte("again")); err != nil {
			t.Fatal(err)
		}
		select {
		case from = <-heard:
		case <-tick.C:
		case <-end:
			t.Fatal("the server is never found")
		}
	}
	if _, err := s.WriteTo([]byte("here"), from); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, guest.MaxFrame)
	_ = stream.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := guest.ReadDatagram(stream, buf); err != nil || string(buf[:n]) != "here" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func TestAddresses(t *testing.T) {
	listening := func(all ...string) (list []sockets.Socket) {
		for _, a := range all {
			protocol, addr, _ := strings.Cut(a, " ")
			list = append(list, sockets.Socket{Protocol: protocol, Addr: netip.MustParseAddrPort(addr)})
		}
		return list
	}
	for _, c := range []struct {
		all  []sockets.Socket
		want string
	}{
		{listening("tcp 10.0.2.15:80", "udp 0.0.0.0:80", "tcp 0.0.0.0:81"), "10.0.2.15"},
		{listening("tcp 10.0.2.15:80", "tcp [::]:80"), "::1 10.0.2.15"},
		{listening("tcp [fd00::1]:80", "tcp [::1]:80", "tcp 0.0.0.0:80"), "127.0.0.1 ::1 fd00::1"},
		{listening("tcp [::ffff:10.0.0.1]:80"), "10.0.0.1"},
		{nil, ""},
	} {
		var got []string
		for _, a := range addresses(c.all, guest.ForwardRequest{Protocol: "tcp", Port: 80}) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v: %v, want %s", c.all, got, c.want)
		}
	}
}

func TestListeners(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	all, err := forwarder(t).Listeners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	i := slices.IndexFunc(all.Listeners, func(l guest.Listener) bool { return l.Port == port && l.Protocol == "tcp" })
	if i < 0 || all.Listeners[i].Address != "127.0.0.1" || all.Listeners[i].Process == "" || all.Total < len(all.Listeners) {
		t.Errorf("%d of %d listeners, ours is %d: %+v", len(all.Listeners), all.Total, i, all.Listeners)
	}
	few, err := listListeners("/proc", 50)
	if err != nil || len(few.Listeners) > 1 || few.Total == 0 {
		t.Errorf("%d of %d fit into 50 bytes, %v", len(few.Listeners), few.Total, err)
	}
}
