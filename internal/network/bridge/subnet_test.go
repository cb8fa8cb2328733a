package bridge

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"banger/internal/host/link"
	"banger/internal/network"
	"banger/internal/testhost"
	"banger/internal/vm"
)

func TestOverlap(t *testing.T) {
	subnet := netip.MustParsePrefix("172.30.0.0/16")
	for _, c := range []struct {
		use  link.Use
		want string // part of the error; empty = none
	}{
		{link.Use{Range: netip.MustParsePrefix("192.0.2.0/24"), Link: "eth0"}, ""},
		{link.Use{Range: netip.MustParsePrefix("0.0.0.0/0"), Link: "eth0", Route: true}, ""},
		{link.Use{Range: netip.MustParsePrefix("128.0.0.0/1"), Link: "tun0", Route: true}, ""},
		{link.Use{Range: subnet, Link: "banger0"}, ""},
		{link.Use{Range: subnet, Link: "banger0", Route: true}, ""},
		{link.Use{Range: subnet, Link: "br-1234"}, "network 172.30.0.0/16 of interface br-1234"},
		{link.Use{Range: netip.MustParsePrefix("172.30.9.0/24"), Link: "eth1"}, "eth1"},
		{link.Use{Range: netip.MustParsePrefix("172.16.0.0/12"), Link: "tun0", Route: true}, "route to 172.16.0.0/12"},
		{link.Use{Range: netip.MustParsePrefix("172.30.1.1/32"), Route: true}, "route to 172.30.1.1/32"},
	} {
		err := overlap([]link.Use{c.use}, subnet, "banger0")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.use, err, c.want)
		}
	}
}

// TestAnotherSubnet holds that a VM made under another subnet is left without network, shut off even where it runs, and
// keeps no other VM from anything.
func TestAnotherSubnet(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		makeWorld(t)
		before := newDriver(t, config("banger0", "172.30.0.0/16"))
		apply(t, before)
		old := boot(t, before, "old", "172.30.0.2")
		before.Close()

		var log strings.Builder
		c := config("banger0", "172.29.0.0/16")
		c.Peers, c.Log = true, slog.New(slog.NewTextHandler(&log, nil))
		d := newDriver(t, c)
		apply(t, d, old)
		web := boot(t, d, "web", "172.29.0.2")
		apply(t, d, old, web)
		reaches(t, "web", worldAddr+":80", hostAddr)
		if _, err := web.resolve("172.29.0.1", "old.vm.", dnsmessage.TypeA); err == nil {
			t.Error("a name for an address that leads nowhere")
		}
		if n := strings.Count(log.String(), "vm=old"); n != 1 || strings.Contains(log.String(), "vm=web") {
			t.Errorf("warned %d times:\n%s", n, &log)
		}
		var hinted *vm.Error
		if _, err := d.Ensure(t.Context(), old.port); !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "network.bridge.subnet") {
			t.Errorf("ensure: %v", err)
		}

		// Where br_netfilter is loaded the host's chains see this too, and hide what the bridge's let pass.
		if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		texts := listenUDP(t, "web", "0.0.0.0:9999")
		for _, from := range []netip.Addr{old.port.Addr, netip.MustParseAddr("172.29.0.9")} {
			f := frame(web.mac, old.mac, 0x0800, datagram(from, web.port.Addr, 9999, "from "+from.String()))
			if _, err := old.tap.Write(f); err != nil {
				t.Fatal(err)
			}
		}
		conn, err := net.Dial("udp4", web.addr+":9999")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("end")); err != nil {
			t.Fatal(err)
		}
		if got := texts(); len(got) > 0 {
			t.Errorf("came through: %q", got)
		}

		if err := d.Remove(t.Context(), old.port.ID); err != nil {
			t.Error(err)
		}
		apply(t, d, web)
		reaches(t, "web", worldAddr+":80", hostAddr)
		twin := &testGuest{port: network.Port{ID: vm.NewID(), Name: "twin", Addr: web.port.Addr}}
		if err := d.Apply(t.Context(), []network.Port{web.port, twin.port}); err == nil {
			t.Error("two VMs got one address")
		}
	})
}

// TestCollision holds that a network which came after the VM was made is seen when the bridge is to be made, stays whole,
// and keeps nobody from taking down.
func TestCollision(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		makeWorld(t)
		ip(t, "route add 172.30.8.0/24 via "+worldAddr)
		before := state(t)
		d := newDriver(t, config("banger0", "172.30.0.0/16"))
		port := network.Port{ID: vm.NewID(), Name: "a", Addr: netip.MustParseAddr("172.30.0.2")}
		if err := d.Apply(t.Context(), []network.Port{port}); !errors.Is(err, network.ErrUnsettled) {
			t.Errorf("apply: %v", err)
		}
		if _, err := d.Ensure(t.Context(), port); vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "route to 172.30.8.0/24") || vm.HintOf(err) == "" {
			t.Errorf("ensure: %v", err)
		}
		if got := state(t); got != before {
			t.Errorf("changed\n%s\nto\n%s", before, got)
		}

		ip(t, "route delete 172.30.8.0/24")
		web := boot(t, d, "web", "172.30.0.3")
		ip(t, "route add 172.30.8.0/24 via "+worldAddr) // under VMs that run: theirs goes on
		apply(t, d, web)
		if _, err := d.Ensure(t.Context(), web.port); err != nil {
			t.Error(err)
		}
		reaches(t, "web", worldAddr+":80", hostAddr)
	})
}

func TestProbe(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		makeWorld(t)
		before := state(t)
		probe := func(c Config, want string) {
			t.Helper()
			err := newDriver(t, c).Probe(t.Context())
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: %v, want %q", c.Name, c.Subnet, err, want)
			}
		}
		probe(config("banger0", "172.30.0.0/16"), "")
		probe(config("banger0", "203.0.0.0/8"), "network 203.0.113.0/24 of interface up0")
		probe(config("banger0", "172.30.0.0/30"), "no IPv4 network")
		probe(config("banger0", "fd00::/64"), "no IPv4 network")
		var hinted *vm.Error
		if err := newDriver(t, config("banger0", "203.0.0.0/8")).Probe(t.Context()); !errors.As(err, &hinted) || hinted.Hint == "" {
			t.Errorf("no hint: %v", err)
		}
		if got := state(t); got != before {
			t.Errorf("a probe changed\n%s\nto\n%s", before, got)
		}

		ip(t, "link add banger0 type bridge")
		run(t, "nft", "add table bridge bng00000001")
		before = state(t)
		probe(config("banger0", "172.30.0.0/16"), "banger0")
		probe(config("bng00000001", "172.30.0.0/16"), "table bridge bng00000001")
		d := newDriver(t, config("banger0", "172.30.0.0/16"))
		apply(t, d)
		port := network.Port{ID: vm.NewID(), Name: "a", Addr: netip.MustParseAddr("172.30.0.2")}
		if err := d.Apply(t.Context(), []network.Port{port}); !errors.Is(err, link.ErrForeign) {
			t.Errorf("apply over somebody else's bridge: %v", err)
		}
		apply(t, d)

		taken, err := net.ListenPacket("udp4", "0.0.0.0:53")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		d = newDriver(t, config("bng00000002", "172.30.0.0/16"))
		if err := d.Apply(t.Context(), []network.Port{port}); !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "bng00000002") {
			t.Errorf("apply beside another resolver: %v", err)
		}
		apply(t, d)
		if got := state(t); got != before {
			t.Errorf("somebody else's things changed from\n%s\nto\n%s", before, got)
		}
	})
}
