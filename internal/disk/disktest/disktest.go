// Package disktest is the conformance suite of root-disk drivers. Only tests import it.
package disktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"banger/internal/disk"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// baseSize is that of the test's image: most of it is a hole, as of a real one.
const baseSize = 32 << 20

// Suite holds a driver to the contract of disk.Driver. dir is an empty directory on a file system where the driver
// works.
func Suite(t *testing.T, dir string, another func() disk.Driver) {
	d := another()
	s := suite{d: d, another: another, dir: dir}
	t.Run("Probe leaves nothing", s.probe)
	t.Run("Probe killed", s.probeKilled)
	t.Run("Ensure keeps content", s.ensureTwice)
	t.Run("Writes stay out of the image", s.isolated)
	t.Run("Two on one image", s.shared)
	t.Run("Flatten is what the guest saw", s.flatten)
	t.Run("Kernel objects gone behind our back", s.behindOurBack)
	t.Run("Files gone while attached", s.filesGone)
	t.Run("Detach and Remove of nothing", s.undoNothing)
	t.Run("Leftovers of a dead Ensure", s.leftovers)
	t.Run("Missing image", s.missingBase)
	t.Run("Missing directory", s.missingDir)
	t.Run("Cancelled", s.cancelled)
}

type suite struct {
	d       disk.Driver
	another func() disk.Driver // as another daemon has it
	dir     string
}

// overlay makes an image and names an overlay of it, both in directories of their own. The test fails when something on
// the host stays that names the id or the directories.
func (s suite) overlay(t *testing.T) disk.Overlay {
	t.Helper()
	top, err := os.MkdirTemp(s.dir, "case-")
	if err != nil {
		t.Fatal(err)
	}
	id := string(vm.NewID())
	testhost.Leaks(t, id, top)
	o := disk.Overlay{ID: id, Base: filepath.Join(top, "image", "root.ext4"), Path: filepath.Join(top, "vm", "overlay")}
	for _, p := range []string{o.Base, o.Path} {
		if err := os.Mkdir(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(o.Base, bytes.Repeat([]byte("base"), 1<<18), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Truncate(o.Base, baseSize), os.Chmod(o.Base, 0o444)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.d.Remove(context.Background(), o); err != nil {
			t.Errorf("Remove after the test: %v", err)
		}
	})
	return o
}

func (s suite) ensure(t *testing.T, o disk.Overlay) disk.Attached {
	t.Helper()
	a, err := s.d.Ensure(t.Context(), o)
	if err != nil {
		t.Fatalf("Ensure: %v", err)
	}
	if a.Path == "" || a.Format != "raw" && a.Format != "qcow2" {
		t.Fatalf("Ensure returned %+v", a)
	}
	if st, err := os.Stat(a.Path); err != nil || (st.Mode()&os.ModeDevice != 0) != a.Block {
		t.Fatalf("Ensure returned %+v, but stat says %v %v", a, st, err)
	}
	return a
}

// second names another overlay of o's image.
func (s suite) second(t *testing.T, o disk.Overlay) disk.Overlay {
	t.Helper()
	other := o
	other.ID, other.Path = string(vm.NewID()), o.Path+"2"
	testhost.Leaks(t, other.ID)
	t.Cleanup(func() {
		if err := s.d.Remove(context.Background(), other); err != nil {
			t.Errorf("Remove after the test: %v", err)
		}
	})
	return other
}

func (s suite) probe(t *testing.T) {
	o := s.overlay(t)
	imageDir, vmDir := filepath.Dir(o.Base), filepath.Dir(o.Path)
	for range 2 {
		if err := s.d.Probe(t.Context(), imageDir, vmDir); err != nil {
			t.Fatalf("Probe: %v", err)
		}
	}
	if got := list(t, imageDir); len(got) != 1 {
		t.Errorf("image directory holds %v", got)
	}
	if got := list(t, vmDir); len(got) != 0 {
		t.Errorf("VM directory holds %v", got)
	}
	if err := s.d.Probe(t.Context(), imageDir, filepath.Join(vmDir, "absent")); err == nil {
		t.Error("Probe of a directory that does not exist succeeded")
	}
}

func (s suite) ensureTwice(t *testing.T) {
	o := s.overlay(t)
	a := s.ensure(t, o)
	if got := read(t, a, 0, 8); got != "basebase" {
		t.Errorf("new overlay begins %q, want the image's content", got)
	}
	write(t, a, 4096, "mine")
	write(t, a, baseSize-4096, "last")
	if again := s.ensure(t, o); again != a {
		t.Errorf("second Ensure returned %+v, first %+v", again, a)
	}
	for range 2 {
		if err := s.d.Detach(t.Context(), o); err != nil {
			t.Fatalf("Detach: %v", err)
		}
	}
	a = s.ensure(t, o)
	if got := read(t, a, 4096, 4) + read(t, a, baseSize-4096, 4) + read(t, a, 8192, 4); got != "minelastbase" {
		t.Errorf("content after Ensure, Detach, Ensure is %q", got)
	}
	for range 2 {
		if err := s.d.Remove(t.Context(), o); err != nil {
			t.Fatalf("Remove: %v", err)
		}
		if got := list(t, filepath.Dir(o.Path)); len(got) != 0 {
			t.Fatalf("Remove left %v", got)
		}
	}
	if got := read(t, s.ensure(t, o), 4096, 4); got != "base" {
		t.Errorf("overlay made after Remove holds %q, want the image's content", got)
	}
}

func (s suite) isolated(t *testing.T) {
	o := s.overlay(t)
	before := digest(t, o.Base)
	other := s.second(t, o)
	a, b := s.ensure(t, o), s.ensure(t, other)
	write(t, a, 0, "mine")
	write(t, a, 16<<20, "hole")
	if got := read(t, b, 0, 4); got != "base" {
		t.Errorf("another overlay sees %q", got)
	}
	if digest(t, o.Base) != before {
		t.Error("the image was written")
	}
	if err := s.d.Remove(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s.ensure(t, other), 0, 4); got != "base" {
		t.Errorf("after the first was removed the other holds %q", got)
	}
}

func (s suite) undoNothing(t *testing.T) {
	o := s.overlay(t)
	o.Path = filepath.Join(filepath.Dir(o.Path), "absent", "overlay")
	for range 2 {
		if err := s.d.Detach(t.Context(), o); err != nil {
			t.Errorf("Detach: %v", err)
		}
		if err := s.d.Remove(t.Context(), o); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
}

// leftovers plays a daemon that died inside Ensure: the unpublished file must not be taken for the overlay, and goes
// with it. A neighbour with a like name is somebody else's.
func (s suite) leftovers(t *testing.T) {
	o := s.overlay(t)
	vmDir := filepath.Dir(o.Path)
	dead := filepath.Join(vmDir, "."+filepath.Base(o.Path)+".tmp-123")
	neighbour := filepath.Join(vmDir, "."+filepath.Base(o.Path)+"2.tmp-123")
	for _, p := range []string{dead, neighbour} {
		if err := os.WriteFile(p, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, s.ensure(t, o), 0, 4); got != "base" {
		t.Errorf("overlay holds %q", got)
	}
	if err := s.d.Remove(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := list(t, vmDir); len(got) != 1 || got[0] != filepath.Base(neighbour) {
		t.Errorf("Remove left %v, want the neighbour's alone", got)
	}
}

func (s suite) missingBase(t *testing.T) {
	o := s.overlay(t)
	o.Base += "-absent"
	_, err := s.d.Ensure(t.Context(), o)
	if vm.CodeOf(err) != vm.CodeNotFound || !strings.Contains(err.Error(), o.Base) || vm.HintOf(err) == "" {
		t.Errorf("Ensure: %v (code %s, hint %q), want code not_found, the path and a hint", err, vm.CodeOf(err), vm.HintOf(err))
	}
	if got := list(t, filepath.Dir(o.Path)); len(got) != 0 {
		t.Errorf("failed Ensure left %v", got)
	}
}

func (s suite) missingDir(t *testing.T) {
	o := s.overlay(t)
	o.Path = filepath.Join(filepath.Dir(o.Path), "absent", "overlay")
	if _, err := s.d.Ensure(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.Path) {
		t.Errorf("Ensure: %v, want an error with the path", err)
	}
}

// cancelled holds that a context that ended early leaves all or nothing; a driver that is quick may ignore it.
func (s suite) cancelled(t *testing.T) {
	o := s.overlay(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.d.Ensure(ctx, o); err != nil {
		if got := list(t, filepath.Dir(o.Path)); len(got) != 0 {
			t.Errorf("cancelled Ensure left %v", got)
		}
	}
	if got := read(t, s.ensure(t, o), 0, 4); got != "base" {
		t.Errorf("overlay holds %q", got)
	}
}

// NoSpace holds a driver to its word on a full disk: code no_space, nothing left. It mounts a small tmpfs for the VM's
// directory and so needs root. Not for drivers that need both directories on one file system.
func NoSpace(t *testing.T, dir string, d disk.Driver) {
	testhost.Need(t, testhost.Root)
	s := suite{d: d, dir: dir}
	o := s.overlay(t)
	vmDir := filepath.Dir(o.Path)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "none", vmDir).CombinedOutput(); err != nil {
		t.Fatalf("mount tmpfs: %v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", vmDir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	fill := filepath.Join(vmDir, "fill")
	_ = os.WriteFile(fill, make([]byte, 1<<20), 0o600) // fails half-way: the disk is full
	_, err := d.Ensure(t.Context(), o)
	if vm.CodeOf(err) != vm.CodeNoSpace || vm.HintOf(err) == "" {
		t.Errorf("Ensure: %v (code %s), want code no_space with a hint", err, vm.CodeOf(err))
	}
	if got := list(t, vmDir); len(got) != 1 {
		t.Errorf("failed Ensure left %v", got)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func digest(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// read and write go to the disk as a VMM would: by QEMU's own code where the format is QEMU's.
func read(t *testing.T, a disk.Attached, off int64, n int) string {
	t.Helper()
	if a.Format == "qcow2" {
		return string(dumped(t, qemuIO(t, a.Path, "read -v "+strconv.FormatInt(off, 10)+" 512"))[:n])
	}
	f, err := os.Open(a.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, a disk.Attached, off int64, s string) {
	t.Helper()
	if a.Format == "qcow2" {
		var cmds []string
		for i := range len(s) { // it writes patterns of one byte
			cmds = append(cmds, "write -P "+strconv.Itoa(int(s[i]))+" "+strconv.FormatInt(off+int64(i), 10)+" 1")
		}
		qemuIO(t, a.Path, cmds...)
		return
	}
	f, err := os.OpenFile(a.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt([]byte(s), off); err != nil {
		t.Fatal(err)
	}
}

func qemuIO(t *testing.T, path string, cmds ...string) string {
	t.Helper()
	args := []string{"-f", "qcow2", "-t", "unsafe"} // no flush to the disk
	for _, c := range cmds {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("qemu-io", append(args, path)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "failed") {
		t.Fatalf("qemu-io %q: %v: %s", cmds, err, out)
	}
	return string(out)
}

// dumped takes the bytes out of qemu-io's dump: "00000000:  62 61 73 65 …  base…".
func dumped(t *testing.T, out string) []byte {
	t.Helper()
	var b []byte
	for line := range strings.Lines(out) {
		_, rest, ok := strings.Cut(line, ":  ")
		if !ok {
			continue
		}
		for _, h := range strings.Fields(rest)[:min(16, len(strings.Fields(rest)))] {
			v, err := strconv.ParseUint(h, 16, 8)
			if err != nil {
				break
			}
			b = append(b, byte(v))
		}
	}
	if len(b) < 16 {
		t.Fatalf("no dump in %s", out)
	}
	return b
}
