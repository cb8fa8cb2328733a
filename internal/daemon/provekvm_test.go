package daemon

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/kernel"
	"banger/internal/store"
	"banger/internal/vm"
)

// The boot that proves KVM reads the default kernel, which nobody may delete meanwhile; and what cannot be booted is not
// kept for ever.
func TestTheProofOfKVMHoldsItsKernel(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(t.Context(), filepath.Join(dir, "banger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	kernels := kernel.New(kernel.Config{
		Dir: filepath.Join(dir, "kernels"), InitramfsDir: filepath.Join(dir, "initramfs"), Records: db,
		Guest: kernel.Guest{Key: "guest", Binary: func() ([]byte, error) { return []byte("guest"), nil }},
	})
	defer kernels.Close()
	boot := proveBoot(kernels)
	if _, err := boot(t.Context()); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("with no kernel: %v", err)
	}
	for _, whole := range []bool{true, false} {
		k := vm.Kernel{Name: vm.DefaultKernel, Digest: "sha256:" + strings.Repeat("2", 64), Release: "6.12.1"}
		record, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		files := filepath.Join(dir, "kernels", k.Digest[7:])
		err = os.MkdirAll(filepath.Join(files, "boot"), 0o700)
		for name, content := range map[string][]byte{"vmlinux": nil, "modules.ext4": nil, "boot/order": nil, "kernel.json": record} {
			if whole || name != "vmlinux" {
				err = errors.Join(err, os.WriteFile(filepath.Join(files, name), content, 0o600))
			}
		}
		if err = errors.Join(err, db.PutKernel(t.Context(), k)); err != nil {
			t.Fatal(err)
		}
		b, err := boot(t.Context())
		if (err == nil) != whole {
			t.Fatalf("whole %v: %v", whole, err)
		}
		if whole {
			if err := kernels.Delete(t.Context(), k.Name, ""); vm.CodeOf(err) != vm.CodeConflict {
				t.Errorf("deleted while it is booted: %v", err)
			}
			if _, err := os.Stat(b.Kernel); err != nil {
				t.Error(err)
			}
			b.Done()
		}
		if err := kernels.Delete(t.Context(), k.Name, ""); err != nil {
			t.Errorf("whole %v, afterwards: %v", whole, err)
		}
	}
}
