package file

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	final := filepath.Join(dir, "f[*]") // characters that a glob would read
	boom := errors.New("boom")
	err := Create(t.Context(), "f", final, func(tmp string) error {
		if err := os.WriteFile(tmp, []byte("half"), 0o600); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(final); err == nil {
			t.Error("final is there before it is filled")
		}
		return boom
	})
	if !errors.Is(err, boom) || len(names(t, dir)) != 0 {
		t.Errorf("failed fill: %v, left %v", err, names(t, dir))
	}
	for _, content := range []string{"first", "second"} {
		if err := Create(t.Context(), "f", final, func(tmp string) error { return os.WriteFile(tmp, []byte(content), 0o600) }); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(final); err != nil || string(b) != "first" {
		t.Errorf("content %q %v, want the first one's", b, err)
	}
	if st, err := os.Stat(final); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	// The temporary file may be replaced by another, as programs do that write their output by rename.
	if err := Create(t.Context(), "f", final+"2", func(tmp string) error {
		return errors.Join(os.WriteFile(tmp+".new", []byte("new"), 0o600), os.Rename(tmp+".new", tmp))
	}); err != nil {
		t.Error(err)
	}
	dead, kept := filepath.Join(dir, ".f[*].tmp-1"), ".f[*].tmp-mine"
	if err := errors.Join(os.WriteFile(dead, nil, 0o600), os.WriteFile(filepath.Join(dir, kept), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(t.Context(), "f", final); err != nil {
			t.Fatal(err)
		}
		if got := names(t, dir); !slices.Equal(got, []string{kept, "f[*]2"}) {
			t.Errorf("Remove left %v", got)
		}
	}
	if err := Remove(t.Context(), "f", filepath.Join(dir, "absent", "f")); err != nil {
		t.Errorf("Remove in a directory that is not there: %v", err)
	}
}

func TestPublish(t *testing.T) {
	dir := t.TempDir()
	tmp, final := filepath.Join(dir, "tmp"), filepath.Join(dir, "final")
	for _, content := range []string{"one", "two"} {
		if err := errors.Join(os.WriteFile(tmp, []byte(content), 0o600), Publish(t.Context(), "f", tmp, final)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(final); err != nil || string(b) != content {
			t.Errorf("content %q %v, want %q", b, err, content)
		}
	}
	if err := errors.Join(os.Mkdir(tmp, 0o700), Publish(t.Context(), "f", tmp, final+"-dir")); err != nil {
		t.Errorf("directory: %v", err)
	}
	if err := Publish(t.Context(), "f", tmp, final); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestCopySparse(t *testing.T) {
	dir := t.TempDir()
	const size = 16 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	for _, c := range []struct {
		name string
		at   []int64
		size int64
	}{
		{"empty", nil, 0},
		{"one hole", nil, size},
		{"data at both ends", []int64{0, size - int64(len(data))}, size},
		{"holes at both ends", []int64{2 << 20, 8 << 20}, size},
		{"odd size", []int64{0}, int64(len(data)) + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dst := filepath.Join(dir, c.name+".src"), filepath.Join(dir, c.name+".dst")
			f, err := os.Create(src)
			if err != nil {
				t.Fatal(err)
			}
			for _, off := range c.at {
				if _, err := f.WriteAt(data, off); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(f.Truncate(c.size), f.Close(), os.WriteFile(dst, nil, 0o600), CopySparse(t.Context(), dst, src)); err != nil {
				t.Fatal(err)
			}
			want, err1 := os.ReadFile(src)
			got, err2 := os.ReadFile(dst)
			if err := errors.Join(err1, err2); err != nil || !bytes.Equal(got, want) {
				t.Errorf("copy differs (%d bytes, want %d): %v", len(got), len(want), err)
			}
			whole := filepath.Join(dir, c.name+".whole")
			a, err1 := Sum(t.Context(), src)
			if err := errors.Join(err1, os.WriteFile(whole, want, 0o600)); err != nil {
				t.Fatal(err)
			}
			if b, err := Sum(t.Context(), whole); err != nil || a != b {
				t.Errorf("the same without holes has another sum: %v", err)
			}
			if err := os.Truncate(whole, c.size+1); err != nil {
				t.Fatal(err)
			}
			if b, err := Sum(t.Context(), whole); err != nil || a == b {
				t.Errorf("a longer one has the same sum: %v", err)
			}
			if len(want) > 0 {
				want[len(want)/3] ^= 1
				if err := os.WriteFile(whole, want, 0o600); err != nil {
					t.Fatal(err)
				}
				if b, err := Sum(t.Context(), whole); err != nil || a == b {
					t.Errorf("another one has the same sum: %v", err)
				}
			}
			from, err1 := Allocated(src)
			to, err2 := Allocated(dst)
			if err := errors.Join(err1, err2); err != nil || to > from+1<<20 {
				t.Errorf("copy takes %d bytes, source %d: %v", to, from, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dst := filepath.Join(dir, "cancelled")
	if err := os.WriteFile(dst, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CopySparse(ctx, dst, filepath.Join(dir, "odd size.src")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCloneSaysThatItCannot(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	if err := errors.Join(os.WriteFile(src, make([]byte, 4096), 0o600), os.WriteFile(dst, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Clone(dst, src); err != nil && !errors.Is(err, ErrNoClone) {
		t.Errorf("Clone: %v", err)
	}
	if err := Clone(dst, "/proc/self/status"); !errors.Is(err, ErrNoClone) {
		t.Errorf("Clone across file systems: %v", err)
	}
	if err := Clone(dst, filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Clone of nothing: %v", err)
	}
}

func TestNoSpace(t *testing.T) {
	for err, want := range map[error]bool{unix.ENOSPC: true, unix.EDQUOT: true, unix.EIO: false, nil: false} {
		if NoSpace(&os.PathError{Err: err}) != want {
			t.Errorf("%v: want %v", err, want)
		}
	}
}
