package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

const devnames = `# Device nodes to trigger on-demand module loading.
fuse fuse c10:229
tun net/tun c10:200
loop loop-control c10:237
pktcdvd pktcdvd/control b10:3
broken nonumber c10
broken kind 10:1
broken big c4096:1
broken big c10:1048576
broken ../escape c10:1
broken /etc/absolute c10:1
broken a/../b c10:1
broken . c10:1
short c10:1
`

func TestParseDevnames(t *testing.T) {
	want := []deviceNode{
		{"fuse", unix.S_IFCHR, 10, 229}, {"net/tun", unix.S_IFCHR, 10, 200},
		{"loop-control", unix.S_IFCHR, 10, 237}, {"pktcdvd/control", unix.S_IFBLK, 10, 3},
	}
	if got := parseDevnames(devnames); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseDevnames(f *testing.F) {
	f.Add(devnames)
	f.Fuzz(func(t *testing.T, list string) {
		for _, n := range parseDevnames(list) {
			if !filepath.IsLocal(n.name) || n.name == "." || strings.Contains(n.name, "\x00") || n.kind != unix.S_IFCHR && n.kind != unix.S_IFBLK {
				t.Errorf("%+v", n)
			}
		}
	})
}

func TestMakeDeviceNodes(t *testing.T) {
	testhost.Need(t, testhost.Root)
	dev, modules := t.TempDir(), sysTree(t, map[string]string{"modules.devname": devnames})
	// One is there already, as of a module that was loaded before: only root's.
	if err := unix.Mknod(filepath.Join(dev, "fuse"), unix.S_IFCHR|0o600, int(unix.Mkdev(10, 229))); errors.Is(err, unix.EPERM) {
		t.Skipf("needs to make device nodes: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := makeDeviceNodes(dev, modules); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]struct {
		mode         os.FileMode
		major, minor uint32
	}{
		"fuse": {0o666, 10, 229}, "net/tun": {0o666, 10, 200}, "loop-control": {0o600, 10, 237}, "pktcdvd/control": {0o600, 10, 3},
	} {
		fi, err := os.Lstat(filepath.Join(dev, name))
		if err != nil {
			t.Error(err)
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dev, name), &st); err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != want.mode || st.Rdev != unix.Mkdev(want.major, want.minor) {
			t.Errorf("%s: %v, %d:%d", name, fi.Mode(), unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
	}
	// A kernel that has it built in lists nothing, and makes the node for root.
	must(t, os.Chmod(filepath.Join(dev, "fuse"), 0o600), makeDeviceNodes(dev, t.TempDir()))
	if fi, err := os.Lstat(filepath.Join(dev, "fuse")); err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("built in: %v, %v", fi.Mode(), err)
	}
}
