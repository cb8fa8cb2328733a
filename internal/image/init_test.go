package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"banger/internal/host/ext4"
	"banger/internal/testhost"
)

// TestInit: of a tree and of a disk with the same content it is the same.
func TestInit(t *testing.T) {
	testhost.Need(t, testhost.Ext4)
	for name, c := range map[string]struct {
		links map[string]string // to nothing, but for their names
		want  string
	}{
		"none":                   {nil, ""},
		"systemd":                {map[string]string{"sbin/init": "/lib/systemd/systemd"}, "/sbin/init"},
		"busybox of a container": {map[string]string{"sbin/init": "/bin/busybox"}, ""},
		"busybox with openrc":    {map[string]string{"sbin/init": "/bin/busybox", "sbin/openrc": "x"}, "/sbin/init"},
		"busybox with rcS":       {map[string]string{"sbin/init": "../bin/busybox", "etc/init.d/rcS": "x"}, "/sbin/init"},
	} {
		dir := t.TempDir()
		tree, disk := filepath.Join(dir, "tree"), filepath.Join(dir, "disk")
		if err := os.MkdirAll(filepath.Join(tree, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		for at, to := range c.links {
			at = filepath.Join(tree, at)
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(to, at); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := initOf(tree); err != nil || got != c.want {
			t.Errorf("%s: of the tree %q, %v, want %q", name, got, err, c.want)
		}
		program, err := ext4.Program()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(disk, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(disk, 16<<20); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(program, ext4.Args(disk, "x", tree)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got, err := initOn(t.Context(), disk); err != nil || got != c.want {
			t.Errorf("%s: of the disk %q, %v, want %q", name, got, err, c.want)
		}
	}
}
