package reflink

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"banger/internal/disk"
	"banger/internal/disk/disktest"
	"banger/internal/host/file"
	"banger/internal/testhost"
)

var _ disk.Driver = Driver{}

func TestSuite(t *testing.T) {
	dir := testhost.Dir(t)
	if err := New().Probe(t.Context(), dir, dir); err != nil {
		dir = reflinkDir(t)
	}
	disktest.Suite(t, dir, func() disk.Driver { return New() })
}

// reflinkDir mounts a new file system that has reflinks, from a file.
func reflinkDir(t *testing.T) string {
	testhost.Need(t, testhost.Root, testhost.Loop, testhost.XFS)
	testhost.Leaks(t)
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	dir := testhost.Dir(t)
	disk, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 1<<30), os.Mkdir(mnt, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.xfs", "-q", disk}, {"mount", "-t", "xfs", "-o", "loop", disk, mnt}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mnt
}

func TestProbeSaysWhy(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	err := New().Probe(t.Context(), a, b)
	if err == nil {
		t.Skip("this file system has reflinks")
	}
	if !errors.Is(err, file.ErrNoClone) {
		t.Errorf("Probe: %v, want that clones do not work", err)
	}
	for _, d := range []string{a, b} {
		if left, _ := os.ReadDir(d); len(left) != 0 {
			t.Errorf("Probe left %v", left)
		}
	}
}
