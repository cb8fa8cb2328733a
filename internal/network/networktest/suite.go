// Package networktest is the contract of network.Driver as tests. Every driver passes Suite.
package networktest

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"reflect"
	"sync/atomic"
	"testing"

	"banger/internal/network"
	"banger/internal/vm"
)

// Suite runs every test against the driver that setup makes; it must be usable on this host.
func Suite(t *testing.T, setup func(t *testing.T) network.Driver) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, network.Driver)
	}{
		{"Probe", probe},
		{"EnsureTwice", ensureTwice},
		{"RemoveTwice", removeTwice},
		{"RemoveNeedsOnlyTheID", removeNeedsOnlyTheID},
		{"GuestIsWhole", guestIsWhole},
		{"TwoVMs", twoVMs},
		{"EndedContext", endedContext},
		{"Apply", apply},
		{"Plug", plug},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := setup(t)
			if a, ok := d.(network.Applier); ok {
				none := func() {
					if err := a.Apply(context.Background(), nil); err != nil {
						t.Errorf("apply no ports: %v", err)
					}
				}
				none()
				t.Cleanup(none)
			}
			c.run(t, d)
		})
	}
}

// port makes a new VM's port. Drivers that lease get addresses from the top of their subnet, one after the other.
func port(d network.Driver) network.Port {
	p := network.Port{ID: vm.NewID()}
	p.Name = "t-" + string(p.ID)
	if s := d.Subnet(); s.IsValid() {
		host := uint32(1)<<(32-s.Bits()) - 2 - ports.Add(1)
		base := s.Masked().Addr().As4()
		p.Addr = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(base[:])+host)))
	}
	return p
}

var ports atomic.Uint32

func ensure(t *testing.T, d network.Driver, p network.Port) network.Attached {
	t.Helper()
	a, err := d.Ensure(t.Context(), p)
	if err != nil {
		t.Fatalf("ensure: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Remove(context.Background(), p.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	return a
}

func probe(t *testing.T, d network.Driver) {
	if d.Name() == "" {
		t.Error("the driver has no name")
	}
	if err := d.Probe(t.Context()); err != nil {
		t.Errorf("probe: %v", err)
	}
}

func ensureTwice(t *testing.T, d network.Driver) {
	p := port(d)
	if first, second := ensure(t, d, p), ensure(t, d, p); !reflect.DeepEqual(first, second) {
		t.Errorf("first %+v, then %+v", first, second)
	}
}

func removeTwice(t *testing.T, d network.Driver) {
	p := port(d)
	first := ensure(t, d, p)
	for range 2 {
		if err := d.Remove(t.Context(), p.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if first.TapDevice != "" {
		if _, err := net.InterfaceByName(first.TapDevice); err == nil {
			t.Errorf("%s is still there", first.TapDevice)
		}
	}
	if again := ensure(t, d, p); !reflect.DeepEqual(again, first) {
		t.Errorf("after its removal %+v, before %+v", again, first)
	}
}

func removeNeedsOnlyTheID(t *testing.T, d network.Driver) {
	if err := d.Remove(t.Context(), vm.NewID()); err != nil {
		t.Errorf("remove what never was: %v", err)
	}
}

func guestIsWhole(t *testing.T, d network.Driver) {
	p := port(d)
	want := d.Address()
	if p.Addr.IsValid() {
		want = p.Addr.String()
	}
	a := ensure(t, d, p)
	if (a.NIC == nil) != (a.Guest == nil) {
		t.Fatalf("half a network: %+v", a)
	}
	if a.NIC == nil {
		if want != "" {
			t.Errorf("an address %q without an interface", want)
		}
		return
	}
	if a.NIC.User == (a.NIC.Tap != "") || a.NIC.Tap != a.TapDevice {
		t.Errorf("interface %+v, tap %q", a.NIC, a.TapDevice)
	}
	mac, err := net.ParseMAC(a.NIC.MAC)
	if err != nil || len(mac) != 6 || mac[0]&0x03 != 0x02 || a.Guest.MAC != a.NIC.MAC {
		t.Errorf("MAC %q for the VMM, %q for the guest: want one, locally administered and unicast", a.NIC.MAC, a.Guest.MAC)
	}
	prefix, err := netip.ParsePrefix(a.Guest.Address)
	if err != nil || prefix.Addr().String() != want {
		t.Errorf("address %q (%v), want %q", a.Guest.Address, err, want)
	}
	gateway, err := netip.ParseAddr(a.Guest.Gateway)
	if err != nil || !prefix.Contains(gateway) || gateway == prefix.Addr() {
		t.Errorf("gateway %q is not within %s", a.Guest.Gateway, prefix)
	}
	if len(a.Guest.Nameservers) == 0 {
		t.Error("no nameserver")
	}
	for _, n := range a.Guest.Nameservers {
		if _, err := netip.ParseAddr(n); err != nil {
			t.Errorf("nameserver %q: %v", n, err)
		}
	}
}

func twoVMs(t *testing.T, d network.Driver) {
	a, b := ensure(t, d, port(d)), ensure(t, d, port(d))
	if a.NIC != nil && (a.NIC.MAC == b.NIC.MAC || a.TapDevice != "" && a.TapDevice == b.TapDevice) {
		t.Errorf("two VMs share %+v", a.NIC)
	}
}

func endedContext(t *testing.T, d network.Driver) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := port(d)
	if _, err := d.Ensure(ctx, p); err == nil {
		t.Error("ensured under an ended context")
	}
	if err := d.Remove(t.Context(), p.ID); err != nil {
		t.Errorf("remove after it: %v", err)
	}
}

// apply holds that what is shared and what is a VM's own come and go in any order.
func apply(t *testing.T, d network.Driver) {
	a, ok := d.(network.Applier)
	if !ok {
		t.Skip("its VMs share nothing")
	}
	first, second := port(d), port(d)
	for range 2 {
		if err := a.Apply(t.Context(), []network.Port{first, second}); err != nil {
			t.Fatalf("apply: %v", err)
		}
	}
	before := ensure(t, d, first)
	for _, ports := range [][]network.Port{{second, first}, {first}, nil, {first}} {
		if err := a.Apply(t.Context(), ports); err != nil {
			t.Fatalf("apply %v: %v", ports, err)
		}
	}
	if after := ensure(t, d, first); !reflect.DeepEqual(before, after) {
		t.Errorf("first %+v, after others came and went %+v", before, after)
	}
	if err := d.Remove(t.Context(), first.ID); err != nil {
		t.Errorf("remove: %v", err)
	}
	twice := second
	twice.Addr = first.Addr
	if err := a.Apply(t.Context(), []network.Port{first, twice}); first.Addr.IsValid() && err == nil {
		t.Error("two VMs got one address")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Apply(ctx, []network.Port{first}); err == nil {
		t.Error("applied under an ended context")
	}
}

// plug holds that what a machine is started with is what Ensure makes whole, in any order.
func plug(t *testing.T, d network.Driver) {
	plugger, ok := d.(network.Plugger)
	if !ok {
		t.Skip("it makes all of a VM's network at once")
	}
	p := port(d)
	try := func() network.Attached {
		t.Helper()
		a, err := plugger.Plug(t.Context(), p)
		if err != nil {
			t.Fatalf("plug: %v", err)
		}
		return a
	}
	first, again := try(), try()
	t.Cleanup(func() {
		if err := d.Remove(context.Background(), p.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	if !reflect.DeepEqual(first, again) {
		t.Errorf("first %+v, then %+v", first, again)
	}
	up := func() bool {
		t.Helper()
		i, err := net.InterfaceByName(first.TapDevice)
		if err != nil {
			t.Fatal(err)
		}
		return i.Flags&net.FlagUp != 0
	}
	if _, err := os.Lstat("/sys/class/net/" + first.TapDevice + "/master"); err == nil || up() {
		t.Errorf("up %v, a port (%v): packets pass before the rules for them are there", up(), err)
	}
	if whole := ensure(t, d, p); !reflect.DeepEqual(whole, first) {
		t.Errorf("plugged %+v, whole %+v", first, whole)
	}
	if !up() {
		t.Error("nothing passes when it is whole")
	}
	if again := try(); !reflect.DeepEqual(again, first) || up() { // for another run
		t.Errorf("plugged again %+v, up %v; before %+v", again, up(), first)
	}
	if whole := ensure(t, d, p); !reflect.DeepEqual(whole, first) || !up() {
		t.Errorf("whole again %+v, up %v; before %+v", whole, up(), first)
	}
	if err := d.Remove(t.Context(), p.ID); err != nil {
		t.Errorf("remove: %v", err)
	}
	try()
	if err := d.Remove(t.Context(), p.ID); err != nil {
		t.Errorf("remove what is only plugged: %v", err)
	}
	if _, err := net.InterfaceByName(first.TapDevice); err == nil {
		t.Errorf("%s is still there", first.TapDevice)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := plugger.Plug(ctx, p); err == nil {
		t.Error("plugged under an ended context")
	}
}
