package bridge

import (
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"banger/internal/host/link"
	"banger/internal/network"
	"banger/internal/testhost"
	"banger/internal/vm"
)

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
