package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testMark is one that an ordinary user may set.
const testMark = "user.banger.seed"

func seedTest(t *testing.T) (image, disk string) {
	t.Helper()
	image = sysTree(t, map[string]string{".bashrc": "rc", ".config/app/x": "deep"})
	old := time.Unix(1e9, 0)
	must(t, os.Symlink("/etc/passwd", filepath.Join(image, "link")), os.Chmod(filepath.Join(image, ".bashrc"), 0o640),
		os.Chtimes(filepath.Join(image, ".config"), old, old), os.Chmod(image, 0o700), os.Chtimes(image, old, old))
	disk = t.TempDir()
	must(t, os.MkdirAll(filepath.Join(disk, "lost+found"), 0o700))
	return image, disk
}

// marks skips the test where the file system takes no attributes.
func marks(t *testing.T, disk string) {
	t.Helper()
	if err := unix.Setxattr(disk, "user.banger.try", []byte("x"), 0); errors.Is(err, unix.ENOTSUP) {
		t.Skipf("needs extended attributes in %s: %v", disk, err)
	}
}

// checkSeeded wants everything of seedTest's image in disk.
func checkSeeded(t *testing.T, disk string) {
	t.Helper()
	if b, _ := os.ReadFile(filepath.Join(disk, ".config/app/x")); string(b) != "deep" {
		t.Errorf("deep file holds %q", b)
	}
	if l, _ := os.Readlink(filepath.Join(disk, "link")); l != "/etc/passwd" {
		t.Errorf("link to %q", l)
	}
	if st, err := os.Stat(filepath.Join(disk, ".bashrc")); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st, err)
	}
	for _, dir := range []string{disk, filepath.Join(disk, ".config")} {
		if st, err := os.Stat(dir); err != nil || st.ModTime().Unix() != 1e9 {
			t.Errorf("%s is of %v, %v", dir, st.ModTime(), err)
		}
	}
	if st, _ := os.Stat(disk); st.Mode().Perm() != 0o700 {
		t.Errorf("mode of the top %v", st.Mode())
	}
}

func TestSeed(t *testing.T) {
	image, disk := seedTest(t)
	must(t, seed(t.Context(), image, disk, testMark))
	checkSeeded(t, disk)
	// A disk that has been used is left alone.
	must(t, os.Remove(filepath.Join(disk, ".bashrc")))
	must(t, seed(t.Context(), image, disk, testMark))
	if _, err := os.Stat(filepath.Join(disk, ".bashrc")); err == nil {
		t.Error("what the user removed came back")
	}
}

func TestSeedKeepsAttributes(t *testing.T) {
	image, disk := seedTest(t)
	marks(t, disk)
	for _, file := range []string{image, filepath.Join(image, ".bashrc")} {
		must(t, unix.Setxattr(file, "user.test", []byte("a\x00b"), 0))
	}
	must(t, seed(t.Context(), image, disk, testMark))
	for _, file := range []string{disk, filepath.Join(disk, ".bashrc")} {
		if x, err := xattrs(file); err != nil || x[xattrPrefix+"user.test"] != "a\x00b" {
			t.Errorf("%s: %q, %v", file, x, err)
		}
	}
}

// A guest that is killed in its first boot finds the whole of the image's home in its second.
func TestSeedThatWasCutOff(t *testing.T) {
	image, disk := seedTest(t)
	marks(t, disk)
	broken := sysTree(t, map[string]string{".bashrc": "half", ".config/app": "not yet a directory", "zz": "last"})
	_, err := copyTree(t.Context(), broken, disk)
	must(t, err, setMark(disk, testMark, seedBegun))
	must(t, seed(t.Context(), image, disk, testMark))
	checkSeeded(t, disk)
	if _, err := os.Stat(filepath.Join(disk, "zz")); err == nil {
		t.Error("something of the first try is left")
	}
	if _, err := os.Stat(filepath.Join(disk, "lost+found")); err != nil {
		t.Error(err)
	}
}

func TestSeedLeavesTheUsersAlone(t *testing.T) {
	for name, prepare := range map[string]func(disk string){
		"emptied": func(disk string) {
			must(t, setMark(disk, testMark, seedDone))
		},
		"used before there were marks, then emptied": func(disk string) {
			mine := filepath.Join(disk, "mine")
			must(t, os.WriteFile(mine, nil, 0o600), seed(t.Context(), t.TempDir(), disk, testMark), os.Remove(mine))
		},
	} {
		t.Run(name, func(t *testing.T) {
			image, disk := seedTest(t)
			marks(t, disk)
			prepare(disk)
			must(t, seed(t.Context(), image, disk, testMark))
			if entries, err := os.ReadDir(disk); err != nil || len(entries) != 1 {
				t.Errorf("holds %v, %v", entries, err)
			}
		})
	}
}

// Our marks are no part of a tree that is copied.
func TestMarksStayWhereTheyAre(t *testing.T) {
	dir := t.TempDir()
	if err := setMark(dir, seedMark, seedDone); errors.Is(err, unix.EPERM) {
		t.Skipf("needs root: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if x, err := xattrs(dir); err != nil || len(x) != 0 {
		t.Errorf("%q, %v", x, err)
	}
}
