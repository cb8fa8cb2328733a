package disktest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"banger/internal/disk"
	"banger/internal/vm"
)

// flatten compares a disk that stands alone with the overlay that it was made of, and looks that neither this nor the image was
// written.
func (s suite) flatten(t *testing.T) {
	o := s.overlay(t)
	flat := func(o disk.Overlay) (disk.Attached, error) {
		t.Helper()
		dst := filepath.Join(t.TempDir(), "flat")
		if err := os.WriteFile(dst, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return disk.Attached{Path: dst, Format: "raw"}, s.d.Flatten(t.Context(), o, dst)
	}
	if _, err := flat(o); vm.CodeOf(err) != vm.CodeNotFound || !strings.Contains(err.Error(), o.Path) {
		t.Errorf("one that was never made: %v (code %s)", err, vm.CodeOf(err))
	}
	image := digest(t, o.Base)
	detached := func() {
		t.Helper()
		if err := s.d.Detach(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	s.ensure(t, o)
	detached()
	if got, err := flat(o); err != nil || digest(t, got.Path) != image {
		t.Errorf("one that nobody has written: %v", err)
	}
	a := s.ensure(t, o)
	want, err := os.ReadFile(o.Base)
	if err != nil {
		t.Fatal(err)
	}
	wrote := func(off int64, text string) {
		t.Helper()
		write(t, a, off, text)
		copy(want[off:], text)
	}
	writes := 600 // enough for a second area of dmsnap's, over data and over a hole, in an order of their own
	if a.Format == "qcow2" {
		writes = 12 // each is a program's run
	}
	for n := range writes {
		wrote(int64(n*5003%(baseSize/4096))*4096+17, "m"+strconv.Itoa(n))
	}
	wrote(4096, "mine")
	wrote(4096, "more")
	wrote(baseSize-4, "last")
	detached()
	overlay := digest(t, o.Path)
	got, err := flat(o)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(got.Path); err != nil || !bytes.Equal(b, want) {
		t.Errorf("it holds something else than the overlay (%d bytes, %v)", len(b), err)
	}
	if digest(t, o.Base) != image || digest(t, o.Path) != overlay {
		t.Error("the image or the overlay was written")
	}
}
