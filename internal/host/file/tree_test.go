package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMountPoints(t *testing.T) {
	const info = `23 28 0:21 / /sys rw - sysfs sysfs rw
30 28 0:26 / /a\040dir/with\134slash rw,relatime shared:1 - tmpfs tmpfs rw
short line
`
	if got, want := mountPoints(info), []string{"/sys", `/a dir/with\slash`}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBorn(t *testing.T) {
	before := time.Now().Add(-2 * time.Second)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, long, long); err != nil { // what anybody can set is not asked
		t.Fatal(err)
	}
	if at := Born(path); !at.IsZero() && (at.Before(before) || at.After(time.Now().Add(2*time.Second))) {
		t.Errorf("born at %v", at)
	}
	if at := Born(path + "x"); !at.IsZero() {
		t.Errorf("what is not there was born at %v", at)
	}
}

func TestRemoveTree(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	tree := filepath.Join(dir, "tree")
	if err := errors.Join(os.MkdirAll(filepath.Join(tree, "sub"), 0o700), os.Mkdir(out, 0o700), os.WriteFile(filepath.Join(out, "kept"), nil, 0o600), os.Symlink(out, filepath.Join(tree, "sub", "link"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := RemoveTree(t.Context(), "tree", tree); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(tree); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(out, "kept")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	link := filepath.Join(dir, "link") // a tree that somebody moved
	if err := errors.Join(os.Symlink(out, link), RemoveTree(t.Context(), "tree", link)); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link is there: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(out, "kept")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if err := RemoveTree(t.Context(), "tree", filepath.Join(out, "kept")); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a file: %v", err)
	}
}

// What somebody mounted below a directory of ours is theirs.
func TestRemoveTreeStopsAtMounts(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "tree", "sub dir")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	theirs := filepath.Join(at, "theirs")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTree(t.Context(), "tree", filepath.Join(dir, "tree")); err == nil || !strings.Contains(err.Error(), at) {
		t.Errorf("%v, want an error that names the mount", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("somebody's file is gone: %v", err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTree(t.Context(), "tree", filepath.Join(dir, "tree")); err != nil {
		t.Errorf("without the mount: %v", err)
	}
}
