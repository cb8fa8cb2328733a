package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

func TestFilesRefused(t *testing.T) {
	addr := serveFiles(t)
	tests := map[string]struct {
		stream []byte
		code   vm.Code
	}{
		"absolute":                      {entries(t, "/tmp/x"), vm.CodeInvalid},
		"dots":                          {entries(t, "a/", "a/../../x"), vm.CodeInvalid},
		"dots inside":                   {entries(t, "a/", "a/../x"), vm.CodeInvalid},
		"through a link of the stream":  {entries(t, "l -> ../outside", "l/x"), vm.CodeInvalid},
		"through an absolute link":      {entries(t, "l -> /tmp", "l/x"), vm.CodeInvalid},
		"over a link, as a directory":   {entries(t, "l -> ../outside", "l/", "l/x"), vm.CodeConflict},
		"through a link that was there": {entries(t, "there/x"), vm.CodeInvalid},
		"hard link to the outside":      {entries(t, "h => ../outside/secret"), vm.CodeInvalid},
		"hard link through a link":      {entries(t, "h => there/secret"), vm.CodeInvalid},
		"hard link to nothing":          {entries(t, "h => none"), vm.CodeInvalid},
		"a file over a directory":       {entries(t, "dir"), vm.CodeConflict},
		"a directory over a file":       {entries(t, "file/"), vm.CodeConflict},
		"a file for the target itself":  {entries(t, "./"+"."), vm.CodeInvalid},
		"cut off":                       {entries(t, "a")[:514], vm.CodeInvalid},
		"no tar":                        {bytes.Repeat([]byte("no tar "), 300), vm.CodeInvalid},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dst, outside := filepath.Join(base, "dst"), filepath.Join(base, "outside")
			must(t, os.MkdirAll(filepath.Join(dst, "dir", "full"), 0o755), os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600),
				os.WriteFile(filepath.Join(dst, "file"), []byte("old"), 0o644), os.Symlink("../outside", filepath.Join(dst, "there")))
			before := tree(t, outside)
			expect(t, tt.code, "PUT", addr, dst, bytes.NewReader(tt.stream))
			if after := tree(t, outside); !maps.Equal(before, after) {
				t.Errorf("written outside: %v", after)
			}
			for rel := range tree(t, base) {
				if strings.Contains(rel, ".banger-") {
					t.Errorf("left behind: %s", rel)
				}
			}
		})
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	good := entries(t, "a")
	expect(t, vm.CodeNotFound, "PUT", addr, dir+"/none", bytes.NewReader(good))
	expect(t, vm.CodeInvalid, "PUT", addr, dir+"/f", bytes.NewReader(good))
	expect(t, vm.CodeInvalid, "PUT", addr, "relative", bytes.NewReader(good))
	expect(t, vm.CodeNotFound, "GET", addr, dir+"/none", nil)
	expect(t, vm.CodeInvalid, "GET", addr, "", nil)
	expect(t, vm.CodeInvalid, "POST", addr, dir, nil)
}

// TestFilesLongUploadRefused: the reason arrives although the client is still sending.
func TestFilesLongUploadRefused(t *testing.T) {
	addr := serveFiles(t)
	dir := t.TempDir()
	stream := io.MultiReader(bytes.NewReader(entries(t, "/absolute")), io.LimitReader(zeroes{}, 100<<20))
	expect(t, vm.CodeInvalid, "PUT", addr, dir, stream)
	expect(t, vm.CodeNotFound, "PUT", addr, dir+"/none", io.LimitReader(zeroes{}, 100<<20))
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFilesBrokenUpload: half a file never appears.
func TestFilesBrokenUpload(t *testing.T) {
	addr := serveFiles(t)
	dir := t.TempDir()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "half", Typeflag: tar.TypeReg, Mode: 0o644, Size: 10 << 20}))
	_, _ = w.Write(make([]byte, 5<<20))
	broken := errors.New("broken")
	_, err := filesRequest(t, "PUT", addr, dir, io.MultiReader(&b, failingReader{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, err := os.ReadDir(dir)
		must(t, err)
		if len(got) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", got)
		}
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// TestFilesBrokenDownload: a file that shrinks while it is sent breaks the answer off.
func TestFilesBrokenDownload(t *testing.T) {
	addr := serveFiles(t)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	must(t, err, f.Truncate(1<<30))
	resp, err := filesRequest(t, "GET", addr, f.Name(), nil)
	must(t, err)
	_, err = io.CopyN(io.Discard, resp.Body, 1<<20)
	must(t, err, f.Truncate(0), f.Close())
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("ended as if whole after %d more bytes", n)
	}
}
