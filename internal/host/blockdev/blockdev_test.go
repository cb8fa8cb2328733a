package blockdev

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

func TestNumbers(t *testing.T) {
	for _, s := range []string{"7:0", "253:12", "259:1048575"} {
		if dev, err := Parse(s); err != nil || Format(dev) != s {
			t.Errorf("%s: %d %v", s, dev, err)
		}
	}
	for _, s := range []string{"", "7", "7:", ":1", "a:b", "7:-1", "7:1:2", "99999999999:1"} {
		if dev, err := Parse(s); err == nil {
			t.Errorf("%q is taken for %d", s, dev)
		}
	}
	for _, path := range []string{"/dev/null", t.TempDir(), "/absent"} {
		if n, err := Number(path); err == nil {
			t.Errorf("%s is block device %s", path, n)
		}
	}
}

func TestMounts(t *testing.T) {
	const info = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n30 22 7:3 / /mnt/a rw shared:1 - ext4 /dev/loop3 rw\nshort 7:3\n\n"
	if got := mounts(info, "7:3"); !slices.Equal(got, []string{"mount /mnt/a"}) {
		t.Errorf("%q", got)
	}
	if got := mounts(info, "7:4"); got != nil {
		t.Errorf("%q", got)
	}
}

func TestNode(t *testing.T) {
	testhost.Need(t, testhost.Root)
	dir := filepath.Join(t.TempDir(), "mapper")
	path := filepath.Join(dir, "x")
	for range 2 {
		if err := EnsureNode(t.Context(), path, "7:0"); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := Number(path); n != "7:0" || err != nil {
		t.Errorf("%s %v", n, err)
	}
	if err := EnsureNode(t.Context(), path, "7:1"); err != nil {
		t.Error(err)
	}
	if n, err := Number(path); n != "7:1" || err != nil {
		t.Errorf("%s %v", n, err)
	}
	for range 2 {
		if err := RemoveNode(t.Context(), path); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v %v", left, err)
	}
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	if err := EnsureNode(t.Context(), path, "7:0"); err == nil {
		t.Error("a character device was replaced")
	}
	if err := RemoveNode(t.Context(), path); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("somebody's node is gone: %v", err)
	}
}
