package ext4

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"banger/internal/host/file"
	"banger/internal/testhost"
	"banger/internal/vm"
)

func TestMake(t *testing.T) {
	testhost.Need(t, testhost.Ext4)
	for _, c := range []struct {
		name string
		size int64
		most int64 // bytes on the host's disk
	}{
		{"least", MinSize, 2 << 20},
		{"default", 8 << 30, 8 << 20},
		{"no whole block", 1<<30 + 1000, 8 << 20},
		{"1 TiB", 1 << 40, 32 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "work.ext4")
			start := time.Now()
			m := new(Maker)
			if err := m.Make(t.Context(), path, c.size, "banger-work"); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s in %s", c.name, time.Since(start).Round(time.Millisecond))
			st, err := os.Stat(path)
			if err != nil || st.Size() != c.size {
				t.Fatalf("size %d %v, want %d", st.Size(), err, c.size)
			}
			if n, err := file.Allocated(path); err != nil || n > c.most {
				t.Errorf("takes %d bytes %v, want at most %d", n, err, c.most)
			}
			// The next one is made of what is remembered of this: the same bytes, the same holes.
			again := path + ".again"
			if err := m.Make(t.Context(), again, c.size, "banger-work"); err != nil {
				t.Fatal(err)
			}
			if known := len(m.made) == 1; known != (c.size <= 8<<30) {
				t.Errorf("remembered: %v", known)
			} else if known {
				first, err := read(path, rememberedBytes)
				second, err2 := read(again, rememberedBytes)
				if err := errors.Join(err, err2); err != nil || len(first) == 0 || !reflect.DeepEqual(first, second) {
					t.Errorf("%d extents, made again %d (%v)", len(first), len(second), err)
				}
			}
			if out, err := exec.Command("/usr/sbin/e2fsck", "-fn", path).CombinedOutput(); err != nil && c.size < 1<<40 {
				t.Errorf("e2fsck: %v: %s", err, out)
			}
			head, err := exec.Command("/usr/sbin/dumpe2fs", path).Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"banger-work", "has_journal", "metadata_csum", "Reserved block count:     0", "ITABLE_ZEROED"} {
				if !strings.Contains(string(head), want) {
					t.Errorf("dumpe2fs does not say %q", want)
				}
			}
		})
	}
}

func TestMakeTwiceKeepsContent(t *testing.T) {
	testhost.Need(t, testhost.Ext4)
	dir := t.TempDir()
	path := filepath.Join(dir, "work.ext4")
	if err := os.WriteFile(path, []byte("a user's work"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := new(Maker).Make(t.Context(), path, 1<<30, "w"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "a user's work" {
		t.Errorf("content %q %v", b, err)
	}
}

// TestGrow: a larger file whose content is as before, which resize2fs takes as the guest's kernel does; never a smaller one.
func TestGrow(t *testing.T) {
	testhost.Need(t, testhost.Ext4)
	path := filepath.Join(t.TempDir(), "work.ext4")
	if err := new(Maker).Make(t.Context(), path, 64<<20, "w"); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{256 << 20, 256 << 20, 64 << 20} {
		if err := Grow(t.Context(), path, size); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Size() != 256<<20 {
			t.Errorf("grown to %d: %v, %v", size, st.Size(), err)
		}
	}
	if out, err := exec.Command("/usr/sbin/e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v: %s", err, out)
	}
	if out, err := exec.Command("/usr/sbin/resize2fs", path).CombinedOutput(); err != nil {
		t.Errorf("resize2fs: %v: %s", err, out)
	}
	if err := Grow(t.Context(), filepath.Join(t.TempDir(), "absent"), 1<<30); err == nil {
		t.Error("grew what is not there")
	}
	if err := Grow(t.Context(), path, 1<<62); err == nil || vm.CodeOf(err) != vm.CodeInvalid || vm.HintOf(err) == "" {
		t.Errorf("to more than any file has: %v", err)
	}
}

func TestMakeRefuses(t *testing.T) {
	testhost.Need(t, testhost.Ext4)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name  string
		ctx   context.Context
		dir   string // below the test's
		size  int64
		label string
		code  vm.Code
	}{
		{"negative", t.Context(), "", -1, "w", vm.CodeInvalid},
		{"zero", t.Context(), "", 0, "w", vm.CodeInvalid},
		{"too small", t.Context(), "", MinSize - 1, "w", vm.CodeInvalid},
		{"too big", t.Context(), "", MaxSize + 1, "w", vm.CodeInvalid},
		{"long label", t.Context(), "", MinSize, "seventeen letters", vm.CodeInvalid},
		{"no directory", t.Context(), "absent", MinSize, "w", vm.CodeInternal},
		{"cancelled", cancelled, "", MinSize, "w", vm.CodeInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := new(Maker).Make(c.ctx, filepath.Join(dir, c.dir, "work.ext4"), c.size, c.label)
			if err == nil || vm.CodeOf(err) != c.code {
				t.Errorf("%v, want code %s", err, c.code)
			}
			if c.ctx == cancelled && !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want canceled", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// TestMakeBiggerThanTheHostCan meets the limit of the host's own file system: 16 TiB less a block on ext4.
func TestMakeBiggerThanTheHostCan(t *testing.T) {
	testhost.Need(t, testhost.Ext4)
	dir := t.TempDir()
	probe := filepath.Join(dir, "probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Truncate(probe, MaxSize) == nil {
		t.Skip("this file system takes files of 16 TiB")
	}
	err := new(Maker).Make(t.Context(), filepath.Join(dir, "w"), MaxSize, "w")
	if vm.CodeOf(err) != vm.CodeInvalid || vm.HintOf(err) == "" || !strings.Contains(err.Error(), "takes no file of that size") {
		t.Errorf("%v, code %s", err, vm.CodeOf(err))
	}
}

func TestMakeOnAFullDisk(t *testing.T) {
	testhost.Need(t, testhost.Ext4, testhost.Root)
	testhost.Leaks(t)
	mnt := testhost.Dir(t)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "none", mnt).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	err := new(Maker).Make(t.Context(), filepath.Join(mnt, "w"), 8<<30, "w")
	if vm.CodeOf(err) != vm.CodeNoSpace || vm.HintOf(err) == "" {
		t.Errorf("%v, code %s, want no_space with a hint", err, vm.CodeOf(err))
	}
	if left, _ := os.ReadDir(mnt); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
