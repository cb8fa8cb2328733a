package tarcopy

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// archive makes a tar stream. A name that ends with "/" is a directory, "a -> b" a symbolic link, "a => b" a hard one.
func archive(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: 4}
		if from, to, ok := strings.Cut(name, " -> "); ok {
			h = &tar.Header{Name: from, Linkname: to, Typeflag: tar.TypeSymlink}
		} else if from, to, ok := strings.Cut(name, " => "); ok {
			h = &tar.Header{Name: from, Linkname: to, Typeflag: tar.TypeLink}
		} else if strings.HasSuffix(name, "/") {
			h = &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, "evil")
		}
	}
	w.Close()
	return b.Bytes()
}

// user makes what lies beside and in the directory a copy goes into, and returns the outer directory and that one.
func user(t testing.TB) (outer, dst string) {
	t.Helper()
	outer = t.TempDir()
	dst = filepath.Join(outer, "a", "b")
	check(t, os.MkdirAll(filepath.Join(dst, "merged", "kept"), 0o755))
	check(t, os.Chmod(filepath.Join(dst, "merged", "kept"), 0o751))
	for _, name := range []string{"secret", "a/secret", "a/b/secret", "a/b/merged/kept/f"} {
		check(t, os.WriteFile(filepath.Join(outer, name), []byte("mine"), 0o600))
	}
	check(t, os.Symlink("../..", filepath.Join(dst, "merged", "up")))
	check(t, os.Symlink("secret", filepath.Join(dst, "merged", "elsewhere")))
	return outer, dst
}

// outside lists everything in outer but what is at or below dst/name: path, mode, time, number of names and content.
func outside(t testing.TB, outer, spare string) string {
	t.Helper()
	var b strings.Builder
	check(t, filepath.WalkDir(outer, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == spare {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		content, _ := os.ReadFile(p)
		if d.IsDir() {
			fmt.Fprintln(&b, p, fi.Mode()) // its time changes with what is spared
		} else {
			fmt.Fprintln(&b, p, fi.Mode(), fi.ModTime(), links(fi), string(content))
		}
		return nil
	}))
	return b.String()
}

func links(fi fs.FileInfo) uint64 { return fi.Sys().(*syscall.Stat_t).Nlink }

// TestNothingLeavesTheTarget: a guest that lies cannot write anywhere but at and below the one name that was asked for.
func TestNothingLeavesTheTarget(t *testing.T) {
	for _, c := range []struct {
		name  string // of the target
		names []string
	}{
		{"got", []string{"d/", "../evil"}},
		{"got", []string{"d/", "d/../../evil"}},
		{"got", []string{"d/", "/evil"}},
		{"got", []string{"d/", "other/evil"}},
		{"got", []string{"./", "../evil"}},
		{"got", []string{"d/", "d/out -> ../..", "d/out/evil"}},
		{"got", []string{"d/", "d/out -> /", "d/out/tmp/evil"}},
		{"got", []string{"d/", "d/h => ../../secret"}},
		{"got", []string{"d/", "d/h => /etc/passwd"}},
		{"got", []string{"d -> ..", "d/evil"}},
		{"got", []string{"d/", "d/l -> ..", "d/l/evil"}},
		{"got", []string{"d/", "d/l -> ..", "d/l/evil/"}},
		{"got", []string{"d/", "d/l -> ..", "d/l/secret"}},
		{"got", []string{"d/", "d/l -> ..", "d/l/evil -> x"}},
		{"got", []string{"d/", "d/l -> ..", "d/h => d/l/secret"}},
		{"got", []string{"d/", "d/a", "d/l -> ..", "d/l/evil => d/a"}},
		{"got", []string{"d/", "d/l -> .", "d/m -> l/..", "d/m/evil"}},
		{"got", []string{"d/", "d/s/", "d/s/l -> ../..", "d/s/l/evil"}},
		{"got", []string{"d/", "d/l -> ..", "d/l/secret/"}},
		{"got", []string{"d/", "d"}},
		{"got", []string{"d/", "d -> .."}},
		{"got", []string{"d/", "d/a", "d => d/a"}},
		{"got", []string{"d -> .", "d/secret"}},
		{"got", []string{"d", "d -> .."}},
		{"got", []string{"d", "d/evil"}},
		{"got", []string{"d => d"}},
		{"got", []string{"d => secret"}},
		{"merged", []string{"d/", "d/up/evil"}},
		{"merged", []string{"d/", "d/up/secret"}},
		{"merged", []string{"d/", "d/h => d/up/secret"}},
		{"merged", []string{"d/", "d/kept"}},
		{Contents, []string{"d", "d/evil"}},
		{Contents, []string{"d -> /", "d/evil"}},
		{Contents, []string{"d/", "d/l -> ..", "d/l/evil"}},
		{Contents, []string{"d/", "d/l -> ..", "d/h => d/l/secret"}},
	} {
		outer, dst := user(t)
		spare := filepath.Join(dst, c.name)
		before := outside(t, outer, spare)
		if err := Unpack(bytes.NewReader(archive(t, c.names...)), Target{dst, c.name}, Options{}); err == nil {
			t.Errorf("%s: %q is accepted", c.name, c.names)
		}
		if after := outside(t, outer, spare); after != before {
			t.Errorf("%s: %q changed what is the user's:\n%s\nbefore:\n%s", c.name, c.names, after, before)
		}
		noTemps(t, outer)
	}
}

// TestMerge: over a directory of the user's, entries are replaced, links of the user's are not written through, and
// modes and times of directories stay as they are.
func TestMerge(t *testing.T) {
	outer, dst := user(t)
	check(t, Unpack(bytes.NewReader(archive(t, "d/", "d/kept/", "d/kept/f", "d/elsewhere", "d/up")), Target{dst, "merged"}, Options{}))
	for _, name := range []string{"kept/f", "elsewhere", "up"} {
		fi, err := os.Lstat(filepath.Join(dst, "merged", name))
		if err != nil || !fi.Mode().IsRegular() || fi.Size() != 4 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if fi, err := os.Stat(filepath.Join(dst, "merged", "kept")); err != nil || fi.Mode().Perm() != 0o751 {
		t.Errorf("the user's directory has mode %v, %v", fi.Mode(), err)
	}
	for _, name := range []string{"secret", "a/secret", "a/b/secret"} {
		if b, err := os.ReadFile(filepath.Join(outer, name)); string(b) != "mine" {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
}

// TestModeOfAnotherDirectory: a directory made through a link gets its mode at the end; by then the link may lead to
// one of the user's.
func TestModeOfAnotherDirectory(t *testing.T) {
	_, dst := user(t)
	check(t, os.MkdirAll(filepath.Join(dst, "merged", "mine", "sub"), 0o755))
	check(t, os.Chmod(filepath.Join(dst, "merged", "mine", "sub"), 0o700))
	stream := archive(t, "d/", "d/a/", "d/l -> a", "d/l/sub/", "d/l -> mine")
	if err := Unpack(bytes.NewReader(stream), Target{dst, "merged"}, Options{}); err == nil {
		t.Error("accepted")
	}
	if fi, err := os.Stat(filepath.Join(dst, "merged", "mine", "sub")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the user's directory has mode %v, %v", fi.Mode(), err)
	}
}

// TestHeaders: what else a header can ask for.
func TestHeaders(t *testing.T) {
	top := tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o7777, ModTime: time.Unix(1e9, 0)}
	for name, c := range map[string]struct {
		h      tar.Header
		refuse string
	}{
		"block device":     {tar.Header{Name: "d/x", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666}, ""},
		"character device": {tar.Header{Name: "d/x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1, Mode: 0o666}, ""},
		"fifo":             {tar.Header{Name: "d/x", Typeflag: tar.TypeFifo, Mode: 0o666}, ""},
		"no such type":     {tar.Header{Name: "d/x", Typeflag: 'Z'}, ""},
		"set-id file":      {tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o6755}, ""},
		"set-id directory": {tar.Header{Name: "d/s/", Typeflag: tar.TypeDir, Mode: 0o7777}, ""},
		"of another user":  {tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Uid: 12345, Gid: 12345, Mode: 0o644}, ""},
		"a longer path":    {tar.Header{Name: "d/" + strings.Repeat("x/", 3000), Typeflag: tar.TypeDir, Mode: 0o755}, "longer than"},
		"more than is sent": {tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Size: 1 << 60, Mode: 0o644},
			"unexpected EOF"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		check(t, w.WriteHeader(&top))
		check(t, w.WriteHeader(&c.h))
		if c.h.Size == 0 {
			check(t, w.Close())
		}
		dst := t.TempDir()
		var left []string
		err := Unpack(&b, Target{dst, "got"}, Options{Warn: func(p string) { left = append(left, p) }})
		if (err != nil) != (c.refuse != "") || err != nil && !strings.Contains(err.Error(), c.refuse) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Join(dst, "got", "x")); err == nil || strings.HasPrefix(c.h.Name, "d/x") && c.refuse == "" && len(left) != 1 {
			t.Errorf("%s: made, or not told: %q", name, left)
		}
		noTemps(t, dst)
		check(t, filepath.WalkDir(dst, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			if fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 || int(fi.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
				t.Errorf("%s: %s is %v of %d", name, p, fi.Mode(), fi.Sys().(*syscall.Stat_t).Uid)
			}
			return nil
		}))
		if fi, err := os.Stat(filepath.Join(dst, "got")); c.refuse == "" && (err != nil || !fi.ModTime().Equal(top.ModTime) || fi.Mode().Perm() != 0o777) {
			t.Errorf("%s: the top is %v, %v", name, fi, err)
		}
	}
}

// sparse is a stream whose one file claims 1 TiB of holes in a few blocks, as GNU tar's format 1.0 has it.
func sparseEntry(t testing.TB) []byte {
	t.Helper()
	// The writer does not make such, so the records are those of a file with names of the same length, changed afterwards.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 512, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"XXX.sparse.major": "1", "XXX.sparse.minor": "0", "XXX.sparse.name": "f", "XXX.sparse.realsize": "1099511627776",
	}}))
	_, err := w.Write(append([]byte("1\n1099511627776\n0\n"), make([]byte, 512-len("1\n1099511627776\n0\n"))...))
	check(t, err)
	check(t, w.Close())
	return bytes.ReplaceAll(b.Bytes(), []byte("XXX.sparse"), []byte("GNU.sparse"))
}

// TestSparse: a guest's agent sends no sparse files, and in one, a few bytes claim to be any number.
func TestSparse(t *testing.T) {
	h, err := tar.NewReader(bytes.NewReader(sparseEntry(t))).Next()
	if err != nil || h.Size != 1<<40 {
		t.Fatalf("the stream is not what it is meant to be: %+v, %v", h, err)
	}
	dst := t.TempDir()
	err = Unpack(bytes.NewReader(sparseEntry(t)), Target{dst, "got"}, Options{})
	if err == nil || !strings.Contains(err.Error(), "sparse") {
		t.Errorf("%v", err)
	}
	noTemps(t, dst)
}

func TestHardLink(t *testing.T) {
	dst := t.TempDir()
	for range 2 {
		check(t, Unpack(bytes.NewReader(archive(t, "d/", "d/a", "d/b => d/a", "d/b => d/a", "d/a => d/a")), Target{dst, "got"}, Options{}))
		if b, err := os.ReadFile(filepath.Join(dst, "got", "b")); err != nil || string(b) != "evil" {
			t.Errorf("%q, %v", b, err)
		}
		noTemps(t, dst) // to rename one name of a file to another one of it does nothing
	}
}

// FuzzUnpack: whatever a guest sends, nothing is written outside and no temporary file stays.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, "d/", "d/a", "d/b => d/a", "d/c -> a"), "got")
	f.Add(archive(f, "d/", "d/out -> ../..", "d/out/evil"), "got")
	f.Add(archive(f, "d/", "d/l -> ..", "d/l/evil"), "got")
	f.Add(archive(f, "d/", "d/a", "d/b => d/a", "d/b => d/a"), "got")
	f.Add(archive(f, "d/", "d/kept/", "d/up/evil"), "merged")
	f.Add(archive(f, "f"), "merged")
	f.Add(archive(f, "d -> ..", "d/secret"), "got")
	f.Add(sparseEntry(f), "got")
	f.Add([]byte{}, "got")
	f.Fuzz(func(t *testing.T, stream []byte, name string) {
		if name != "merged" {
			name = "got"
		}
		outer, dst := user(t)
		spare := filepath.Join(dst, name)
		before := outside(t, outer, spare)
		_ = Unpack(bytes.NewReader(stream), Target{dst, name}, Options{})
		if after := outside(t, outer, spare); after != before {
			t.Errorf("outside there is\n%s\nbefore:\n%s", after, before)
		}
		if os.Geteuid() == 0 { // others cannot look into directories that a guest gave no mode
			noTemps(t, outer)
		}
	})
}
