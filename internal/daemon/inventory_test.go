package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/config"
	"banger/internal/disk"
	"banger/internal/host/cgroup"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/paths"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// A driver that does not tell what it makes on the host makes it where nobody looks.
func TestEveryDriverIsInTheInventory(t *testing.T) {
	d, err := driversOf(paths.Under(t.TempDir()), config.Default(), kernel.New(kernel.Config{}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	defer d.Programs.Close()
	all, err := sourcesOf(d, cgroup.Tree{}, time.Now(), d.Programs)
	if want := len(d.VMMs) + len(d.Disks) + len(d.Networks) + 2; err != nil || len(all) != want {
		t.Errorf("%d sources, want %d: %v", len(all), want, err)
	}
	for _, mute := range []Drivers{
		{VMMs: []vmm.Driver{struct{ vmm.Driver }{d.VMMs[0]}}},
		{Disks: []disk.Driver{struct{ disk.Driver }{d.Disks[0]}}},
		{Networks: []network.Driver{struct{ network.Driver }{d.Networks[0]}}},
	} {
		if _, err := sourcesOf(mute, cgroup.Tree{}, time.Now()); err == nil || !strings.Contains(err.Error(), "inventory.Source") {
			t.Errorf("%+v: %v", mute, err)
		}
	}
}

// A root that was copied has the original's rows: what it takes for its own may be the original's.
func TestAnothersDatabase(t *testing.T) {
	top := t.TempDir()
	p := paths.Under(filepath.Join(top, "root"))
	mkdir(t, p.VMs())
	link := filepath.Join(top, "link")
	if err := os.Symlink(p.Root, link); err != nil {
		t.Fatal(err)
	}
	in := func(dir string) []vm.VMRecord {
		return []vm.VMRecord{{ID: "00000000000a", Name: "web", Runtime: vm.VMRuntime{VMDir: dir}}}
	}
	for dir, ours := range map[string]bool{
		"": true, p.VMDir("00000000000a"): true, filepath.Join(link, "vms", "00000000000a"): true, filepath.Join(top, "other", "vms", "00000000000a"): false,
	} {
		if why := anothers(p, in(dir)); (why == "") != ours || !ours && (!strings.Contains(why, dir) || !strings.Contains(why, "web")) {
			t.Errorf("%s: %q", dir, why)
		}
	}
}
