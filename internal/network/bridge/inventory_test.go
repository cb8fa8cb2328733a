package bridge

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/inventory"
	"banger/internal/network"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// TestInventory: beside another root's network and what a person made, only this root's is removed, and of that only what
// no VM needs.
func TestInventory(t *testing.T) {
	testhost.Need(t, testhost.Tun, testhost.NFT)
	testhost.InNamespace(t, func(t *testing.T) {
		dir := t.TempDir()
		p := inventory.Place{Root: dir, Run: filepath.Join(dir, "run"), VMs: filepath.Join(dir, "vms")}
		const web, orphan, theirs, loose, traced = vm.ID("00000000000a"), vm.ID("00000000000b"), vm.ID("00000000000c"), vm.ID("00000000000d"), vm.ID("00000000000e")
		port := func(id vm.ID, addr string) network.Port {
			return network.Port{ID: id, Name: string(id), Addr: netip.MustParseAddr(addr)}
		}
		d, other := newDriver(t, config("bng00000001", "172.30.0.0/16")), newDriver(t, config("bng00000002", "172.31.0.0/16"))
		for driver, ports := range map[*Driver][]network.Port{d: {port(web, "172.30.0.2"), port(orphan, "172.30.0.3")}, other: {port(theirs, "172.31.0.2")}} {
			if err := driver.Apply(t.Context(), ports); err != nil {
				t.Fatal(err)
			}
			for _, x := range ports {
				if _, err := driver.Ensure(t.Context(), x); err != nil {
					t.Fatal(err)
				}
			}
		}
		ip(t, "tuntap add bthandmade mode tap") // a person's, and one that somebody took off its bridge
		ip(t, "link add bng00000003 type bridge")
		for _, id := range []vm.ID{loose, traced} {
			ip(t, "tuntap add "+tapName(id)+" mode tap")
			run(t, "ip", "link", "set", tapName(id), "alias", tapAlias(id))
		}
		if err := os.MkdirAll(p.Dir(traced), 0o700); err != nil {
			t.Fatal(err)
		}
		records := []vm.VMRecord{{ID: web, Name: "web", Want: vm.WantRunning, Runtime: vm.VMRuntime{State: vm.StateRunning}}}
		k := inventory.New(inventory.Config{
			Kinds:   d.Kinds(p),
			Records: func(context.Context) ([]vm.VMRecord, error) { return records, nil },
			Born:    func() time.Time { return time.Time{} },
			Sweep:   func(context.Context, vm.ID) error { return errors.New("nobody sweeps") },
		})
		status := func() map[string]string {
			t.Helper()
			found, err := k.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := map[string]string{}
			for _, f := range found {
				s[f.Kind+" "+f.Name] = strings.TrimSpace(string(f.Status) + " " + f.Owner)
			}
			return s
		}
		want := map[string]string{
			"tap device " + tapName(web): "owned web", "tap device " + tapName(orphan): "orphan", "tap device " + tapName(theirs): "foreign",
			"tap device " + tapName(loose): "foreign", "tap device " + tapName(traced): "orphan",
			"bridge bng00000001": "owned web", "packet rules bng00000001": "owned web", "bridge bng00000002": "foreign", "packet rules bng00000002": "foreign",
		}
		got := status()
		for name, verdict := range want {
			if got[name] != verdict {
				t.Errorf("%s is %q, want %q", name, got[name], verdict)
			}
		}
		if len(got) != len(want) {
			t.Errorf("found %v", got)
		}
		everything := func(string, string) bool { return true }
		done, err := k.Fix(t.Context(), everything)
		if err != nil || len(done) != 2 {
			t.Fatalf("%+v, %v", done, err)
		}
		for _, o := range done {
			if !o.Removed || !slices.Contains([]string{tapName(orphan), tapName(traced)}, o.Name) {
				t.Errorf("%+v", o)
			}
		}
		delete(want, "tap device "+tapName(orphan))
		delete(want, "tap device "+tapName(traced))
		if got := status(); len(got) != len(want) {
			t.Errorf("left %v, want %v", got, want)
		}
		if links := run(t, "ip", "-brief", "link"); !strings.Contains(links, "bthandmade") || !strings.Contains(links, "bng00000003") {
			t.Errorf("somebody's own is gone:\n%s", links)
		}

		// The last VM's record is gone, and nobody took the network down.
		shared := d.Kinds(p)[1]
		if err := shared.Remove(t.Context(), inventory.Object{Kind: kindBridge, Name: "bng00000001"}); !errors.Is(err, inventory.ErrChanged) {
			t.Errorf("removed under its ports: %v", err)
		}
		if err := shared.Remove(t.Context(), inventory.Object{Kind: kindBridge, Name: "bng00000002"}); !errors.Is(err, inventory.ErrChanged) {
			t.Errorf("removed another root's: %v", err)
		}
		records = nil
		if err := d.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.ports = map[vm.ID]network.Port{}
		d.give()
		if done, err = k.Fix(t.Context(), everything); err != nil || len(done) != 3 {
			t.Errorf("%+v, %v", done, err)
		}
		rest := status()
		for name := range rest {
			if strings.Contains(name, "bng00000001") || strings.Contains(name, tapName(web)) {
				t.Errorf("%s is left", name)
			}
		}
		if rest["bridge bng00000002"] != "foreign" || rest["packet rules bng00000002"] != "foreign" || rest["tap device "+tapName(theirs)] != "foreign" {
			t.Errorf("another root's network: %v", rest)
		}
	})
}
