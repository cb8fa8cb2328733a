package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
	"banger/internal/vm"
)

func TestFileName(t *testing.T) {
	long := "/" + strings.Repeat("x", 100) + "/root.ext4"
	for path, want := range map[string]string{
		"/a/b":                        "banger:/a/b",
		long:                          "banger:" + long[len(long)-56:],
		"/" + strings.Repeat("y", 55): "banger:/" + strings.Repeat("y", 55),
	} {
		name := fileName(path)
		if got := unix.ByteSliceToString(name[:]); got != want || name[len(name)-1] != 0 {
			t.Errorf("%q is kept as %q, want %q", path, got, want)
		}
	}
}

// An ordinary user may open no loop device where the host has some, and has none himself.
func TestListOfAnOrdinaryUser(t *testing.T) {
	const entry = "/sys/block/loop%d/loop/backing_file"
	host := []string{fmt.Sprintf(entry, 0), fmt.Sprintf(entry, 1), fmt.Sprintf(entry, 2)}
	for _, c := range []struct {
		err  error
		euid int
		ok   bool
	}{
		{unix.EACCES, 1000, true},
		{unix.EPERM, 1000, true},
		{unix.ENXIO, 0, true}, // gone since
		{unix.EACCES, 0, false},
		{unix.EPERM, 0, false},
		{unix.EIO, 1000, false},
	} {
		all, err := list(host, func(name string) (Device, error) {
			if name == "loop1" {
				return Device{}, &os.PathError{Op: "open", Path: "/dev/" + name, Err: c.err}
			}
			return Device{Path: "/dev/" + name}, nil
		}, c.euid)
		if (err == nil) != c.ok || c.ok && !slices.Equal(all, []Device{{Path: "/dev/loop0"}, {Path: "/dev/loop2"}}) {
			t.Errorf("%v for user %d: %+v, %v", c.err, c.euid, all, err)
		}
	}
}

// backing makes a file of one MiB and holds the test to leaving no device on it.
func backing(t *testing.T) string {
	t.Helper()
	testhost.Need(t, testhost.Root, testhost.Loop)
	testhost.Leaks(t)
	return diskFile(t, filepath.Join(t.TempDir(), "disk with space"))
}

func diskFile(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, bytes.Repeat([]byte("disk"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Remove(context.Background(), path); err != nil {
			t.Error(err)
		}
	})
	return path
}

func ensure(t *testing.T, path string, readOnly bool) Device {
	t.Helper()
	d, err := Ensure(t.Context(), path, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func bound(t *testing.T, path string) int {
	t.Helper()
	found, err := Find(path)
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestEnsureRemoveTwice(t *testing.T) {
	path := backing(t)
	for _, readOnly := range []bool{true, false} {
		d := ensure(t, path, readOnly)
		if again := ensure(t, path, readOnly); again != d {
			t.Errorf("second Ensure made %+v, first %+v", again, d)
		}
		if d.Backing != path || d.ReadOnly != readOnly || !d.Ours || d.Deleted || !strings.HasPrefix(d.Number, "7:") {
			t.Errorf("made %+v", d)
		}
		f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.Write([]byte("mine"))
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if (err != nil) != readOnly {
			t.Errorf("write to a device with read-only %v: %v", readOnly, err)
		}
		for range 2 {
			if err := Remove(t.Context(), path); err != nil {
				t.Error(err)
			}
			if bound(t, path) != 0 {
				t.Error("still there")
			}
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b[:8]) != "minedisk" {
		t.Errorf("file begins %q %v, want what was written", b[:8], err)
	}
}

// TestFoundByFile moves and deletes the file under the device, and puts another in its place.
func TestFoundByFile(t *testing.T) {
	path := backing(t)
	d := ensure(t, path, false)
	moved := path + "2"
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	if again := ensure(t, moved, false); again.Path != d.Path {
		t.Errorf("moved file has %s, want %s", again.Path, d.Path)
	}
	if bound(t, path) != 0 {
		t.Error("the old name has a device")
	}
	link := path + "-link"
	if err := os.Link(moved, link); err != nil {
		t.Fatal(err)
	}
	if again := ensure(t, link, false); again.Path != d.Path {
		t.Errorf("linked file has %s, want %s", again.Path, d.Path)
	}
	if err := errors.Join(os.Remove(moved), os.WriteFile(moved, make([]byte, 1<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	other := ensure(t, moved, false)
	if other.Path == d.Path {
		t.Error("another file at the path took the deleted one's device")
	}
	if err := os.Remove(moved); err != nil {
		t.Fatal(err)
	}
	if n := bound(t, moved); n != 2 {
		t.Errorf("%d devices are found by the path of deleted files, want 2", n)
	}
	for range 2 {
		if err := Remove(t.Context(), moved); err != nil {
			t.Error(err)
		}
	}
	if bound(t, moved)+bound(t, link) != 0 {
		t.Error("devices of deleted files stayed")
	}
}

func TestOthersAreLeft(t *testing.T) {
	path := backing(t)
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := exec.Command("losetup", "-f", "--show", path).CombinedOutput()
	if err != nil {
		t.Skipf("losetup: %v: %s", err, out)
	}
	theirs := strings.TrimSpace(string(out))
	defer func() { _ = exec.Command("losetup", "-d", theirs).Run() }()
	if d := ensure(t, path, false); d.Path == theirs {
		t.Error("took somebody else's device")
	}
	if err := Remove(t.Context(), path); err != nil {
		t.Error(err)
	}
	if _, err := look(filepath.Base(theirs)); err != nil {
		t.Errorf("somebody else's device is gone: %v", err)
	}
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Path == theirs && (d.Ours || d.Backing != path) {
			t.Errorf("listed as %+v", d)
		}
	}
}

// TestBusy holds a device open: it must be named, and go when its user goes.
// TestStill holds that a device is told from another file's that has its number, and from none.
func TestStill(t *testing.T) {
	path, other := diskFile(t, backing(t)), diskFile(t, backing(t))
	d := ensure(t, path, true)
	for of, want := range map[string]bool{path: true, other: false} {
		if still, err := d.Still(of); err != nil || still != want {
			t.Errorf("on %s, asked for %s: %v, %v", path, of, still, err)
		}
	}
	if err := Remove(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if still, err := d.Still(path); err != nil || still {
		t.Errorf("removed: %v, %v", still, err)
	}
}

func TestBusy(t *testing.T) {
	path := backing(t)
	d := ensure(t, path, false)
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Remove(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while it is open: %v", err)
	}
	err = d.busy()
	if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "(pid ") || !strings.Contains(err.Error(), d.Path) {
		t.Errorf("busy: %v", err)
	}
	// It is on its way out: a second user must not be given it.
	if again := ensure(t, path, false); again.Path == d.Path {
		t.Error("Ensure returned a device that goes at its last close")
	}
	_ = f.Close()
	if err := Remove(t.Context(), path); err != nil || bound(t, path) != 0 {
		t.Errorf("%v, %d left", err, bound(t, path))
	}
}

func TestKeep(t *testing.T) {
	path := backing(t)
	d := ensure(t, path, true)
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(d.release(t.Context()), d.keep(t.Context()), f.Close())
	if err != nil {
		t.Fatal(err)
	}
	if bound(t, path) != 1 {
		t.Error("the device went though it was to stay")
	}
}

// TestOldKernel sets a device up without LOOP_CONFIGURE.
func TestOldKernel(t *testing.T) {
	path := backing(t)
	d := ensure(t, path, false) // for a number that is ours
	if err := Remove(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	dev, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = setUpInSteps(dev, file, unix.LoopInfo64{File_name: fileName(path), Flags: unix.LO_FLAGS_DIRECT_IO})
	_, _ = dev.Close(), file.Close()
	if errors.Is(err, unix.EBUSY) {
		t.Skip("another test took the device")
	}
	if err != nil {
		t.Fatal(err)
	}
	if again := ensure(t, path, false); again.Path != d.Path || !again.Ours {
		t.Errorf("found %+v, want %s", again, d.Path)
	}
}

// TestManyAtOnce lets many ask for free numbers at the same time.
func TestManyAtOnce(t *testing.T) {
	paths := []string{backing(t)}
	for i := range 7 {
		paths = append(paths, diskFile(t, paths[0]+strconv.Itoa(i)))
	}
	var wg sync.WaitGroup
	got := make([]Device, len(paths))
	for i, p := range paths {
		wg.Go(func() {
			for range 5 {
				if err := Remove(t.Context(), p); err != nil {
					t.Error(err)
				}
				var err error
				if got[i], err = Ensure(t.Context(), p, i%2 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, p := range paths {
		if now, err := Find(p); err != nil || len(now) != 1 || now[0] != got[i] {
			t.Errorf("%s: %+v %v, want %+v", p, now, err, got[i])
		}
	}
}

func TestBadInput(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.Loop)
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "absent"), dir, filepath.Join(dir, "no", "dir")} {
		if _, err := Ensure(t.Context(), path, true); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Ensure of %s: %v, want an error with the path", path, err)
		}
		if err := Remove(t.Context(), path); err != nil {
			t.Errorf("Remove of %s: %v", path, err)
		}
	}
}
