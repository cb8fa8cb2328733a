package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"banger/internal/host/link"
	"banger/internal/network"
	"banger/internal/network/networktest"
	"banger/internal/testhost"
	"banger/internal/vm"
)

func config(name, subnet string) Config {
	return Config{Name: name, Subnet: netip.MustParsePrefix(subnet), Log: slog.New(slog.DiscardHandler)}
}

func newDriver(t *testing.T, c Config) *Driver {
	t.Helper()
	d := New(c)
	t.Cleanup(d.Close)
	return d
}

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

// A name that changed between versions would leave the old bridge behind.
func TestNames(t *testing.T) {
	if got := NameFor("/srv/one"); got != "bng9d87cd49" {
		t.Errorf("%s", got)
	}
	for _, root := range []string{"", "/srv/one"} {
		if name := NameFor(root); !isBridge(name) || len(name) > 15 {
			t.Errorf("%q: %s", root, name)
		}
	}
	for name, want := range map[string]bool{"banger0": true, "bng0123abcd": true, "bng0123abc": false, "bng0123abcg": false, "br0": false, "": false} {
		if got := isBridge(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSuite(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		networktest.Suite(t, func(t *testing.T) network.Driver { return newDriver(t, config("bng00000001", "172.30.0.0/16")) })
	})
}

// TestNothingThere: a daemon with no VMs says so at each start, wherever it runs.
func TestNothingThere(t *testing.T) {
	testhost.InNamespace(t, func(t *testing.T) {
		t.Setenv("PATH", "/nowhere") // nft may be found all the same, in the places it is known to be
		if err := newDriver(t, config("banger0", "172.30.0.0/16")).Apply(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
}

// TestGuests is what a guest reaches, and what not.
func TestGuests(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		makeWorld(t)
		serve(t, "", "0.0.0.0:8080")
		c := config("banger0", "172.30.0.0/16")
		c.ResolvConf = fakeResolver(t)
		before := state(t)
		d := newDriver(t, c)
		apply(t, d)
		if got := state(t); got != before {
			t.Fatalf("no ports changed\n%s\nto\n%s", before, got)
		}
		web, db := boot(t, d, "web", "172.30.0.2"), boot(t, d, "db", "172.30.1.3")
		serve(t, "db", "0.0.0.0:80")
		apply(t, d, web, db)

		t.Run("Outside", func(t *testing.T) {
			reaches(t, "web", worldAddr+":80", hostAddr)
			reaches(t, "db", worldAddr+":80", hostAddr)
		})
		t.Run("EachOther", func(t *testing.T) {
			unreachable(t, "web", db.addr+":80")
			ip(t, "-n web route add "+db.addr+" via 172.30.0.1") // and not by the host either
			unreachable(t, "web", db.addr+":80")
		})
		t.Run("Host", func(t *testing.T) {
			reaches(t, "", db.addr+":80", "172.30.0.1") // the way back is open
			refused(t, "web", "172.30.0.1:8080")
			refused(t, "web", hostAddr+":8080")
			if err := ping("web", "172.30.0.1", patience); err != nil {
				t.Errorf("ping the gateway: %v", err)
			}
			if ping("web", hostAddr, 300*time.Millisecond) == nil {
				t.Error("the host's other address answers")
			}
			if out := ip(t, "-6 address show dev banger0") + ip(t, "-6 address show dev "+tapName(web.port.ID)); out != "" {
				t.Errorf("an IPv6 address for guests to reach: %s", out)
			}
		})
		t.Run("Metadata", func(t *testing.T) {
			reaches(t, "", metaAddr+":80", hostAddr)
			refused(t, "web", metaAddr+":80")
		})
		t.Run("PublishedByOthers", func(t *testing.T) {
			run(t, "nft", `add table ip theirs; add chain ip theirs pre { type nat hook prerouting priority dstnat; }; add rule ip theirs pre tcp dport 8081 dnat to `+worldAddr+`:80`)
			refused(t, "web", hostAddr+":8081")
			run(t, "nft", "delete table ip theirs")
		})
		t.Run("FromOutside", func(t *testing.T) {
			ip(t, "-n world route add 172.30.0.0/16 via "+hostAddr)
			unreachable(t, "world", db.addr+":80")
			unreachable(t, "world", "172.30.0.1:8080")
		})
		t.Run("DNS", func(t *testing.T) {
			for _, c := range []struct {
				name string
				kind dnsmessage.Type
				want string
			}{
				{"db.vm.", dnsmessage.TypeA, db.addr},
				{"2.0.30.172.in-addr.arpa.", dnsmessage.TypePTR, "web.vm."},
				{"example.com.", dnsmessage.TypeA, "192.0.2.77"},
			} {
				if got, err := web.resolve("172.30.0.1", c.name, c.kind); err != nil || got != c.want {
					t.Errorf("%s: %s (%v), want %s", c.name, got, err, c.want)
				}
			}
		})
		t.Run("UnknownPort", func(t *testing.T) { // of somebody who took the bridge for theirs
			ip(t, "netns add stray")
			ip(t, "link add stray0 type veth peer name eth0 netns stray")
			ip(t, "link set stray0 master banger0 up")
			ip(t, "-n stray address add 172.30.7.7/16 dev eth0")
			ip(t, "-n stray link set eth0 up")
			ip(t, "-n stray route add default via 172.30.0.1")
			unreachable(t, "stray", worldAddr+":80")
			ip(t, "netns delete stray")
		})
		t.Run("Spoofed", func(t *testing.T) { spoof(t, web, db) })
		t.Run("NothingBreaks", func(t *testing.T) { nothingBreaks(t, d, c, web, db) })

		d = newDriver(t, c) // of the daemon's next life
		apply(t, d, web, db)
		if got, err := d.List(); err != nil || len(got) != 2 || !slices.Contains(got, web.port.ID) {
			t.Errorf("list: %v (%v)", got, err)
		}
		for range 2 {
			for _, g := range []*testGuest{web, db} {
				if err := d.Remove(t.Context(), g.port.ID); err != nil {
					t.Error(err)
				}
			}
			apply(t, d)
			if got := state(t); got != before {
				t.Errorf("left\n%s\nwant\n%s", got, before)
			}
		}
	})
}

// spoof sends what only a hostile guest does, straight into its tap device.
func spoof(t *testing.T, web, db *testGuest) {
	bridge := mac(t, "banger0")
	world, webAddr, dbAddr := netip.MustParseAddr(worldAddr), web.port.Addr, db.port.Addr
	texts := listenUDP(t, "world", "0.0.0.0:9999")
	arp := func(sender []byte, addr netip.Addr) []byte { // a reply to the host (RFC 826)
		b := append([]byte{0, 1, 8, 0, 6, 4, 0, 2}, sender...)
		b = append(append(b, addr.AsSlice()...), bridge...)
		return append(b, 172, 30, 0, 1)
	}
	reaches(t, "", db.addr+":80", "172.30.0.1") // so that the host knows db's hardware address
	time.Sleep(200 * time.Millisecond)          // db's own last packets would mend what is broken
	for what, f := range map[string][]byte{
		"another's address":          frame(bridge, web.mac, 0x0800, datagram(dbAddr, world, 9999, "another's address")),
		"another's card and address": frame(bridge, db.mac, 0x0800, datagram(dbAddr, world, 9999, "another's card and address")),
		"another's card":             frame(bridge, db.mac, 0x0800, datagram(webAddr, world, 9999, "another's card")),
		"nobody's address":           frame(bridge, web.mac, 0x0800, datagram(netip.MustParseAddr("172.30.9.9"), world, 9999, "nobody's address")),
		"the host's address":         frame(bridge, web.mac, 0x0800, datagram(netip.MustParseAddr(hostAddr), world, 9999, "the host's address")),
		"another's ARP":              frame(bridge, web.mac, 0x0806, arp(web.mac, dbAddr)),
		"the gateway's ARP":          frame(db.mac, web.mac, 0x0806, arp(web.mac, netip.MustParseAddr("172.30.0.1"))),
		"another's card, own ARP":    frame(bridge, db.mac, 0x0806, arp(web.mac, webAddr)),
		"another's card, link-local": frame(linkLocal, db.mac, 0x88cc, make([]byte, 46)),
		"a virtual network":          frame(bridge, web.mac, 0x8100, append([]byte{0, 0, 8, 0}, datagram(webAddr, world, 9999, "a virtual network")...)),
	} {
		if _, err := web.tap.Write(f); err != nil {
			t.Errorf("send %s: %v", what, err)
		}
	}
	for _, text := range []string{"its own", "end"} {
		if _, err := web.tap.Write(frame(bridge, web.mac, 0x0800, datagram(webAddr, world, 9999, text))); err != nil {
			t.Error(err)
		}
	}
	if got := texts(); !slices.Equal(got, []string{"its own"}) {
		t.Errorf("came through: %q", got)
	}
	if got := ip(t, "neighbour show "+db.addr); !strings.Contains(got, db.mac.String()) {
		t.Errorf("the host takes another's word: %s", got)
	}
	cardStays(t, db)
	reaches(t, "", db.addr+":80", "172.30.0.1")
}

// linkLocal is an address that a bridge passes nowhere, and up to no packet rule (IEEE 802.1D).
var linkLocal = net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0x0e}

// cardStays: the bridge knows the guest's card where it is.
func cardStays(t *testing.T, g *testGuest) {
	t.Helper()
	found := false
	for line := range strings.Lines(run(t, "bridge", "fdb", "show", "br", "banger0")) {
		if !strings.HasPrefix(line, g.mac.String()) {
			continue
		}
		if found = true; !strings.Contains(line, tapName(g.port.ID)) {
			t.Errorf("the bridge takes another's word: %s", line)
		}
	}
	if !found {
		t.Errorf("the bridge does not know the card %s", g.mac)
	}
}

func mac(t *testing.T, name string) []byte {
	t.Helper()
	var a [6]byte
	b, err := os.ReadFile("/sys/class/net/" + name + "/address")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(b), "%x:%x:%x:%x:%x:%x", &a[0], &a[1], &a[2], &a[3], &a[4], &a[5]); err != nil {
		t.Fatal(err)
	}
	return a[:]
}

// nothingBreaks keeps a connection through all that may happen beside it.
func nothingBreaks(t *testing.T, d *Driver, c Config, web, db *testGuest) {
	_, conn, err := call("web", worldAddr+":80", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tap := func() string { return run(t, "ip", "-details", "link", "show", tapName(web.port.ID)) }
	before := tap()
	for range 2 {
		apply(t, d, web, db)
		if _, err := d.Ensure(t.Context(), web.port); err != nil {
			t.Fatal(err)
		}
	}
	echoes(t, conn, "applied")
	apply(t, d, web) // another VM went
	echoes(t, conn, "alone")
	if strip(tap()) != strip(before) {
		t.Errorf("the tap device changed from\n%s\nto\n%s", before, tap())
	}

	d.Close() // the daemon died, and its next life begins
	echoes(t, conn, "orphaned")
	d = newDriver(t, c)
	if _, err := d.Ensure(t.Context(), web.port); err == nil {
		t.Error("ensured before it was told of the others")
	}
	apply(t, d, web, db)
	echoes(t, conn, "adopted")

	ip(t, "link delete banger0") // behind our back
	run(t, "nft", "delete table bridge banger0")
	apply(t, d, web, db)
	echoes(t, conn, "repaired")
	d.Close()
}

// strip leaves the bridge's timers out.
func strip(link string) string {
	var kept []string
	for w := range strings.FieldsSeq(link) {
		if !strings.Contains(w, ".") {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, " ")
}

func TestAllowed(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		makeWorld(t)
		serve(t, "", "0.0.0.0:8080")
		c := config("banger0", "172.30.0.0/16")
		c.Peers, c.Host, c.Metadata = true, true, true
		d := newDriver(t, c)
		apply(t, d)
		web, db := boot(t, d, "web", "172.30.0.2"), boot(t, d, "db", "172.30.1.3")
		serve(t, "db", "0.0.0.0:80")
		reaches(t, "web", db.addr+":80", web.addr)
		reaches(t, "web", "172.30.0.1:8080", web.addr)
		reaches(t, "web", hostAddr+":8080", web.addr)
		reaches(t, "web", metaAddr+":80", hostAddr)

		time.Sleep(200 * time.Millisecond) // db's own last packets would mend what is broken
		if _, err := web.tap.Write(frame(linkLocal, db.mac, 0x88cc, make([]byte, 46))); err != nil {
			t.Fatal(err)
		}
		cardStays(t, db)
		reaches(t, "web", db.addr+":80", web.addr)

		// As an earlier version made it, and a guest used it.
		ip(t, "link set "+tapName(web.port.ID)+" type bridge_slave learning on flood on")
		run(t, "bridge", "fdb", "replace", db.mac.String(), "dev", tapName(web.port.ID), "master", "dynamic")
		apply(t, d, web, db)
		cardStays(t, db)
		if _, err := web.tap.Write(frame(linkLocal, db.mac, 0x88cc, make([]byte, 46))); err != nil {
			t.Fatal(err)
		}
		cardStays(t, db)
		reaches(t, "web", db.addr+":80", web.addr)
	})
}

const docker = `table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state established,related accept
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
	}
	chain DOCKER-USER {
		counter return
	}
}
`

// TestDocker holds that guests have their way out on a host that drops what it does not know.
func TestDocker(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		makeWorld(t)
		serve(t, "", "0.0.0.0:8080")
		c := config("banger0", "172.30.0.0/16")
		c.ResolvConf = fakeResolver(t)
		d := newDriver(t, c)
		apply(t, d)
		web := boot(t, d, "web", "172.30.0.2")
		reaches(t, "web", worldAddr+":80", hostAddr)

		load := t.TempDir() + "/docker.nft"
		if err := os.WriteFile(load, []byte(docker), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "nft", "-f", load)
		rules := run(t, "nft", "--stateless", "list", "table", "ip", "filter")
		unreachable(t, "web", worldAddr+":80")
		ip(t, "link add docker0 type bridge") // what Docker does next, and the driver sees
		ip(t, "address add 172.17.0.1/16 dev docker0")
		ip(t, "link set docker0 up")
		for end := time.Now().Add(10 * time.Second); ; {
			_, conn, err := call("web", worldAddr+":80", 200*time.Millisecond)
			if err == nil {
				_ = conn.Close()
				break
			}
			if time.Now().After(end) {
				t.Fatal("the driver does not follow")
			}
		}
		apply(t, d, web)
		reaches(t, "web", worldAddr+":80", hostAddr)
		refused(t, "web", hostAddr+":8080")
		unreachable(t, "world", hostAddr+":8080")
		if got, err := web.resolve("172.30.0.1", "example.com.", dnsmessage.TypeA); err != nil || got != "192.0.2.77" {
			t.Errorf("%s (%v)", got, err)
		}
		if err := d.Remove(t.Context(), web.port.ID); err != nil {
			t.Error(err)
		}
		apply(t, d)
		if got := run(t, "nft", "--stateless", "list", "ruleset"); got != rules {
			t.Errorf("left\n%s\nwant\n%s", got, rules)
		}
	})
}

// TestForwarding holds that what we turn on is turned off by the last of us, and never what was on.
func TestForwarding(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		makeWorld(t)
		ip(t, "link add lan0 type veth peer name lan1")
		ip(t, "address add 198.51.100.1/24 dev lan0")
		ip(t, "link set lan0 up")
		ip(t, "link add idle0 type veth peer name idle1")
		if err := link.SetForwarding(t.Context(), "lan0", true); err != nil {
			t.Fatal(err)
		}
		want := func(when string, up0 bool) {
			t.Helper()
			for name, want := range map[string]bool{"up0": up0, "lan0": true, "idle0": false, "all": false} {
				if on, err := link.Forwarding(name); on != want || err != nil {
					t.Errorf("%s: %s %v (%v)", when, name, on, err)
				}
			}
		}
		port := func(addr string) *testGuest {
			id := vm.NewID()
			return &testGuest{port: network.Port{ID: id, Name: "t-" + string(id), Addr: netip.MustParseAddr(addr)}}
		}
		one := newDriver(t, config("banger0", "172.30.0.0/16"))
		two := newDriver(t, config("bng0badcafe", "172.29.0.0/16"))
		want("at first", false)
		apply(t, one, port("172.30.0.2"))
		want("one", true)
		apply(t, two, port("172.29.0.2"))
		apply(t, one, port("172.30.0.3"))
		apply(t, one)
		want("two", true)
		apply(t, two, port("172.29.0.3"))
		apply(t, two)
		want("at last", false)

		apply(t, one, port("172.30.0.2"))
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil { // another wants it now
			t.Fatal(err)
		}
		apply(t, one)
		if on, err := link.Forwarding("up0"); !on || err != nil {
			t.Errorf("turned off what another wants (%v)", err)
		}
	})
}

// TestNoRouter holds that guests' way out is one for guests alone: a host between two networks stays none between them.
func TestNoRouter(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		const lanAddr = "198.51.100.2"
		makeWorld(t)
		ip(t, "netns add lan")
		ip(t, "link add lan0 type veth peer name eth0 netns lan")
		for _, line := range []string{
			"address add 198.51.100.1/24 dev lan0", "link set lan0 up",
			"-n lan address add " + lanAddr + "/24 dev eth0", "-n lan link set eth0 up", "-n lan route add default via 198.51.100.1",
			"-n world route add 198.51.100.0/24 via " + hostAddr,
			"link add br0 type bridge", "address add 192.0.2.1/24 dev br0", "link set br0 up", // one of the host's own, with two ports
			"netns add one", "link add one0 master br0 type veth peer name eth0 netns one", "link set one0 up",
			"-n one address add 192.0.2.11/24 dev eth0", "-n one link set eth0 up",
			"netns add two", "link add two0 master br0 type veth peer name eth0 netns two", "link set two0 up",
			"-n two address add 192.0.2.12/24 dev eth0", "-n two link set eth0 up",
		} {
			ip(t, line)
		}
		serve(t, "lan", "0.0.0.0:80")
		serve(t, "two", "0.0.0.0:80")
		apart := func() {
			t.Helper()
			var both sync.WaitGroup
			both.Go(func() { unreachable(t, "lan", worldAddr+":80") })
			both.Go(func() { unreachable(t, "world", lanAddr+":80") })
			both.Wait()
		}
		apart()
		d, other := newDriver(t, config("banger0", "172.30.0.0/16")), newDriver(t, config("bng0badcafe", "172.29.0.0/16"))
		apply(t, d)
		apply(t, other)
		web, db := boot(t, d, "web", "172.30.0.2"), boot(t, other, "db", "172.29.0.2")
		both := func() {
			t.Helper()
			reaches(t, "web", worldAddr+":80", hostAddr)
			reaches(t, "web", lanAddr+":80", "198.51.100.1")
			reaches(t, "db", lanAddr+":80", "198.51.100.1")
		}
		apart()
		both()
		reaches(t, "one", "192.0.2.12:80", "192.0.2.11")

		// Docker, started later: it opens all, and publishes ports.
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		run(t, "nft", `add table ip theirs; add chain ip theirs pre { type nat hook prerouting priority dstnat; }; add rule ip theirs pre tcp dport 8081 dnat to `+lanAddr+`:80`)
		ip(t, "netns add box")
		ip(t, "link add docker0 type veth peer name eth0 netns box")
		ip(t, "address add 172.17.0.1/16 dev docker0")
		ip(t, "link set docker0 up")
		ip(t, "-n box address add 172.17.0.2/16 dev eth0")
		ip(t, "-n box link set eth0 up")
		ip(t, "-n box route add default via 172.17.0.1")
		ip(t, "-n world route add 172.17.0.0/16 via "+hostAddr)
		reaches(t, "world", hostAddr+":8081", worldAddr)
		reaches(t, "box", worldAddr+":80", "172.17.0.2")
		apart()
		for _, table := range []string{"banger0", "bng0badcafe"} { // who wants a router has one, and keeps it
			run(t, "nft", "delete element inet "+table+" forwarding { lan0 }")
		}
		apply(t, d, web)
		apply(t, other, db)
		reaches(t, "lan", worldAddr+":80", lanAddr)
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
		apply(t, d, web)
		apply(t, other, db)
		both()
		apply(t, d)
		apply(t, other)
		apart()
	})
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
		if err := d.Apply(t.Context(), []network.Port{port}); err != nil {
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
