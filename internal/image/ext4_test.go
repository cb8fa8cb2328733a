package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

// capNetRaw is the security.capability of Debian's ping.
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// oddTree has what goes wrong: each type of entry, bits, owners beyond 16 bits, attributes, hostile names.
func oddTree() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	when := time.Unix(1686355200, 0)
	add := func(h tar.Header, content string) {
		h.ModTime, h.Size, h.Format = when, int64(len(content)), tar.FormatPAX
		if err := errors.Join(w.WriteHeader(&h), second(w.Write([]byte(content)))); err != nil {
			panic(err) // a wrong test
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, "")
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755}, "")
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./usr/bin/", Mode: 0o755}, "")
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin", Mode: 0o777}, "")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./usr/bin/su", Mode: 0o4755}, "setuid")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./usr/bin/wall", Mode: 0o2755, Gid: 5}, "setgid")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./usr/bin/ping", Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": capNetRaw, "SCHILY.xattr.user.note": "hello",
	}}, "ping")
	add(tar.Header{Typeflag: tar.TypeLink, Name: "./usr/bin/ping4", Linkname: "./usr/bin/ping"}, "")
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./tmp/", Mode: 0o1777}, "")
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./closed/", Mode: 0, Uid: 70000, Gid: 70001}, "")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./closed/in", Mode: 0, Uid: 70000, Gid: 70001}, strings.Repeat("x", 1<<20))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./empty", Mode: 0o600, Uid: 1000, Gid: 1000}, "")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./with \"quotes\"\nand lines; rm -rf $HOME", Mode: 0o644}, "odd")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./" + strings.Repeat("n", 255), Mode: 0o644}, "long")
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "./absolute", Linkname: "/etc/passwd", Mode: 0o777}, "")
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "./far", Linkname: strings.Repeat("d/", 200), Mode: 0o777}, "")
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./dev/", Mode: 0o755}, "")
	add(tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, "")
	add(tar.Header{Typeflag: tar.TypeBlock, Name: "./dev/vda", Mode: 0o660, Devmajor: 254, Devminor: 300, Gid: 6}, "")
	add(tar.Header{Typeflag: tar.TypeFifo, Name: "./pipe", Mode: 0o600}, "")
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func second(_ int, err error) error { return err }

func TestRootDiskHoldsWhatTheTarHolds(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.Loop, testhost.Ext4)
	testhost.Leaks(t)
	dir := testhost.Dir(t)
	tarPath, tree, root := filepath.Join(dir, "odd.tar"), filepath.Join(dir, "tree"), filepath.Join(dir, "root.ext4")
	if err := errors.Join(os.WriteFile(tarPath, oddTree(), 0o600), os.Mkdir(tree, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unpack(t.Context(), bytes.NewReader(oddTree()), tree); err != nil {
		t.Fatal(err)
	}
	if err := format(t.Context(), tree, root); err != nil {
		t.Fatal(err)
	}
	fsck(t, root)
	mnt := mount(t, root)
	if seen := compare(t, tarPath, mnt); len(seen) != 20 {
		t.Errorf("compared %d entries, want 20", len(seen))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(mnt, &st); err != nil {
		t.Fatal(err)
	}
	if st.Files < 500_000 {
		t.Errorf("root disk has %d inodes, want half a million for 8 GiB", st.Files)
	}
}

func fsck(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.Command("/usr/sbin/e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck %s: %v\n%s", path, err, out)
	}
}

// mount mounts an ext4 file read-only and without a look at its journal.
func mount(t *testing.T, path string) string {
	t.Helper()
	mnt := filepath.Join(testhost.Dir(t), "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop,ro,noload", path, mnt).CombinedOutput(); err != nil {
		t.Fatalf("mount %s: %v: %s", path, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", mnt, err, out)
		}
	})
	return mnt
}

// compare checks each entry of the tar against the directory, and the directory for entries beyond it. It returns the
// names, as paths below the root.
func compare(t *testing.T, tarPath, dir string) map[string]bool {
	t.Helper()
	f, err := os.Open(tarPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	seen := map[string]bool{}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		seen[filepath.Clean(h.Name)] = true
		compareEntry(t, h, r, dir)
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if !seen[rel] && rel != "lost+found" && rel != "." {
			t.Errorf("%s is not in the tar", rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return seen
}

func compareEntry(t *testing.T, h *tar.Header, content io.Reader, dir string) {
	t.Helper()
	path := filepath.Join(dir, h.Name)
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Errorf("%q: %v", h.Name, err)
		return
	}
	types := map[byte]uint32{
		tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK,
		tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO,
	}
	if h.Typeflag == tar.TypeLink {
		var other syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(dir, h.Linkname), &other); err != nil || other.Ino != st.Ino {
			t.Errorf("%q is no hard link to %q (%v)", h.Name, h.Linkname, err)
		}
		return
	}
	if want := types[h.Typeflag] | uint32(h.Mode&0o7777); st.Mode != want {
		t.Errorf("%q: mode %o, want %o", h.Name, st.Mode, want)
	}
	if int(st.Uid) != h.Uid || int(st.Gid) != h.Gid {
		t.Errorf("%q: owner %d:%d, want %d:%d", h.Name, st.Uid, st.Gid, h.Uid, h.Gid)
	}
	if h.Typeflag != tar.TypeDir && st.Mtim.Sec != h.ModTime.Unix() {
		t.Errorf("%q: mtime %d, want %d", h.Name, st.Mtim.Sec, h.ModTime.Unix())
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		if got, err := os.Readlink(path); err != nil || got != h.Linkname {
			t.Errorf("%q: links to %q, want %q (%v)", h.Name, got, h.Linkname, err)
		}
	case tar.TypeChar, tar.TypeBlock:
		if want := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)); st.Rdev != want {
			t.Errorf("%q: device %x, want %x", h.Name, st.Rdev, want)
		}
	case tar.TypeReg:
		if got, want := digestOf(t, path), sum(t, content); got != want {
			t.Errorf("%q: content differs", h.Name)
		}
	}
	compareXattrs(t, h, path)
}

func compareXattrs(t *testing.T, h *tar.Header, path string) {
	t.Helper()
	want := map[string]string{}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			want[name] = v
		}
	}
	var names, value [65536]byte
	n, err := unix.Llistxattr(path, names[:])
	if err != nil {
		t.Errorf("%q: list xattrs: %v", h.Name, err)
		return
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" {
			continue
		}
		m, err := unix.Lgetxattr(path, name, value[:])
		if err != nil || string(value[:m]) != want[name] {
			t.Errorf("%q: xattr %s is %q, want %q (%v)", h.Name, name, value[:m], want[name], err)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%q: xattr %s is missing", h.Name, name)
	}
}

func digestOf(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return [sha256.Size]byte{}
	}
	defer func() { _ = f.Close() }()
	return sum(t, f)
}

func sum(t *testing.T, r io.Reader) [sha256.Size]byte {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Error(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
