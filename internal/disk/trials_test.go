package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/inventory"
	"banger/internal/vm"
)

func TestTrialFiles(t *testing.T) {
	dir := t.TempDir()
	p := inventory.Place{State: dir, VMs: filepath.Join(dir, "vms"), Images: filepath.Join(dir, "images")}
	if err := errors.Join(os.Mkdir(p.VMs, 0o700), os.Mkdir(p.Images, 0o700)); err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(p.VMs, ".probe-copy-1")
	besideImage := filepath.Join(p.Images, "f00", ".probe-copy-2")
	if err := errors.Join(os.Mkdir(filepath.Dir(besideImage), 0o700), os.WriteFile(besideImage, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	others := []string{".probe-qcow2-1", "probe-copy-1", ".probe-copy", "x.probe-copy-1"}
	for _, f := range append(others, ".probe-copy-1") {
		if err := os.WriteFile(filepath.Join(p.VMs, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(p.VMs, ".probe-copy-dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	var trials inventory.Work
	kind := TrialFiles(&trials, "copy", p)
	found, err := kind.List(t.Context())
	if err != nil || len(found) != 2 || found[0].Name != ours || found[1].Name != besideImage || found[0].Proof == "" || found[0].Busy != "" {
		t.Fatalf("%+v, %v", found, err)
	}
	end := trials.Begin()
	if busy, err := kind.List(t.Context()); err != nil || len(busy) != 2 || busy[0].Busy == "" {
		t.Errorf("while one probes: %+v, %v", busy, err)
	}
	if err := kind.Remove(t.Context(), found[0]); !errors.Is(err, inventory.ErrChanged) {
		t.Errorf("removed what a probe may be using: %v", err)
	}
	end()
	for range 2 {
		if err := kind.Remove(t.Context(), found[0]); err != nil {
			t.Error(err)
		}
	}
	for _, f := range others {
		if err := kind.Remove(t.Context(), inventory.Object{Kind: "probe's file", Name: filepath.Join(p.VMs, f)}); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(p.VMs, f)); err != nil {
			t.Errorf("%s is gone: %v", f, err)
		}
	}
}

// What people read of a probe names no file that is gone by then.
func TestTrialNamesAreNotTold(t *testing.T) {
	said := vm.Errorf(vm.CodeMissing, "clone /s/images/.probe-reflink-27 to /a dir/.probe-reflink-1: %w; open /s/vms/.probe-x-1-store: no", fs.ErrPermission).WithHint("mend it")
	probe := fake{name: "reflink", err: said}
	for _, want := range []string{Auto, "reflink"} {
		_, _, err := Choose(t.Context(), []Driver{probe}, want, "qemu", "/s/images", "/s/vms")
		if err == nil || strings.Contains(err.Error(), ".probe-") || !strings.Contains(err.Error(), "clone /s/images to /a dir: permission denied; open /s/vms: no") {
			t.Errorf("%s: %v", want, err)
		}
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: the cause is lost in %v", want, err)
		}
	}
	if err := try(context.Background(), fake{}, "", ""); err != nil {
		t.Error(err)
	}
}
