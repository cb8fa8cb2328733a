package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

// testNetwork wants of a VM's network what its kind promises.
func testNetwork(t *testing.T, b *box, name string) {
	v := b.show(name)
	in := func(script string) string {
		t.Helper()
		return b.ok("vm", "exec", name, "--", "bash", "-c", script)
	}
	resolver := "10.0.2.3"
	switch v.Network {
	case "user":
		l := listen(t, 0, "127.0.0.1:0")
		if got := in("cat < /dev/tcp/10.0.2.2/" + port(l)); got != "hello, 127.0.0.1\n" {
			t.Errorf("the host's loopback says %q", got)
		}
	case "bridge":
		route := strings.Fields(in("ip -4 route show default")) // default via GATEWAY dev eth0
		if len(route) < 3 {
			t.Fatalf("the guest's way out: %q", route)
		}
		resolver = route[2]
		testBridge(t, b, name, v.Runtime.GuestIP, resolver)
		if got := in("getent hosts " + v.Runtime.DNSName); !strings.HasPrefix(got, v.Runtime.GuestIP+" ") {
			t.Errorf("the resolver says of %s %q", v.Runtime.DNSName, got)
		}
	default:
		t.Fatalf("%s has network %s, and nobody says what that promises", name, v.Network)
	}
	if got := in("cat /etc/resolv.conf; getent hosts " + name + "; cat /etc/hostname"); !strings.Contains(got, "nameserver "+resolver+"\n") || !strings.HasSuffix(got, "\n"+name+"\n") {
		t.Errorf("%q; want resolver %s, and %s's own name", got, resolver, name)
	}
}

// testBridge wants the ways that the bridge leaves open, and that the one to the host is shut.
func testBridge(t *testing.T, b *box, name, guest, gateway string) {
	const world, host = "203.0.113.1", "203.0.113.2"
	testhost.Need(t, testhost.Root, testhost.IP)
	ns := namespace(t)
	run(t, fmt.Sprintf("ip link add e2e-up type veth peer name w0 netns %d", ns))
	t.Cleanup(func() { run(t, "ip link del e2e-up") })
	for _, line := range []string{
		"ip address add " + host + "/24 dev e2e-up", "ip link set e2e-up up",
		fmt.Sprintf("nsenter --net=/proc/%d/ns/net ip address add %s/24 dev w0", ns, world),
		fmt.Sprintf("nsenter --net=/proc/%d/ns/net ip link set w0 up", ns),
	} {
		run(t, line)
	}
	outside := listen(t, ns, world+":0")
	if got := b.ok("vm", "exec", name, "--", "bash", "-c", "cat < /dev/tcp/"+world+"/"+port(outside)); got != "hello, "+host+"\n" {
		t.Errorf("the world says %q; want a word for the host, in whose name guests go out", got)
	}
	// Were it open, it would answer on the gateway's address as it does on its own.
	inside := listen(t, 0, "0.0.0.0:0")
	if got, err := hear(net.JoinHostPort(gateway, port(inside))); !strings.HasPrefix(got, "hello, ") {
		t.Errorf("the host to itself: %q, %v", got, err)
	}
	if out, errs, code := b.run(nil, "vm", "exec", name, "--", "timeout", "10", "bash", "-c", "cat < /dev/tcp/"+gateway+"/"+port(inside)); code == 0 || out != "" {
		t.Errorf("the host is open to its guest: %q %q", out, errs)
	}
	cmd := b.command("vm", "exec", name, "--", "perl", "-MIO::Socket::INET", "-e",
		`$l = IO::Socket::INET->new(Listen => 1, LocalPort => 7777, ReuseAddr => 1) or die; $| = 1; print "listens\n"; $c = $l->accept; print $c "hello, ", $c->peerhost, "\n"`)
	var said lockedBuffer
	cmd.Stdout = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said.until(t, "listens")
	if got, err := hear(net.JoinHostPort(guest, "7777")); got != "hello, "+gateway+"\n" || err != nil {
		t.Errorf("the guest says %q, %v; want a word for the gateway", got, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func run(t *testing.T, line string) {
	t.Helper()
	f := strings.Fields(line)
	if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// namespace makes a network namespace that lasts as long as a process does, whose pid it returns: the ip program would
// leave a mount on the host.
func namespace(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("cat") // until its input ends, which it does with this process too
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// listen greets whoever comes to addr by the address it came from; with a pid in that process's network namespace.
func listen(t *testing.T, pid int, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	opened := make(chan error, 1)
	go func() {
		var err error
		if pid != 0 {
			runtime.LockOSThread() // and never unlocked: the thread goes with the goroutine
			err = enter(pid)
		}
		if err == nil {
			l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		}
		opened <- err
	}()
	if err := <-opened; err != nil {
		t.Fatalf("listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = fmt.Fprintf(c, "hello, %s\n", from)
			_ = c.Close()
		}
	}()
	return l
}

func enter(pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

func port(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// hear returns what a server says at once.
func hear(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}
