package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/testhost"
)

// portServer serves a guest's port 80, on the address that is its argument, and 53 of UDP. Of HTTP it answers GET /N with N bytes;
// "PING" with PONG; to all else it says, once the client has no more, how many bytes it heard. Datagrams come back in capitals.
const portServer = `
use IO::Socket::INET; use IO::Select;
$SIG{CHLD} = "IGNORE"; $SIG{PIPE} = "IGNORE"; $| = 1;
my $tcp = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => 80, Listen => 128, ReuseAddr => 1) or die "$!";
my $udp = IO::Socket::INET->new(LocalAddr => "0.0.0.0", LocalPort => 53, Proto => "udp") or die "$!";
my $both = IO::Select->new($tcp, $udp);
print "ready\n";
while (my @r = $both->can_read) { for my $s (@r) {
	if ($s == $udp) { my $from = $udp->recv(my $d, 65535); $udp->send(uc $d, 0, $from); next }
	my $c = $tcp->accept or next;
	sysread($c, my $head, 4096);
	if ($head =~ /^PING/) { syswrite($c, "PONG"); close $c; next }
	if (fork == 0) {
		if ($head =~ m{^GET /(\d+)}) {
			my $n = $1; my $z = "x" x 65536;
			syswrite($c, "HTTP/1.0 200 OK\r\nContent-Length: $n\r\n\r\n");
			while ($n > 0) { my $m = syswrite($c, $z, $n < 65536 ? $n : 65536) or last; $n -= $m }
		} else {
			my $n = length $head;
			while (my $m = sysread($c, my $d, 65536)) { $n += $m }
			print $c "heard $n\n";
		}
		exit;
	}
	close $c;
} }
`

// servePorts has the guest of a VM run portServer.
func (b *box) servePorts(name, addr string) {
	b.t.Helper()
	script := filepath.Join(b.t.TempDir(), "server.pl")
	if err := os.WriteFile(script, []byte(portServer), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.ok("vm", "cp", "-q", script, name+":/run/server.pl")
	b.ok("vm", "exec", name, "--", "sh", "-c", "rm -f /run/said; mkfifo /run/said; setsid perl /run/server.pl "+addr+" </dev/null >/run/said 2>&1 & grep -m1 -q ready /run/said")
}

// published is where a VM's port of its guest is reached.
func (b *box) published(name string, guest int, protocol string) api.PortStatus {
	b.t.Helper()
	for _, p := range b.show(name).Ports {
		if p.GuestPort == guest && p.Protocol == protocol {
			return p
		}
	}
	b.t.Fatalf("VM %s publishes no port %d/%s", name, guest, protocol)
	return api.PortStatus{}
}

// reach connects, for as long as a slow guest may need.
func (b *box) reach(p api.PortStatus) (net.Conn, error) {
	c, err := net.Dial(p.Protocol, p.Host())
	if err == nil {
		b.t.Cleanup(func() { _ = c.Close() })
		err = c.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	return c, err
}

func (b *box) ping(p api.PortStatus) error {
	c, err := b.reach(p)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("PING")); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && string(got) != "PONG" {
		err = fmt.Errorf("PING is answered with %q", got)
	}
	return err
}

func (b *box) get(p api.PortStatus, size int) error {
	client := http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://%s/%d", p.Host(), size))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != int64(size) {
		err = fmt.Errorf("%d bytes came of %d", n, size)
	}
	return err
}

func TestPorts(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("web", "-p", "80", "-p", "53/udp")
	b.servePorts("web", "127.0.0.1")
	web := b.published("web", 80, "tcp")

	t.Run("what listens", func(t *testing.T) {
		b := b.with(t)
		var all api.VMPorts
		if err := json.Unmarshal([]byte(b.ok("vm", "ports", "--json", "web")), &all); err != nil {
			t.Fatal(err)
		}
		heard := false
		for _, l := range all.Listeners {
			heard = heard || l.Protocol == "tcp" && l.Port == 80 && l.Address == "127.0.0.1" && l.Process == "perl" && l.PID > 0
		}
		if !heard || len(all.Published) != 2 || all.Published[0].State != api.PortOpen {
			t.Errorf("%+v", all)
		}
		if got := b.ok("vm", "ports", "web"); !strings.Contains(got, web.Host()) || !strings.Contains(got, "perl (") {
			t.Errorf("%s", got)
		}
	})
	t.Run("requests", func(t *testing.T) {
		b := b.with(t)
		size := 64 << 20
		if testhost.Alone() { // a guest within a guest, all of it emulated, brings some 300 kB/s
			size = 2 << 20
		}
		begin := time.Now()
		if err := errors.Join(b.get(web, 0), b.get(web, 5), b.get(web, size)); err != nil {
			t.Error(err)
		}
		t.Logf("out of the guest: %.1f MB/s", float64(size)/1e6/time.Since(begin).Seconds())
		c, err := b.reach(web)
		if err != nil {
			t.Fatal(err)
		}
		begin = time.Now()
		chunk := make([]byte, 64<<10)
		for range size / len(chunk) {
			if _, err := c.Write(chunk); err != nil {
				t.Fatal(err)
			}
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprintf("heard %d\n", size) {
			t.Errorf("%q, %v", got, err)
		}
		t.Logf("into the guest: %.1f MB/s", float64(size)/1e6/time.Since(begin).Seconds())
	})
	t.Run("datagrams", func(t *testing.T) {
		b := b.with(t)
		if err := b.askUDP(b.published("web", 53, "udp")); err != nil {
			t.Error(err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		b := b.with(t)
		b.ok("vm", "ports", "add", "web", "9")
		if err := b.ping(b.published("web", 9, "tcp")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
		b.ok("vm", "ports", "rm", "web", "9")
	})
	t.Run("a client that reads nothing", func(t *testing.T) { testSlowClient(t, b.with(t), web) })
	t.Run("a thousand connections", func(t *testing.T) { testManyConnections(t, b.with(t), web) })
	t.Run("the daemon dies", func(t *testing.T) {
		b := b.with(t)
		pid := b.show("web").Handles.PID
		kill9(t, b.daemonPID())
		if err := b.ping(web); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("with no daemon: %v", err)
		}
		if v := b.untilAdopted("web"); v.Handles.PID != pid {
			t.Errorf("another process: %d, before %d", v.Handles.PID, pid)
		}
		if err := errors.Join(b.ping(web), b.get(web, 100_000), b.askUDP(b.published("web", 53, "udp"))); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
	t.Run("a taken port", func(t *testing.T) {
		b := b.with(t)
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		mine := strconv.Itoa(l.Addr().(*net.TCPAddr).Port) + ":80"
		holder := fmt.Sprintf("process %d (", os.Getpid())
		b.fails(125, holder, "vm", "ports", "add", "web", mine)
		b.fails(125, holder, "vm", "run", "-d", "--name", "other", "-p", mine)
		b.fails(125, "VM web has published it", "vm", "create", "--name", "other", "-p", strconv.Itoa(web.HostPort)+":80")
		b.fails(125, "no VM", "vm", "show", "other")
	})
	t.Run("add and remove", func(t *testing.T) {
		b := b.with(t)
		b.ok("vm", "ports", "add", "web", "0.0.0.0::80")
		var added api.PortStatus
		for _, p := range b.show("web").Ports {
			if p.HostIP == "0.0.0.0" {
				added = p
			}
		}
		if err := b.ping(added); err != nil {
			t.Error(err)
		}
		c, err := b.reach(added)
		if err != nil {
			t.Fatal(err)
		}
		b.ok("vm", "ports", "rm", "web", "0.0.0.0::80")
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection by a removed port: %v, want a reset", err)
		}
		if err := b.ping(added); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a removed port: %v", err)
		}
		if err := b.ping(web); err != nil {
			t.Error(err)
		}
	})
	t.Run("stop and start", func(t *testing.T) {
		b := b.with(t)
		b.ok("vm", "stop", "web")
		if err := b.ping(web); !errors.Is(err, syscall.ECONNREFUSED) || b.published("web", 80, "tcp").State != api.PortClosed {
			t.Errorf("of a stopped VM: %v", err)
		}
		b.ok("vm", "start", "web")
		b.servePorts("web", "$(hostname -I)") // on the guest's own address alone
		if got := b.published("web", 80, "tcp"); got.Host() != web.Host() {
			t.Errorf("it is at %s now, and was at %s", got.Host(), web.Host())
		}
		if err := b.ping(web); err != nil {
			t.Error(err)
		}
	})
	b.ok("vm", "delete", "web")
	t.Run("with no network", func(t *testing.T) {
		b := b.with(t)
		b.vm("alone", "--network", "none", "-p", "80")
		b.servePorts("alone", "0.0.0.0")
		if err := b.ping(b.published("alone", 80, "tcp")); err != nil {
			t.Error(err)
		}
		b.ok("vm", "delete", "alone")
	})
}

// askUDP wants a datagram answered. One may be lost.
func (b *box) askUDP(p api.PortStatus) error {
	c, err := b.reach(p)
	if err != nil {
		return err
	}
	buf := make([]byte, 100)
	for range 20 {
		if _, err = c.Write([]byte("hello")); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		var n int
		if n, err = c.Read(buf); err == nil {
			if got := string(buf[:n]); got != "HELLO" {
				return fmt.Errorf("answered %q", got)
			}
			return nil
		}
	}
	return err
}

// testSlowClient wants a client that reads nothing to cost the daemon little, and others nothing.
func testSlowClient(t *testing.T, b *box, p api.PortStatus) {
	flows := 4 << 20
	if testhost.Alone() {
		flows = 256 << 10
	}
	before := resident(t, b.daemonPID())
	for range 4 {
		c, err := b.reach(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("GET /400000000 HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, flows)); err != nil { // it flows, and then does not
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	if err := errors.Join(b.ping(p), b.get(p, 100_000)); err != nil {
		t.Errorf("beside clients that read nothing: %v", err)
	}
	if grown := resident(t, b.daemonPID()) - before; grown > 32<<20 {
		t.Errorf("the daemon holds %d MiB more", grown>>20)
	}
}

// testManyConnections wants nothing to be left of a connection.
func testManyConnections(t *testing.T, b *box, p api.PortStatus) {
	pid := b.daemonPID()
	vmm := b.show("web").Handles.PID
	count := func() int { return len(descriptors(t, pid)) + len(descriptors(t, vmm)) }
	idle := func() bool { return b.published("web", 80, "tcp").Connections == 0 }
	b.until("web", "no connections", time.Minute, func(api.VMView) bool { return idle() })
	before, begin := count(), time.Now()
	n := 1000
	if testhost.Alone() {
		n = 100
	}
	for range n {
		if err := b.ping(p); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%.1f ms a connection", time.Since(begin).Seconds()*1e3/float64(n))
	b.until("web", "as few descriptors as before", time.Minute, func(api.VMView) bool { return idle() && count() <= before+3 }) // the looking itself has some
}

// resident is what a process holds of memory, in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	pages, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
