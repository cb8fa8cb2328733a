package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vm"
)

// serveFiles runs an agent behind a reverse proxy like the daemon's, and returns the proxy's address.
func serveFiles(t *testing.T) string {
	t.Helper()
	_, socket := serveAgent(t)
	client := guest.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	})
	target := &url.URL{Scheme: "http", Host: "guest"}
	daemon := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: client.Transport(), FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
	})
	t.Cleanup(daemon.Close)
	return daemon.URL + guest.PathFiles
}

func filesRequest(t *testing.T, method, addr, path string, body io.Reader) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, addr+"?"+url.Values{"path": {path}}.Encode(), body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		t.Cleanup(func() { _ = resp.Body.Close() })
	}
	return resp, err
}

// expect makes a request and checks the code it is answered with; "" is success.
func expect(t *testing.T, want vm.Code, method, addr, path string, body io.Reader) []byte {
	t.Helper()
	resp, err := filesRequest(t, method, addr, path, body)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e guest.ErrorBody
	if resp.StatusCode != http.StatusOK {
		if err := json.Unmarshal(b, &e); err != nil || e.Message == "" {
			t.Errorf("%s %s: %s without an error body: %q", method, path, resp.Status, b)
		}
	}
	if vm.Code(e.Code) != want {
		t.Errorf("%s %s: code %q (%s), want %q", method, path, e.Code, e.Message, want)
	}
	return b
}

// tree describes everything below dir.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(file)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", fi.Mode(), st.Uid, st.Gid)
		switch {
		case fi.Mode().IsRegular():
			b, _ := os.ReadFile(file)
			text += fmt.Sprintf(" %d %d links %x", fi.ModTime().Unix(), st.Nlink, b)
		case fi.IsDir():
			text += fmt.Sprintf(" %d", fi.ModTime().Unix())
		case fi.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(file)
			text += " " + target
		}
		x, err := xattrs(file)
		if err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			text += fmt.Sprintf(" %s=%x", k, x[k])
		}
		rel, _ := filepath.Rel(dir, file)
		all[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestFilesRoundTrip(t *testing.T) {
	addr := serveFiles(t)
	src, dst := filepath.Join(t.TempDir(), "top"), t.TempDir()
	in := func(name string) string { return filepath.Join(src, name) }
	big := make([]byte, 3<<20)
	_, _ = rand.Read(big)
	old := time.Unix(1_000_000_000, 0)
	must(t, os.MkdirAll(in("d/"+strings.Repeat("long", 30)), 0o750),
		os.WriteFile(in("big"), big, 0o644), os.WriteFile(in("empty"), nil, 0o600),
		os.WriteFile(in("d/run"), []byte("#!/bin/sh\n"), 0o755), os.Chmod(in("d/run"), 0o755|fs.ModeSetuid),
		os.WriteFile(in("d/ümlaut \n name"), []byte("x"), 0o644),
		os.Link(in("big"), in("d/hard")), os.Symlink("../big", in("d/soft")), os.Symlink("/nowhere", in("dangling")),
		unix.Mkfifo(in("fifo"), 0o640),
		os.Mkdir(in("sticky"), 0o777), os.Chmod(in("sticky"), 0o777|fs.ModeSticky),
		os.WriteFile(in("locked"), []byte("l"), 0o400), os.Chtimes(in("locked"), old, old))
	if os.Geteuid() == 0 {
		must(t, os.Lchown(in("dangling"), 12, 34), os.Chown(in("empty"), 3_000_000_000, 7))
	}
	if err := unix.Setxattr(in("big"), "user.test", []byte("a\x00b"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	must(t, os.Mkdir(in("ro"), 0o555), os.Chtimes(in("ro"), old, old), os.Chtimes(in("d"), old, old))

	stream := expect(t, "", "GET", addr, src, nil)
	expect(t, "", "PUT", addr, dst, bytes.NewReader(stream))
	want, got := tree(t, src), tree(t, filepath.Join(dst, "top"))
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%q is\n%.200s, want\n%.200s", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries came of %d", len(got), len(want))
	}
	// Once more over what is there now: the same again, and nothing else.
	expect(t, "", "PUT", addr, dst, bytes.NewReader(stream))
	if again := tree(t, filepath.Join(dst, "top")); len(again) != len(want) {
		t.Errorf("%d entries after the second time", len(again))
	}
}

// What is zeros in the stream is a hole in the file.
func TestFilesHoles(t *testing.T) {
	addr := serveFiles(t)
	src, dst := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	must(t, os.WriteFile(src, []byte("begin"), 0o644), os.Truncate(src, 16<<20))
	expect(t, "", "PUT", addr, dst, bytes.NewReader(expect(t, "", "GET", addr, src, nil)))
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dst, "disk"), &st))
	if st.Size != 16<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes, of which %d are on the disk", st.Size, st.Blocks*512)
	}
}

// Files that the kernel makes as they are read do not tell their size.
func TestFilesOfTheKernel(t *testing.T) {
	addr := serveFiles(t)
	for _, file := range []string{"/proc/version", "/sys/devices/system/cpu/possible"} {
		want, err := os.ReadFile(file)
		must(t, err)
		r := tar.NewReader(bytes.NewReader(expect(t, "", "GET", addr, file, nil)))
		_, err = r.Next()
		must(t, err)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", file, got, err, want)
		}
	}
	if _, err := readMade(zeroes{}, "/proc/endless"); vm.CodeOf(err) != vm.CodeInvalid {
		t.Errorf("one without end: %v", err)
	}
}

func TestFilesStat(t *testing.T) {
	addr := serveFiles(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("abc"), 0o640), os.Symlink("f", filepath.Join(dir, "l")), os.Symlink(".", filepath.Join(dir, "d")))
	stat := func(path string) (s guest.PathStat) {
		resp, err := filesRequest(t, "HEAD", addr, path, nil)
		must(t, err)
		b, err := base64.StdEncoding.DecodeString(resp.Header.Get(guest.StatHeader))
		must(t, err, json.Unmarshal(b, &s))
		return s
	}
	if s := stat(dir + "/f"); s.Name != "f" || s.Size != 3 || s.Mode != 0o640 || s.ModTime == 0 || s.LinkTarget != "" {
		t.Errorf("file: %+v", s)
	}
	if s := stat(dir + "/l"); s.LinkTarget != "f" || fs.FileMode(s.Mode)&fs.ModeSymlink == 0 {
		t.Errorf("link: %+v", s)
	}
	if s := stat(dir + "/d/"); !fs.FileMode(s.Mode).IsDir() || s.Name != "d" {
		t.Errorf("link with a slash: %+v", s)
	}
	resp, err := filesRequest(t, "HEAD", addr, dir+"/none", nil)
	must(t, err)
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("missing: %s", resp.Status)
	}
	names := func(path string) (names []string) {
		r := tar.NewReader(bytes.NewReader(expect(t, "", "GET", addr, path, nil)))
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			names = append(names, h.Name)
		}
		return names
	}
	if got := names(dir + "/l"); !slices.Equal(got, []string{"l"}) {
		t.Errorf("GET of a link holds %q", got)
	}
	if got := names(dir + "/d/"); !slices.Equal(got, []string{"d/", "d/d", "d/f", "d/l"}) {
		t.Errorf("GET through a link holds %q", got)
	}
}

// entries makes a tar stream: name, or name -> link, or name => hard link, or name/.
func entries(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		h := &tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o644, Size: 5, Uid: os.Getuid(), Gid: os.Getgid(), ModTime: time.Unix(1e9, 0)}
		if name, target, ok := strings.Cut(n, " -> "); ok {
			h.Typeflag, h.Name, h.Linkname, h.Size = tar.TypeSymlink, name, target, 0
		} else if name, target, ok := strings.Cut(n, " => "); ok {
			h.Typeflag, h.Name, h.Linkname, h.Size = tar.TypeLink, name, target, 0
		} else if strings.HasSuffix(n, "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte("hello")[:h.Size])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFilesMerge(t *testing.T) {
	addr := serveFiles(t)
	dst := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dst, "kept"), 0o700), os.Mkdir(filepath.Join(dst, "usr"), 0o755), os.Symlink("usr", filepath.Join(dst, "lib")),
		os.WriteFile(filepath.Join(dst, "target"), []byte("old"), 0o600), os.Symlink("target", filepath.Join(dst, "link")))
	expect(t, "", "PUT", addr, dst, bytes.NewReader(entries(t, "./", "kept/", "kept/a", "lib/", "lib/b", "no/dirs/before", "link")))
	for name, want := range map[string]string{"kept/a": "hello", "usr/b": "hello", "no/dirs/before": "hello", "link": "hello", "target": "old"} {
		if b, err := os.ReadFile(filepath.Join(dst, name)); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
	if fi, _ := os.Lstat(filepath.Join(dst, "kept")); fi.Mode().Perm() != 0o700 {
		t.Errorf("a directory that was there has mode %v now", fi.Mode())
	}
	if fi, _ := os.Lstat(filepath.Join(dst, "link")); !fi.Mode().IsRegular() {
		t.Errorf("the link was written through: %v", fi.Mode())
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(entries(f, "a/", "a/b", "c -> a", "c/d", "e => a/b"))
	f.Add(entries(f, "l -> ..", "l/x"))
	f.Fuzz(func(t *testing.T, in []byte) {
		base := t.TempDir()
		dst := filepath.Join(base, "dst")
		must(t, os.Mkdir(dst, 0o755), os.WriteFile(filepath.Join(base, "witness"), []byte("w"), 0o600))
		_ = unpack(t.Context(), dst, bytes.NewReader(in))
		got, err := os.ReadDir(base)
		if err != nil || len(got) != 2 {
			t.Errorf("beside the directory: %v, %v", got, err)
		}
		if b, err := os.ReadFile(filepath.Join(base, "witness")); err != nil || string(b) != "w" {
			t.Errorf("the file outside holds %q, %v", b, err)
		}
	})
}
