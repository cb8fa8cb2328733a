package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
	"banger/internal/vm"
)

// smallDisk is a file system of its own, of so many MiB.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	testhost.Need(t, testhost.Root)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp takes all that is free on the disk.
func fillUp(t *testing.T, dir string) (filler string) {
	t.Helper()
	filler = filepath.Join(dir, "filler")
	f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, step := range []int{1 << 20, 4096} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, step))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	return filler
}

// On a full disk VMs can be deleted, which is what our hint tells people to do.
func TestAFullDiskCanBeRelieved(t *testing.T) {
	dir := smallDisk(t, 32)
	path := filepath.Join(dir, "banger.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	const n = 20
	id := func(i int) vm.ID { return vm.ID(fmt.Sprintf("%012x", i)) }
	for i := range n {
		if _, err := s.CreateVM(t.Context(), record(id(i), fmt.Sprintf("n%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	filler := fillUp(t, dir)

	full := error(nil)
	for i := n; full == nil; i++ { // the -wal file may have room in it
		_, full = s.CreateVM(t.Context(), record(id(i), fmt.Sprintf("n%d", i)))
	}
	if vm.CodeOf(full) != vm.CodeNoSpace || vm.HintOf(full) == "" {
		t.Fatalf("a new VM: %v", full)
	}
	if _, err := os.Stat(s.ballast.path); err != nil {
		t.Fatalf("a new VM took the ballast: %v", err)
	}
	remove := func(s *Store, i int) error {
		r, err := s.SetWant(t.Context(), id(i), vm.WantGone, vm.StateRemoving)
		if err == nil {
			_, err = s.Commit(t.Context(), r.ID, r.Generation, func(r *vm.VMRecord) { r.Runtime.LastError = "busy" })
		}
		return errors.Join(err, s.DeleteVM(t.Context(), id(i)))
	}
	for i := range n - 1 {
		if err := remove(s, i); err != nil {
			t.Fatalf("delete VM %d: %v", i, err)
		}
	}
	if _, err := os.Stat(s.ballast.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the ballast is there, on a full disk: %v", err)
	}

	t.Run("made again when there is room", func(t *testing.T) {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if err := remove(s, n-1); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(s.ballast.path); err != nil || fi.Size() != ballastSize {
			t.Errorf("%v, %v", fi, err)
		}
	})
}

// A daemon that is started on a full disk serves too.
func TestAFullDiskCanBeOpened(t *testing.T) {
	dir := smallDisk(t, 32)
	path := filepath.Join(dir, "banger.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateVM(t.Context(), record("0123456789ab", "web")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fillUp(t, dir)
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.SetWant(t.Context(), "0123456789ab", vm.WantGone, vm.StateRemoving); err != nil {
		t.Error(err)
	}
	if err := s.DeleteVM(t.Context(), "0123456789ab"); err != nil {
		t.Error(err)
	}
}
