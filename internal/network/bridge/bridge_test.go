package bridge

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"banger/internal/network"
	"banger/internal/network/networktest"
	"banger/internal/testhost"
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
