package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/disk"
	"banger/internal/disk/fullcopy"
	"banger/internal/disk/qcow2"
	"banger/internal/disk/reflink"
	"banger/internal/inventory"
)

// Drivers are tried between several directories: an image's and the VMs' for a new VM, the root's and the VMs' by doctor.
// Wherever a killed daemon was at it, the next one clears it away, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	p := inventory.Place{State: dir, VMs: filepath.Join(dir, "vms"), Images: filepath.Join(dir, "images")}
	image := filepath.Join(p.Images, "f00")
	for _, d := range []string{p.VMs, image} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(image, "root.ext4")
	left := []string{
		filepath.Join(p.State, ".probe-reflink-1"), filepath.Join(p.Images, ".probe-reflink-2"), filepath.Join(image, ".probe-reflink-3"),
		filepath.Join(p.VMs, ".probe-reflink-4"), filepath.Join(p.VMs, ".probe-qcow2-5"), filepath.Join(p.VMs, ".probe-copy-6"),
	}
	for _, path := range append(left, kept) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	drivers := []disk.Driver{reflink.New(), qcow2.New(), fullcopy.New()}
	for range 2 {
		if err := disk.Sweep(t.Context(), drivers, p); err != nil {
			t.Error(err)
		}
	}
	for _, path := range left {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if _, err := os.Lstat(kept); err != nil {
		t.Error(err)
	}
	if err := disk.Sweep(t.Context(), drivers, inventory.Place{State: filepath.Join(dir, "no"), VMs: filepath.Join(dir, "no", "vms"), Images: filepath.Join(dir, "no", "images")}); err != nil {
		t.Errorf("a root that has nothing yet: %v", err)
	}
}
