package link

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

// An address that changed between versions would make a running host's bridge somebody else's.
func TestAddressIsStable(t *testing.T) {
	if got, want := address("banger0").String(), "aa:76:4a:75:33:57"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// ip runs the independent reader of what this package makes.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

var (
	bridge = Bridge{Name: "bng00000000", Address: netip.MustParsePrefix("10.99.0.1/24")}
	tap    = Tap{Name: "bt0123456789ab", Alias: "banger 0123456789ab", Bridge: bridge.Name, MAC: "02:00:00:00:00:0b", UID: 12345, Isolated: true}
)

func TestBridge(t *testing.T) {
	testhost.InNamespace(t, func(t *testing.T) {
		for range 2 {
			if err := EnsureBridge(t.Context(), bridge); err != nil {
				t.Fatal(err)
			}
		}
		ip(t, "address", "add", "10.98.0.1/24", "dev", bridge.Name)
		ip(t, "link", "set", bridge.Name, "down")
		if err := EnsureBridge(t.Context(), bridge); err != nil {
			t.Fatal(err)
		}
		if got := strings.Fields(ip(t, "-brief", "address", "show", bridge.Name)); len(got) != 3 || got[2] != "10.99.0.1/24" {
			t.Errorf("%q", got)
		}
		if got := ip(t, "-oneline", "link", "show", bridge.Name); !strings.Contains(got, ",UP") {
			t.Errorf("not up: %s", got)
		}
		uses, err := Uses()
		if want := (Use{Range: netip.MustParsePrefix("10.99.0.0/24"), Link: bridge.Name}); err != nil || !slices.Contains(uses, want) {
			t.Errorf("uses %v (%v), want %v", uses, err, want)
		}
		for range 2 {
			if err := RemoveBridge(t.Context(), bridge.Name); err != nil {
				t.Fatal(err)
			}
		}
		if there, err := FindBridge(bridge.Name); there || err != nil {
			t.Errorf("%v, %v", there, err)
		}
	})
}

func TestTap(t *testing.T) {
	testhost.Need(t, testhost.Tun)
	testhost.InNamespace(t, func(t *testing.T) {
		if err := EnsureTap(t.Context(), tap); err == nil || !strings.Contains(err.Error(), bridge.Name) {
			t.Errorf("without its bridge: %v", err)
		}
		if got := ip(t, "link"); strings.Contains(got, tap.Name) {
			t.Errorf("left by a failure:\n%s", got)
		}
		if err := EnsureBridge(t.Context(), bridge); err != nil {
			t.Fatal(err)
		}
		before := ip(t, "link")
		for range 2 {
			if err := EnsureTap(t.Context(), tap); err != nil {
				t.Fatal(err)
			}
			got := ip(t, "-oneline", "-details", "link", "show", tap.Name)
			for _, want := range []string{"vnet_hdr on", "persist on", "user 12345", "master " + bridge.Name, "isolated on", "learning off", " flood off", ",UP", "alias banger 0123456789ab"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in %s", want, got)
				}
			}
		}
		if got, err := Ports(bridge.Name); err != nil || !maps.Equal(got, map[string]string{tap.Name: tap.Alias}) {
			t.Errorf("ports %v (%v)", got, err)
		}

		other := tap
		other.UID, other.Isolated = 54321, false
		if err := EnsureTap(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		if got := ip(t, "-oneline", "-details", "link", "show", tap.Name); !strings.Contains(got, "user 54321") || !strings.Contains(got, "isolated off") {
			t.Errorf("not changed: %s", got)
		}

		// The bridge removed behind our back, and come again.
		if err := RemoveBridge(t.Context(), bridge.Name); err != nil {
			t.Fatal(err)
		}
		if err := EnsureBridge(t.Context(), bridge); err != nil {
			t.Fatal(err)
		}
		if err := EnsureTap(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		if got, err := Ports(bridge.Name); err != nil || len(got) != 1 {
			t.Errorf("ports %v (%v)", got, err)
		}
		for range 2 {
			if err := RemoveTap(t.Context(), tap.Name, tap.Alias); err != nil {
				t.Fatal(err)
			}
		}
		if err := RemoveBridge(t.Context(), bridge.Name); err != nil {
			t.Fatal(err)
		}
		if got := ip(t, "link"); strings.Contains(before, tap.Name) || strings.Contains(got, tap.Name) || strings.Contains(got, bridge.Name) {
			t.Errorf("left:\n%s", got)
		}
	})
}

// TestPluggedTap holds that a device for a VMM to open carries nothing before it is a port of its bridge.
func TestPluggedTap(t *testing.T) {
	testhost.Need(t, testhost.Tun)
	testhost.InNamespace(t, func(t *testing.T) {
		show := func() string {
			return ip(t, "-oneline", "-details", "link", "show", tap.Name) + ip(t, "-oneline", "address", "show", tap.Name)
		}
		for range 2 {
			if err := PlugTap(t.Context(), tap); err != nil {
				t.Fatal(err)
			}
			got := show()
			for _, want := range []string{"vnet_hdr on", "persist on", "user 12345", "alias banger 0123456789ab"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in %s", want, got)
				}
			}
			for _, no := range []string{" master ", ",UP"} {
				if strings.Contains(got, no) {
					t.Errorf("%q in %s", no, got)
				}
			}
		}
		if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + tap.Name + "/disable_ipv6"); err == nil && string(off) != "1\n" {
			t.Errorf("it would take part in IPv6: %q", off)
		}
		if err := EnsureBridge(t.Context(), bridge); err != nil {
			t.Fatal(err)
		}
		for range 2 { // another run on what is left of the first
			if err := EnsureTap(t.Context(), tap); err != nil {
				t.Fatal(err)
			}
			if got := show(); !strings.Contains(got, "master "+bridge.Name) || !strings.Contains(got, ",UP") {
				t.Errorf("not whole: %s", got)
			}
			if err := PlugTap(t.Context(), tap); err != nil {
				t.Fatal(err)
			}
			if got := show(); strings.Contains(got, ",UP") {
				t.Errorf("plugged again: %s", got)
			}
		}
		if err := RemoveTap(t.Context(), tap.Name, tap.Alias); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTapInUse holds that a device with a VMM on it is not touched when it is right, and not broken when it is not.
func TestTapInUse(t *testing.T) {
	testhost.Need(t, testhost.Tun)
	testhost.InNamespace(t, func(t *testing.T) {
		if err := EnsureBridge(t.Context(), bridge); err != nil {
			t.Fatal(err)
		}
		if err := EnsureTap(t.Context(), tap); err != nil {
			t.Fatal(err)
		}
		fd, err := openTap(tap.Name, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		before := ip(t, "link", "show", tap.Name)
		if err := EnsureTap(t.Context(), tap); err != nil {
			t.Fatal(err)
		}
		other := tap
		other.UID++
		if err := EnsureTap(t.Context(), other); !errors.Is(err, unix.EBUSY) {
			t.Errorf("given to another user while in use: %v", err)
		}
		if got := ip(t, "link", "show", tap.Name); got != before {
			t.Errorf("changed:\n%s\nbefore:\n%s", got, before)
		}
	})
}

// TestForeign holds that what has our name and not our mark is named, and never touched.
func TestForeign(t *testing.T) {
	testhost.Need(t, testhost.Tun)
	testhost.InNamespace(t, func(t *testing.T) {
		ip(t, "link", "add", bridge.Name, "type", "bridge")
		ip(t, "tuntap", "add", tap.Name, "mode", "tap")
		before := ip(t, "-details", "link")
		for what, err := range map[string]error{bridge.Name: EnsureBridge(t.Context(), bridge), tap.Name: EnsureTap(t.Context(), tap), "device " + tap.Name: PlugTap(t.Context(), tap)} {
			if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), what) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := errors.Join(RemoveBridge(t.Context(), bridge.Name), RejoinTap(t.Context(), tap), RemoveTap(t.Context(), tap.Name, tap.Alias)); err != nil {
			t.Error(err)
		}
		if got := ip(t, "-details", "link"); got != before {
			t.Errorf("changed:\n%s\nbefore:\n%s", got, before)
		}
	})
}

func TestUses(t *testing.T) {
	testhost.InNamespace(t, func(t *testing.T) {
		ip(t, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
		ip(t, "link", "set", "v0", "up")
		ip(t, "link", "set", "v1", "up")
		ip(t, "address", "add", "192.0.2.2/24", "dev", "v0")
		ip(t, "route", "add", "default", "via", "192.0.2.1")
		ip(t, "route", "add", "10.7.0.0/16", "via", "192.0.2.9", "table", "52")
		ip(t, "route", "add", "blackhole", "10.8.0.0/16")
		uses, err := Uses()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []Use{
			{netip.MustParsePrefix("192.0.2.0/24"), "v0", false},
			{netip.MustParsePrefix("0.0.0.0/0"), "v0", true},
			{netip.MustParsePrefix("10.7.0.0/16"), "v0", true},
		} {
			if !slices.Contains(uses, want) {
				t.Errorf("no %v in %v", want, uses)
			}
		}
		if !slices.ContainsFunc(uses, func(u Use) bool { return u.Range == netip.MustParsePrefix("10.8.0.0/16") && u.Route }) {
			t.Errorf("no blackhole in %v", uses)
		}
	})
}

func TestForwarding(t *testing.T) {
	testhost.InNamespace(t, func(t *testing.T) {
		ip(t, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
		for _, on := range []bool{true, true, false} {
			if err := SetForwarding(t.Context(), "v0", on); err != nil {
				t.Fatal(err)
			}
			got, err := Forwarding("v0")
			other, oerr := Forwarding("v1")
			if got != on || other || errors.Join(err, oerr) != nil {
				t.Errorf("v0 %v, want %v; v1 %v (%v, %v)", got, on, other, err, oerr)
			}
		}
		if got, err := Forwarding("absent0"); got || err != nil || SetForwarding(t.Context(), "absent0", true) != nil {
			t.Errorf("absent: %v, %v", got, err)
		}
	})
}
