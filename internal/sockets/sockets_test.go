package sockets

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestRealSockets looks for sockets that this process has.
func TestRealSockets(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	u, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	all, err := List("/proc")
	if err != nil {
		t.Fatal(err)
	}
	find := func(protocol string, addr net.Addr) Socket {
		want := netip.MustParseAddrPort(addr.String())
		i := slices.IndexFunc(all, func(s Socket) bool { return s.Protocol == protocol && s.Addr == want })
		if i < 0 {
			t.Fatalf("no %s socket at %s among %d", protocol, want, len(all))
		}
		return all[i]
	}
	tcp, udp := find("tcp", l.Addr()), find("udp", u.LocalAddr())
	owners, err := Owners("/proc", map[uint64]bool{tcp.Inode: true, udp.Inode: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Socket{tcp, udp} {
		if p := owners[s.Inode]; p.PID != os.Getpid() || !strings.HasPrefix(os.Args[0], "/") || p.Name == "" || s.UID != os.Getuid() {
			t.Errorf("%+v is of %+v, want pid %d", s, p, os.Getpid())
		}
	}
	_ = l.Close()
	if all, err = List("/proc"); err != nil || slices.ContainsFunc(all, func(s Socket) bool { return s.Inode == tcp.Inode && s.Addr == tcp.Addr }) {
		t.Errorf("a closed socket is listed: %v", err)
	}
}

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100
   3: 0100:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 9
   4: 0100007F:1F90
`

func TestParse(t *testing.T) {
	got := parse(table, "tcp", tcpListen)
	want := []Socket{
		{"tcp", netip.MustParseAddrPort("127.0.0.1:8080"), 1000, 4242},
		{"tcp", netip.MustParseAddrPort("[::1]:22"), 0, 7},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(table)
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range parse(text, "tcp", tcpListen) {
			if !s.Addr.IsValid() {
				t.Fatalf("%+v", s)
			}
		}
	})
}
