package qcow2

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/disk"
	"banger/internal/disk/disktest"
	format "banger/internal/qcow2"
	"banger/internal/testhost"
	"banger/internal/vm"
)

var _ disk.Driver = Driver{}

func TestSuite(t *testing.T) {
	testhost.Need(t, testhost.QEMU)
	disktest.Suite(t, testhost.Dir(t), func() disk.Driver { return New() })
}

func TestNoSpace(t *testing.T) { disktest.NoSpace(t, testhost.Dir(t), New()) }

// TestQEMUAgrees lets qemu-img judge the file that is written without it.
func TestQEMUAgrees(t *testing.T) {
	testhost.Need(t, testhost.QEMU)
	for _, size := range []int64{512, 1 << 20, 8 << 30, 8<<30 + 512, 15 << 40} {
		dir := t.TempDir()
		base, over := filepath.Join(dir, "base with space"), filepath.Join(dir, "over")
		if err := os.WriteFile(base, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(base, size); err != nil {
			t.Fatal(err)
		}
		if _, err := New().Ensure(t.Context(), disk.Overlay{Base: base, Path: over}); err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if out, err := exec.Command("qemu-img", "check", over).CombinedOutput(); err != nil {
			t.Errorf("size %d: qemu-img check: %v: %s", size, err, out)
		}
		out, err := exec.Command("qemu-img", "info", "--output=json", over).Output()
		if err != nil {
			t.Fatal(err)
		}
		var info struct {
			Size    int64  `json:"virtual-size"`
			Cluster int64  `json:"cluster-size"`
			Backing string `json:"full-backing-filename"`
			Format  string `json:"backing-filename-format"`
			Dirty   bool   `json:"dirty-flag"`
		}
		if err := json.Unmarshal(out, &info); err != nil {
			t.Fatal(err)
		}
		if info.Size != size || info.Cluster != format.Cluster || info.Backing != base || info.Format != "raw" || info.Dirty {
			t.Errorf("size %d: qemu-img says %+v", size, info)
		}
	}
}

func TestEnsureRefusesForeignContent(t *testing.T) {
	dir := t.TempDir()
	o := disk.Overlay{Base: filepath.Join(dir, "base"), Path: filepath.Join(dir, "over")}
	other := filepath.Join(dir, "other")
	for _, p := range []string{o.Base, other} {
		if err := os.WriteFile(p, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := New().Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	_, err := New().Ensure(t.Context(), disk.Overlay{Base: other, Path: o.Path})
	if vm.CodeOf(err) != vm.CodeCorrupt || !strings.Contains(err.Error(), o.Base) || !strings.Contains(err.Error(), other) {
		t.Errorf("overlay of another image: %v", err)
	}
	for _, content := range []string{"", "QFI", strings.Repeat("x", 200)} {
		if err := os.WriteFile(o.Path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New().Ensure(t.Context(), o); vm.CodeOf(err) != vm.CodeCorrupt || vm.HintOf(err) == "" {
			t.Errorf("content %q: %v, want code corrupt with a hint", content, err)
		}
		if b, err := os.ReadFile(o.Path); err != nil || string(b) != content {
			t.Errorf("content %q was touched: %q %v", content, b, err)
		}
	}
}

func TestRelativeBase(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("base", make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("vm", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := New().Ensure(t.Context(), disk.Overlay{Base: "base", Path: "vm/over"}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("vm/over")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if i, err := format.Open(f); err != nil || !filepath.IsAbs(i.Backing) {
		t.Errorf("backing file of %+v %v, want an absolute path", i, err)
	}
}

func BenchmarkEnsure(b *testing.B) {
	dir := b.TempDir()
	o := disk.Overlay{Base: filepath.Join(dir, "base"), Path: filepath.Join(dir, "over")}
	if err := os.WriteFile(o.Base, make([]byte, 1<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := New().Ensure(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		if err := New().Remove(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
}
