package bridge

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"banger/internal/network"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// TestUnsettled holds that what those need who stay keeps nothing there of a VM that goes: it leaves the rules whatever of
// the bridge cannot be made. Nobody starts meanwhile.
func TestUnsettled(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		makeWorld(t)
		c := config("banger0", "172.30.0.0/16")
		c.ResolvConf = fakeResolver(t)
		before := newDriver(t, c)
		apply(t, before)
		web, db, old := boot(t, before, "web", "172.30.0.2"), boot(t, before, "db", "172.30.0.3"), boot(t, before, "old", "172.30.0.4")
		late := network.Port{ID: vm.NewID(), Name: "late", Addr: netip.MustParseAddr("172.30.0.5")}
		apply(t, before, web, db, old)
		before.Close() // the daemon died; another program listens before its next life

		taken, err := net.ListenPacket("udp4", "0.0.0.0:53")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		d := newDriver(t, c)
		leaves := func(g *testGuest, hint string, stay ...network.Port) {
			t.Helper()
			if err := d.Remove(t.Context(), g.port.ID); err != nil {
				t.Error(err)
			}
			err := d.Apply(t.Context(), stay)
			if !errors.Is(err, network.ErrUnsettled) || !strings.Contains(vm.HintOf(err), hint) {
				t.Errorf("%s leaves: %v, hint %q", g.port.Name, err, vm.HintOf(err))
			}
			rules := run(t, "nft", "list", "ruleset")
			for _, p := range append(stay, g.port) {
				if has := strings.Contains(rules, tapName(p.ID)); has != (p != g.port) {
					t.Errorf("rules for %s: %v", p.Name, has)
				}
			}
			if _, err := d.Ensure(t.Context(), late); !errors.Is(err, network.ErrUnsettled) {
				t.Errorf("a new VM: %v", err)
			}
			if _, err := net.InterfaceByName(tapName(late.ID)); err == nil {
				t.Error("a new VM has a device without all of the rest")
			}
		}
		if err := d.Apply(t.Context(), []network.Port{web.port, db.port, old.port}); !errors.Is(err, network.ErrUnsettled) {
			t.Errorf("beside another resolver: %v", err)
		}
		leaves(old, "except interface banger0", web.port, db.port)
		reaches(t, "web", worldAddr+":80", hostAddr)

		ip(t, "link delete banger0") // behind our back, and its addresses are another's
		ip(t, "route add 172.30.8.0/24 via "+worldAddr)
		leaves(db, "another subnet", web.port)

		ip(t, "route delete 172.30.8.0/24")
		_ = taken.Close()
		apply(t, d, web)
		reaches(t, "web", worldAddr+":80", hostAddr)
		if got, err := web.resolve("172.30.0.1", "example.com.", dnsmessage.TypeA); err != nil || got != "192.0.2.77" {
			t.Errorf("%s (%v)", got, err)
		}
	})
}
