package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"banger/internal/network"
	"banger/internal/vm"
)

// The network that the tests make: this process is the host; "world" is a namespace behind its interface up0, and
// has what clouds have at 169.254.169.254; each guest is one behind its tap device, as a VMM would have it.
const (
	hostAddr  = "203.0.113.2"
	worldAddr = "203.0.113.1"
	metaAddr  = "169.254.169.254"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func ip(t *testing.T, line string) string {
	t.Helper()
	return run(t, "ip", strings.Fields(line)...)
}

// within calls f on a thread of its own in a namespace; what f opens stays there.
func within(namespace string, f func() error) error {
	if namespace == "" {
		return f()
	}
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes with the goroutine
		ns, err := os.Open(filepath.Join("/run/netns", namespace))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err == nil {
			err = f()
		}
		ended <- err
	}()
	return <-ended
}

// makeWorld makes what is outside. On each of its addresses port 80 tells who called and then echoes.
func makeWorld(t *testing.T) {
	t.Helper()
	ip(t, "netns add world")
	ip(t, "link add up0 type veth peer name w0 netns world")
	for _, line := range []string{
		"address add " + hostAddr + "/24 dev up0", "link set up0 up",
		"-n world address add " + worldAddr + "/24 dev w0", "-n world link set w0 up", "-n world link set lo up",
		"-n world address add " + metaAddr + "/32 dev lo",
		"route add default via " + worldAddr,
	} {
		ip(t, line)
	}
	serve(t, "world", "0.0.0.0:80")
}

// serve listens in a namespace, tells each caller its address in a line, and echoes what it says after that.
func serve(t *testing.T, namespace, at string) {
	t.Helper()
	var l net.Listener
	err := within(namespace, func() (err error) {
		l, err = net.Listen("tcp4", at)
		return err
	})
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
				defer c.Close()
				_, _ = fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

const patience = 3 * time.Second // with what must work; what must not is given less

// call connects from a namespace and returns whom the other side sees.
func call(namespace, at string, wait time.Duration) (seen string, conn net.Conn, err error) {
	err = within(namespace, func() (err error) {
		conn, err = (&net.Dialer{Timeout: wait}).Dial("tcp4", at)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(wait))
	if _, err := fmt.Fscanln(conn, &seen); err != nil {
		_ = conn.Close()
		return "", nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return seen, conn, nil
}

func reaches(t *testing.T, namespace, at, wantSeen string) {
	t.Helper()
	seen, conn, err := call(namespace, at, patience)
	if err != nil || seen != wantSeen {
		t.Errorf("%q to %s: seen as %q (%v), want %s", namespace, at, seen, err, wantSeen)
		return
	}
	_ = conn.Close()
}

// refused: with an answer, so that nobody waits for a timeout.
func refused(t *testing.T, namespace, at string) {
	t.Helper()
	seen, conn, err := call(namespace, at, patience)
	if err == nil {
		_ = conn.Close()
	}
	if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%q to %s: seen as %q (%v), want a refusal", namespace, at, seen, err)
	}
}

func unreachable(t *testing.T, namespace, at string) {
	t.Helper()
	if seen, conn, err := call(namespace, at, 400*time.Millisecond); err == nil {
		_ = conn.Close()
		t.Errorf("%q reaches %s, seen as %s", namespace, at, seen)
	}
}

// echoes says something over a connection that is there.
func echoes(t *testing.T, conn net.Conn, word string) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var got string
	if _, err := fmt.Fprintln(conn, word); err != nil {
		t.Errorf("say %s: %v", word, err)
	}
	if _, err := fmt.Fscanln(conn, &got); err != nil || got != word {
		t.Errorf("%q came back for %q (%v)", got, word, err)
	}
}

// testGuest is a namespace behind a VM's tap device.
type testGuest struct {
	port network.Port
	ns   string
	mac  net.HardwareAddr
	addr string
	tap  *os.File // the host's, as the VMM has it
}

// openTap opens the device as a VMM does, and fails when it would have to be made.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// boot attaches a guest, which has all that it was given.
func boot(t *testing.T, d *Driver, name, addr string) *testGuest {
	t.Helper()
	g := &testGuest{port: network.Port{ID: vm.NewID(), Name: name, Addr: netip.MustParseAddr(addr)}, ns: name, addr: addr}
	a, err := d.Ensure(t.Context(), g.port)
	if err != nil {
		t.Fatal(err)
	}
	g.mac, _ = net.ParseMAC(a.NIC.MAC)
	if g.tap, err = openTap(a.TapDevice); err != nil {
		t.Fatal(err)
	}
	ip(t, "netns add "+name)
	var card *os.File
	if err := within(name, func() (err error) { card, err = openTap("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.tap.Close()
		_ = card.Close()
	})
	pump := func(to, from *os.File) {
		buf := make([]byte, 1<<17)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			_, _ = to.Write(buf[:n])
		}
	}
	for _, line := range []string{
		"-n " + name + " link set lo up",
		"-n " + name + " link set eth0 address " + a.Guest.MAC,
		"-n " + name + " link set eth0 up",
		"-n " + name + " address add " + a.Guest.Address + " dev eth0",
		"-n " + name + " route add default via " + a.Guest.Gateway,
	} {
		ip(t, line)
	}
	go pump(card, g.tap)
	go pump(g.tap, card)
	return g
}

// resolve asks the guest's nameserver.
func (g *testGuest) resolve(server, name string, kind dnsmessage.Type) (string, error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET,
	}}}
	b, err := m.Pack()
	if err != nil {
		return "", err
	}
	err = within(g.ns, func() error {
		c, err := net.Dial("udp4", server+":53")
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(b); err != nil {
			return err
		}
		b = make([]byte, 4096)
		n, err := c.Read(b)
		b = b[:n]
		return err
	})
	if err != nil {
		return "", err
	}
	if err := m.Unpack(b); err != nil {
		return "", err
	}
	if len(m.Answers) != 1 {
		return "", fmt.Errorf("%s, %d answers", m.RCode, len(m.Answers))
	}
	switch r := m.Answers[0].Body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(r.A).String(), nil
	case *dnsmessage.PTRResource:
		return r.PTR.String(), nil
	}
	return "", errors.New("another record")
}

// fakeResolver is the host's: it knows every name, as 192.0.2.77.
func fakeResolver(t *testing.T) (conf string) {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			m.Response = true
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET},
				Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 77}},
			}}
			if b, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(b, from)
			}
		}
	}()
	conf = filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+c.LocalAddr().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf
}

// state is what of the host a bridge could change.
func state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(run(t, "ip", "-oneline", "-brief", "link")) {
		b.WriteString(strings.Fields(line)[0] + "\n")
	}
	b.WriteString(run(t, "ip", "-4", "route", "show", "table", "all"))
	b.WriteString(run(t, "nft", "--stateless", "list", "ruleset"))
	for _, file := range []string{"ip_forward", "conf/up0/forwarding", "conf/lo/forwarding", "conf/default/forwarding"} {
		v, _ := os.ReadFile("/proc/sys/net/ipv4/" + file)
		fmt.Fprintf(&b, "%s %s", file, v)
	}
	return b.String()
}

func apply(t *testing.T, d *Driver, guests ...*testGuest) {
	t.Helper()
	var ports []network.Port
	for _, g := range guests {
		ports = append(ports, g.port)
	}
	if err := d.Apply(context.Background(), ports); err != nil {
		t.Fatal(err)
	}
}
