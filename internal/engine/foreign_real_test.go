package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"banger/internal/api"
	"banger/internal/disk"
	"banger/internal/handles"
	"banger/internal/host/loop"
	"banger/internal/network"
	"banger/internal/network/bridge"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// loopDisk puts a real loop device under the overlays of another driver: dmsnap without device-mapper, which few hosts of
// tests have.
type loopDisk struct{ disk.Driver }

func (d loopDisk) Ensure(ctx context.Context, o disk.Overlay) (disk.Attached, error) {
	a, err := d.Driver.Ensure(ctx, o)
	if err != nil {
		return a, err
	}
	dev, err := loop.Ensure(ctx, o.Path, false)
	a.CowLoop = dev.Path
	return a, err
}

func (d loopDisk) Detach(ctx context.Context, o disk.Overlay) error {
	return errors.Join(loop.Remove(ctx, o.Path), d.Driver.Detach(ctx, o))
}

func (d loopDisk) Remove(ctx context.Context, o disk.Overlay) error {
	return errors.Join(d.Detach(ctx, o), d.Driver.Remove(ctx, o))
}

// A scratch file that names a stranger's loop device and link, and those of another VM, makes nobody remove them: clean-up
// goes by names that follow from the VM's own id, and by marks.
func TestForeignObjectsAreLeftAlone(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.Loop, testhost.Tun, testhost.IP, testhost.NFT)
	testhost.InNamespace(t, testForeignObjects)
}

func testForeignObjects(t *testing.T) {
	w := newWorld(t)
	must(t, os.Truncate(images{w}.RootPath(""), 1<<20))
	var net *bridge.Driver
	start := func() *daemon {
		d := w.begin()
		net = bridge.New(bridge.Config{
			Name: bridge.NameFor(w.paths.Root), Subnet: netip.MustParsePrefix("10.213.0.0/24"), ResolvConf: os.DevNull,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		d.Disks = []disk.Driver{loopDisk{w.disk()}}
		d.Networks = []network.Driver{net}
		must(t, d.Recover(t.Context()))
		return d
	}
	d := start()
	defer func() { net.Close() }()
	run := func(name string) vm.VMRecord {
		r, err := d.Create(t.Context(), api.CreateRequest{Name: name, Network: "bridge", Start: true}, nil)
		must(t, err)
		return d.until(r.ID, "running", func(r vm.VMRecord) bool { return r.State == vm.StateRunning })
	}
	r, other := run("web"), run("other")
	theirs := d.Handles.Get(other.ID)
	if theirs.TapDevice == "" || theirs.CowLoop == "" {
		t.Fatalf("the other VM holds no real objects: %+v", theirs)
	}
	strange := filepath.Join(t.TempDir(), "strange")
	must(t, os.WriteFile(strange, make([]byte, 1<<20), 0o600))
	dev, err := loop.Ensure(t.Context(), strange, false)
	must(t, err)
	defer func() { must(t, loop.Remove(context.Background(), strange)) }()
	if out, err := exec.Command("ip", "link", "add", "strange0", "type", "bridge").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	there := func(when string) {
		t.Helper()
		for _, path := range []string{"/sys/class/net/strange0", "/sys/class/net/" + theirs.TapDevice,
			filepath.Join("/sys/block", filepath.Base(dev.Path), "loop"), filepath.Join("/sys/block", filepath.Base(theirs.CowLoop), "loop")} {
			if !exists(path) {
				t.Errorf("%s: %s is gone", when, path)
			}
		}
	}
	own := d.Handles.Get(r.ID)
	for name, h := range map[string]vm.VMHandles{
		"strangers":     {BootID: w.host.BootID(), TapDevice: "strange0", BaseLoop: dev.Path, CowLoop: dev.Path, DMName: "strange", DMDev: dev.Path},
		"another VM's":  theirs,
		"a copied file": {},
	} {
		d.kill()
		net.Close()
		if p, ok := w.host.ProcessOf(r.ID); ok {
			must(t, w.host.Exit(p, "signal: killed"))
		}
		if name == "a copied file" {
			b, err := os.ReadFile(filepath.Join(other.Runtime.VMDir, handles.FileName))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(r.Runtime.VMDir, handles.FileName), b, 0o600))
		} else {
			must(t, handles.NewCache().Set(t.Context(), r.ID, r.Runtime.VMDir, h))
		}
		d = start()
		d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
		there(name)
		for _, path := range []string{"/sys/class/net/" + own.TapDevice, filepath.Join("/sys/block", filepath.Base(own.CowLoop), "loop")} {
			if exists(path) {
				t.Errorf("%s: its own %s is left", name, path)
			}
		}
		if _, ok := w.host.ProcessOf(other.ID); !ok {
			t.Fatalf("%s: the other VM's process is gone", name)
		}
		_, err = d.Start(t.Context(), "web")
		must(t, err)
		d.until(r.ID, "running again", func(r vm.VMRecord) bool { return r.State == vm.StateRunning })
		own = d.Handles.Get(r.ID)
	}
	for _, r := range []vm.VMRecord{r, other} {
		_, err := d.Delete(t.Context(), string(r.ID))
		must(t, err)
		d.untilGone(r.ID)
	}
	w.nothingLeft()
	if !exists("/sys/class/net/strange0") {
		t.Error("at the end: the strange link is gone")
	}
}
