package dmsnap

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/disk"
	"banger/internal/host/dm"
	"banger/internal/host/loop"
	"banger/internal/inventory"
	"banger/internal/testhost"
	"banger/internal/vm"
)

const webID = vm.ID("00000000000a")

// rootIn makes the directories of a root, with an image and the store of a VM that is called webID.
func rootIn(t *testing.T) (p inventory.Place, o disk.Overlay) {
	t.Helper()
	dir := testhost.Dir(t)
	p = inventory.Place{Root: dir, State: dir, Run: filepath.Join(dir, "run"), VMs: filepath.Join(dir, "vms"), Images: filepath.Join(dir, "images")}
	o = disk.Overlay{ID: string(webID), Base: filepath.Join(p.Images, "f00", "root.ext4"), Path: filepath.Join(p.Dir(webID), "system")}
	for _, f := range []string{o.Base, o.Path} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o700), os.WriteFile(f, make([]byte, 1<<20), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return p, o
}

// found is what the loop devices of a root are, by their files.
func found(t *testing.T, k inventory.Kind) map[string]inventory.Object {
	t.Helper()
	all, err := k.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]inventory.Object{}
	for _, o := range all {
		m[o.Name] = o
	}
	return m
}

// Loop devices are whose file it is. What another root or a person set up is never removed.
func TestLoopInventory(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.Loop)
	testhost.Leaks(t)
	p, o := rootIn(t)
	_, theirs := rootIn(t)
	byHand := filepath.Join(p.VMs, "00000000000b", "system")
	probe := filepath.Join(filepath.Dir(o.Base), disk.ProbePrefix(name)+"1")
	if err := errors.Join(os.MkdirAll(filepath.Dir(byHand), 0o700), os.WriteFile(byHand, make([]byte, 1<<20), 0o600), os.WriteFile(probe, make([]byte, 1<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{o.Base, o.Path, theirs.Path, probe} {
		if _, err := loop.Ensure(t.Context(), f, f == o.Base); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = loop.Remove(context.Background(), f) })
	}
	losetup(t, byHand)
	d := New()
	kind := d.Kinds(p)[1]
	now := found(t, kind)
	if got := now[o.Path]; got.VM != webID || !got.Run || got.Proof == "" {
		t.Errorf("a store's: %+v", got)
	}
	if got := now[o.Base]; got.VM != "" || got.Proof == "" || len(got.Users) != 0 {
		t.Errorf("an image's: %+v", got)
	}
	if got := now[theirs.Path]; got.Proof != "" || got.Doubt == "" {
		t.Errorf("another root's: %+v", got)
	}
	if got, ok := now[byHand]; ok {
		t.Errorf("a person's: %+v", got)
	}
	end := d.trials.Begin()
	if got := found(t, kind)[probe]; got.Busy == "" {
		t.Errorf("a probe's, while one is under way: %+v", got)
	}
	end()
	if got := found(t, kind)[probe]; got.Busy != "" || got.Proof == "" {
		t.Errorf("a probe's: %+v", got)
	}
	if err := kind.Remove(t.Context(), now[theirs.Path]); !errors.Is(err, inventory.ErrChanged) {
		t.Errorf("another root's: %v", err)
	}
	for range 2 {
		for _, f := range []string{o.Path, o.Base, probe, byHand} {
			x := now[f]
			x.Kind, x.Name = "loop device", f
			if err := kind.Remove(t.Context(), x); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
	all, err := loop.List()
	if err != nil {
		t.Fatal(err)
	}
	on := func(f string) bool {
		return slices.ContainsFunc(all, func(d loop.Device) bool { return d.Backing == f })
	}
	if on(o.Path) || on(o.Base) || on(probe) || !on(theirs.Path) || !on(byHand) {
		t.Errorf("left of %s: %+v", p.Root, all)
	}
}

// The whole stack, as a crash leaves it.
func TestDeviceInventory(t *testing.T) {
	need(t)
	testhost.Leaks(t, string(webID), "00000000000b")
	p, o := rootIn(t)
	other, theirs := rootIn(t)
	theirs.ID = "00000000000b"
	theirs.Path = filepath.Join(other.VMs, theirs.ID, "system")
	if err := errors.Join(os.Remove(o.Path), os.MkdirAll(filepath.Dir(theirs.Path), 0o700)); err != nil {
		t.Fatal(err)
	}
	d := New()
	for _, x := range []disk.Overlay{o, theirs} {
		if _, err := d.Ensure(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Remove(context.Background(), x) })
	}
	devices, loops := d.Kinds(p)[0], d.Kinds(p)[1]
	mine := found(t, devices)[dm.UUID(webID)]
	if mine.VM != webID || !mine.Run || mine.Proof == "" {
		t.Errorf("%+v", mine)
	}
	foreign := found(t, devices)[dm.UUID("00000000000b")]
	if foreign.Proof != "" || foreign.Doubt == "" {
		t.Errorf("another root's: %+v", foreign)
	}
	if err := devices.Remove(t.Context(), foreign); !errors.Is(err, inventory.ErrChanged) {
		t.Errorf("another root's: %v", err)
	}
	base := found(t, loops)[o.Base]
	if !slices.Equal(base.Users, []vm.ID{webID}) {
		t.Errorf("the image's loop device is used by %q", base.Users)
	}
	if err := loops.Remove(t.Context(), base); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("removed under its device: %v", err)
	}
	for range 2 {
		for _, x := range []struct {
			k inventory.Kind
			o inventory.Object
		}{{devices, mine}, {loops, found(t, loops)[o.Path]}, {loops, base}} {
			if x.o.Name == "" {
				continue
			}
			if err := x.k.Remove(t.Context(), x.o); err != nil {
				t.Error(err)
			}
		}
	}
	if _, there, err := dm.Find("00000000000b"); !there || err != nil {
		t.Errorf("another root's device is gone: %v", err)
	}
}

func TestStoreOf(t *testing.T) {
	all := []loop.Device{{Number: "7:0", Backing: "/image"}, {Number: "7:1", Backing: "/store"}}
	for table, want := range map[string]string{"0 65536 snapshot 7:0 7:1 PO 8": "/store", "0 65536 snapshot 7:0 7:9 PO 8": "", "0 65536 linear 7:0 0": "", "": ""} {
		if got := storeOf(table, all); got != want {
			t.Errorf("%q: %q, want %q", table, got, want)
		}
	}
}

// losetup sets a device up as a person does.
func losetup(t *testing.T, file string) {
	t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", dev).Run() })

}
