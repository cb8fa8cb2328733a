package tarcopy

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		src    string
		dir    bool
		dst    string
		kind   Kind
		want   Target
		refuse string
	}{
		{"/a/f", false, "/b", Missing, Target{"/", "b"}, ""},
		{"/a/f", false, "/b/", Missing, Target{}, "does not exist"},
		{"/a/f", false, "/b/.", Missing, Target{}, "does not exist"},
		{"/a/f", false, "/b/.", File, Target{}, "/b is not a directory"},
		{"/a/f", false, "/b/.", Dir, Target{"/b", "f"}, ""},
		{"/a/f", false, "/b", File, Target{"/", "b"}, ""},
		{"/a/f", false, "/b/", File, Target{}, "not a directory"},
		{"/a/f", false, "/b", Dir, Target{"/b", "f"}, ""},
		{"/a/f", false, "/b/", Dir, Target{"/b", "f"}, ""},
		{"f", false, ".", Dir, Target{".", "f"}, ""},
		{"f", false, "g", Missing, Target{".", "g"}, ""},
		{"/a/f/", false, "/b", Dir, Target{}, "/a/f is not a directory"},
		{"/a/f/.", false, "/b", Dir, Target{}, "/a/f is not a directory"},
		{"/a/d", true, "/b", Missing, Target{"/", "b"}, ""},
		{"/a/d", true, "/b/", Missing, Target{"/", "b"}, ""},
		{"/a/d/.", true, "/b", Missing, Target{"/", "b"}, ""},
		{"/a/d", true, "/b", File, Target{}, "but the source is one"},
		{"/a/d", true, "/b", Dir, Target{"/b", "d"}, ""},
		{"/a/d/", true, "/b", Dir, Target{"/b", "d"}, ""},
		{"/a/d/.", true, "/b", Dir, Target{"/b", Contents}, ""},
		{".", true, "/b", Dir, Target{"/b", Contents}, ""},
		{"/", true, "/b", Dir, Target{"/b", Contents}, ""},
	} {
		got, err := Resolve(c.src, c.dir, c.dst, c.kind)
		if got != c.want || (err != nil) != (c.refuse != "") || err != nil && !strings.Contains(err.Error(), c.refuse) {
			t.Errorf("Resolve(%q, %v, %q, %v) = %v, %v; want %v %q", c.src, c.dir, c.dst, c.kind, got, err, c.want, c.refuse)
		}
	}
}

// tree makes a directory with one of each kind and returns it.
func tree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	check(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "sub", "f"), []byte("content"), 0o644))
	check(t, os.Chmod(filepath.Join(dir, "sub", "f"), 0o4751|fs.ModeSetuid))
	check(t, os.Chtimes(filepath.Join(dir, "sub", "f"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
	check(t, os.Symlink("sub/f", filepath.Join(dir, "link")))
	check(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	check(t, os.Chmod(filepath.Join(dir, "sub"), 0o555)) // last: nothing can be made below it
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "sub"), 0o755) })
	return dir
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestThereAndBack(t *testing.T) {
	src, dst := tree(t), t.TempDir()
	var stream bytes.Buffer
	var left []string
	check(t, Pack(context.Background(), &stream, src, "sent", Options{Warn: func(p string) { left = append(left, p) }}))
	if len(left) != 1 || filepath.Base(left[0]) != "fifo" {
		t.Errorf("left out %v, want the fifo", left)
	}
	sub := filepath.Join(dst, "got", "sub")
	check(t, Unpack(bytes.NewReader(stream.Bytes()), Target{dst, "got"}, Options{}))
	if fi, err := os.Stat(sub); err != nil || fi.Mode().Perm() != 0o555 {
		t.Errorf("directory: %v, %v", fi.Mode(), err)
	}
	check(t, os.Chmod(sub, 0o755)) // else only root can write into it a second time
	check(t, Unpack(bytes.NewReader(stream.Bytes()), Target{dst, "got"}, Options{}))
	b, err := os.ReadFile(filepath.Join(dst, "got", "link"))
	if err != nil || string(b) != "content" {
		t.Errorf("through the link: %q, %v", b, err)
	}
	fi, err := os.Stat(filepath.Join(dst, "got", "sub", "f"))
	check(t, err)
	if fi.Mode() != 0o751 || !fi.ModTime().Equal(time.Unix(1e9, 0)) {
		t.Errorf("mode %v, time %v; the set-id bit of a guest's file must not come along", fi.Mode(), fi.ModTime())
	}
	if fi, err := os.Stat(sub); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("directory merged into: %v, %v", fi.Mode(), err)
	}
	noTemps(t, dst)
}

// Names are bytes: Linux asks no more of them than that they hold neither "/" nor NUL.
func TestNamesThatAreNoText(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	names := []string{"latin-\xfc", "two\nlines", "\xff\xfe", "..."}
	for _, name := range names {
		check(t, os.WriteFile(filepath.Join(src, name), []byte(name), 0o644))
	}
	check(t, os.Link(filepath.Join(src, names[0]), filepath.Join(src, "latin-\xfc-2")))
	var stream bytes.Buffer
	check(t, Pack(t.Context(), &stream, src, "sent", Options{}))
	check(t, Unpack(&stream, Target{dst, "got"}, Options{}))
	for _, name := range append(names, "latin-\xfc-2") {
		b, err := os.ReadFile(filepath.Join(dst, "got", name))
		check(t, err)
		if !strings.HasPrefix(name, string(b)) {
			t.Errorf("%q holds %q", name, b)
		}
	}
}

// A tree that is in use loses files while it is packed: those are not in the copy, and all others are.
func TestWhatGoesMeanwhile(t *testing.T) {
	src := t.TempDir()
	check(t, os.Mkdir(filepath.Join(src, "b"), 0o755))
	for _, name := range []string{"a", "b/x", "c", "d"} {
		check(t, os.WriteFile(filepath.Join(src, name), []byte("content"), 0o644))
	}
	var stream bytes.Buffer
	first := true
	check(t, Pack(t.Context(), writerFunc(func(b []byte) (int, error) {
		if first { // a's header: what is in src was listed before
			first = false
			check(t, errors.Join(os.RemoveAll(filepath.Join(src, "b")), os.Remove(filepath.Join(src, "c"))))
		}
		return stream.Write(b)
	}), src, Contents, Options{}))
	var names []string
	for tr := tar.NewReader(&stream); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		names = append(names, h.Name)
	}
	if !slices.Equal(names, []string{"a", "d"}) {
		t.Errorf("the stream has %q, want a and d", names)
	}
	if err := Pack(t.Context(), io.Discard, filepath.Join(src, "c"), "c", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was asked for and is not there: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// What has several names has them in the copy too, and is sent once.
func TestHardLinksOfACopy(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	check(t, os.WriteFile(filepath.Join(src, "a"), bytes.Repeat([]byte("a"), 1<<20), 0o644))
	check(t, os.Link(filepath.Join(src, "a"), filepath.Join(src, "b")))
	for _, name := range []string{"got", Contents} {
		var stream bytes.Buffer
		check(t, Pack(t.Context(), &stream, src, name, Options{}))
		if stream.Len() > 3<<19 {
			t.Errorf("%s: %d bytes were sent of 1 MiB", name, stream.Len())
		}
		if name == Contents {
			continue // this end unpacks what has a top
		}
		check(t, Unpack(&stream, Target{dst, name}, Options{}))
		fi, err := os.Stat(filepath.Join(dst, name, "b"))
		check(t, err)
		if links(fi) != 2 || fi.Size() != 1<<20 {
			t.Errorf("%s: %d names, %d bytes", name, links(fi), fi.Size())
		}
	}
}

func TestArchiveKeepsSetIDBits(t *testing.T) {
	src, dst := tree(t), t.TempDir()
	var stream bytes.Buffer
	check(t, Pack(context.Background(), &stream, filepath.Join(src, "sub", "f"), "f", Options{Owner: true}))
	check(t, Unpack(&stream, Target{dst, "f"}, Options{Owner: true}))
	if fi, err := os.Stat(filepath.Join(dst, "f")); err != nil || fi.Mode() != 0o751|fs.ModeSetuid {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

// Attributes of users go along with -a, and no others; without it none do.
func TestAttributes(t *testing.T) {
	src, dst := tree(t), t.TempDir()
	file := filepath.Join(src, "sub", "f")
	for _, path := range []string{file, src} {
		if err := unix.Setxattr(path, "user.color", []byte("a\x00b"), 0); err != nil {
			t.Skipf("the temporary directory's file system has no extended attributes: %v", err)
		}
	}
	if os.Geteuid() == 0 {
		check(t, unix.Setxattr(file, "trusted.mine", []byte("x"), 0))
	}
	get := func(path, name string) string {
		value := make([]byte, 64)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return err.Error()
		}
		return string(value[:n])
	}
	const none = "no data available"
	for name, c := range map[string]struct {
		pack, unpack Options
		want         string
	}{
		"with": {Options{Owner: true}, Options{Owner: true}, "a\x00b"}, "not sent": {Options{}, Options{Owner: true}, none}, "not wanted": {Options{Owner: true}, Options{}, none},
	} {
		var stream bytes.Buffer
		check(t, Pack(context.Background(), &stream, src, name, c.pack))
		check(t, Unpack(&stream, Target{dst, name}, c.unpack))
		for _, path := range []string{"sub/f", "."} {
			if got := get(filepath.Join(dst, name, path), "user.color"); got != c.want {
				t.Errorf("%s: of %s %q, want %q", name, path, got, c.want)
			}
		}
		if got := get(filepath.Join(dst, name, "sub/f"), "trusted.mine"); got != none {
			t.Errorf("%s: another's attribute came along: %q", name, got)
		}
		check(t, os.Chmod(filepath.Join(dst, name, "sub"), 0o755))
	}
	// A guest that sends what is not to be carried.
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	check(t, w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o600, Uid: os.Geteuid(), Gid: os.Getegid(), PAXRecords: map[string]string{"SCHILY.xattr.trusted.theirs": "x", "SCHILY.xattr.user.good": "y"}}))
	check(t, w.Close())
	check(t, Unpack(&stream, Target{dst, "f"}, Options{Owner: true}))
	if got := get(filepath.Join(dst, "f"), "trusted.theirs"); got != none {
		t.Errorf("a guest's: %q", got)
	}
	if got := get(filepath.Join(dst, "f"), "user.good"); got != "y" {
		t.Errorf("a guest's of users: %q", got)
	}
}

// What is zeros in the stream is a hole in the file.
func TestHolesOfACopy(t *testing.T) {
	src, dst := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	check(t, os.WriteFile(src, []byte("begin"), 0o600))
	check(t, os.Truncate(src, 16<<20))
	var stream bytes.Buffer
	check(t, Pack(context.Background(), &stream, src, "disk", Options{}))
	check(t, Unpack(&stream, Target{dst, "disk"}, Options{}))
	fi, err := os.Stat(filepath.Join(dst, "disk"))
	check(t, err)
	if takes := fi.Sys().(*syscall.Stat_t).Blocks * 512; fi.Size() != 16<<20 || takes > 1<<20 {
		t.Errorf("%d bytes, of which %d are on the disk", fi.Size(), takes)
	}
}

func TestPackGivesToRoot(t *testing.T) {
	src := tree(t)
	if os.Geteuid() == 0 {
		check(t, os.Lchown(filepath.Join(src, "link"), 1234, 1234))
	}
	var stream bytes.Buffer
	check(t, Pack(context.Background(), &stream, src, Contents, Options{}))
	names := map[string]bool{}
	for tr := tar.NewReader(&stream); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		names[h.Name] = true
		if h.Mode&0o6000 != 0 {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s belongs to %d:%d %q:%q", h.Name, h.Uid, h.Gid, h.Uname, h.Gname)
		}
	}
	if len(names) != 3 || !names["sub/"] || !names["sub/f"] || !names["link"] {
		t.Errorf("entries %v", names)
	}
}

func noTemps(t *testing.T, dir string) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(p), ".banger-cp-") {
			t.Errorf("%s is left", p)
		}
		return err
	}))
}

// TestBrokenOff: what was there stays whole when a copy breaks off.
func TestBrokenOff(t *testing.T) {
	dst := t.TempDir()
	file := filepath.Join(dst, "f")
	check(t, os.WriteFile(file, []byte("old"), 0o644))
	whole := archive(t, "f")
	for _, n := range []int{0, 100, 512, 514} {
		if err := Unpack(bytes.NewReader(whole[:n]), Target{dst, "f"}, Options{}); err == nil {
			t.Errorf("%d bytes of %d are taken for the whole", n, len(whole))
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != "old" {
			t.Errorf("after %d bytes the file holds %q, %v", n, b, err)
		}
		noTemps(t, dst)
	}
}

func TestDirectoryOverFile(t *testing.T) {
	dst := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dst, "got"), nil, 0o644))
	if err := Unpack(bytes.NewReader(archive(t, "d/", "d/a")), Target{dst, "got"}, Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a directory over a file: %v", err)
	}
	check(t, os.Remove(filepath.Join(dst, "got")))
	check(t, os.Mkdir(filepath.Join(dst, "got"), 0o755))
	if err := Unpack(bytes.NewReader(archive(t, "f")), Target{dst, "got"}, Options{}); err == nil {
		t.Error("a file replaced a directory")
	}
}

func TestPackStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Pack(ctx, io.Discard, t.TempDir(), "d", Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestDisown(t *testing.T) {
	var in, out bytes.Buffer
	w := tar.NewWriter(&in)
	check(t, w.WriteHeader(&tar.Header{Name: "f", Uid: 1000, Gid: 1000, Uname: "me", Gname: "us", Size: 2, Mode: 0o7600,
		PAXRecords: map[string]string{xattrPrefix + "user.note": "n", xattrPrefix + "security.capability": "c", "comment": "kept"}}))
	io.WriteString(w, "hi")
	w.Close()
	check(t, Disown(&out, &in))
	r := tar.NewReader(&out)
	h, err := r.Next()
	check(t, err)
	if b, err := io.ReadAll(r); h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Mode != 0o1600 || string(b) != "hi" {
		t.Errorf("%+v %q %v", h, b, err)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, xattrPrefix) {
			t.Errorf("%s is kept", key)
		}
	}
	if h.PAXRecords["comment"] != "kept" {
		t.Errorf("what is no attribute is lost: %q", h.PAXRecords)
	}
	if err := Disown(io.Discard, strings.NewReader("this is no tar stream")); err == nil {
		t.Error("what is no tar stream is accepted")
	}
}
