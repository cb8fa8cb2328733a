package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/store"
	"banger/internal/vm"
)

func TestPinned(t *testing.T) {
	const known, unknown = "0123456789ab", "ba9876543210"
	for name, c := range map[string]struct {
		dirs []string // in vms; nil = no vms
		bad  string   // the directory an error names
	}{
		"no VM yet":            {nil, ""},
		"all have rows":        {[]string{known}, ""},
		"what is no VM's":      {[]string{known, ".probe", "lost+found"}, ""},
		"a directory too many": {[]string{known, unknown}, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			db, dir := openStore(t)
			addVM(t, db, known)
			vms := filepath.Join(dir, "vms")
			for _, d := range c.dirs {
				mkdir(t, filepath.Join(vms, d))
			}
			got, err := pinned(db, vms, db.PinnedImages)(t.Context())
			if c.bad == "" {
				if err != nil || !slices.Equal(got, []string{digest("a")}) {
					t.Fatalf("got %q, %v", got, err)
				}
				return
			}
			if got != nil || vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), filepath.Join(vms, c.bad)) {
				t.Errorf("got %q, %v; want a conflict that names %s", got, err, c.bad)
			}
			if !strings.Contains(vm.HintOf(err), "banger doctor") {
				t.Errorf("hint %q", vm.HintOf(err))
			}
		})
	}
}

// A database that was moved away because it was corrupt must cost no VM its disks.
func TestNewDatabaseKeepsWhatVMsStandOn(t *testing.T) {
	db, dir := openStore(t)
	vms, images, kernels := filepath.Join(dir, "vms"), filepath.Join(dir, "images"), filepath.Join(dir, "kernels")
	vmDir := filepath.Join(vms, "0123456789ab")
	mkdir(t, vmDir)
	root, vmlinux := filepath.Join(images, digest("a")[7:], "root.ext4"), filepath.Join(kernels, digest("b")[7:], "vmlinux")
	for _, f := range []string{root, vmlinux} {
		mkdir(t, filepath.Dir(f))
		if err := os.WriteFile(f, []byte("x"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	i := image.New(image.Config{Dir: images, Records: db, Pinned: pinned(db, vms, db.PinnedImages), Unnamed: db.UnnamedImages()})
	k := kernel.New(kernel.Config{Dir: kernels, InitramfsDir: filepath.Join(dir, "initramfs"), Records: db, Pinned: pinned(db, vms, db.PinnedKernels), Unnamed: db.UnnamedKernels()})
	if vm.CodeOf(i.Reconcile(t.Context())) != vm.CodeConflict || vm.CodeOf(k.Reconcile(t.Context())) != vm.CodeConflict {
		t.Error("nobody told that a VM has no row")
	}
	for _, f := range []string{root, vmlinux} {
		if _, err := os.Stat(f); err != nil {
			t.Errorf("lost: %v", err)
		}
	}

	if err := os.Remove(vmDir); err != nil {
		t.Fatal(err)
	}
	// Nor may it cost images and kernels that somebody made, and no VM has.
	for _, err := range []error{i.Reconcile(t.Context()), k.Reconcile(t.Context())} {
		if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(vm.HintOf(err), "--leaks") {
			t.Errorf("nobody told that they have no record: %v", err)
		}
	}
	for _, f := range []string{root, vmlinux} {
		if _, err := os.Stat(f); err != nil {
			t.Errorf("lost: %v", err)
		}
	}

	// What a crash leaves is known: it was announced before it was there, or had a name.
	if err := errors.Join(db.UnnamedImages().Add(t.Context(), digest("a")), db.UnnamedKernels().Add(t.Context(), digest("b"))); err != nil {
		t.Fatal(err)
	}
	if err := i.Reconcile(t.Context()); err != nil {
		t.Error(err)
	}
	if err := k.Reconcile(t.Context()); err != nil {
		t.Error(err)
	}
	for _, f := range []string{root, vmlinux} {
		if _, err := os.Stat(f); !os.IsNotExist(err) {
			t.Errorf("%s outlived the last VM: %v", f, err)
		}
	}
	for _, u := range []store.Unnamed{db.UnnamedImages(), db.UnnamedKernels()} {
		if all, err := u.All(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("still known as unnamed: %q, %v", all, err)
		}
	}
}

func digest(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func openStore(t *testing.T) (db *store.Store, dir string) {
	t.Helper()
	dir = t.TempDir()
	db, err := store.Open(t.Context(), filepath.Join(dir, "banger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db, dir
}

func addVM(t *testing.T, db *store.Store, id vm.ID) {
	t.Helper()
	_, err := db.CreateVM(t.Context(), vm.VMRecord{
		ID: id, Name: "n" + string(id), State: vm.StateStopped, Want: vm.WantStopped, Generation: 1,
		Image: "i", ImageDigest: digest("a"), Kernel: "k", KernelDigest: digest("b"),
		VMM: "qemu", Disk: "qcow2", Network: "none", CreatedAt: time.Unix(1_700_000_000, 0).UTC(),
		Runtime: vm.VMRuntime{State: vm.StateStopped},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}
