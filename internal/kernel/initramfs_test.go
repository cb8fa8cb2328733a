package kernel

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cavaliergopher/cpio"

	"banger/internal/vm"
)

func mkfifo(name string) error { return syscall.Mkfifo(name, 0o600) }

func testBoot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"order": "a.ko\nb.ko\n", "order.vsock": "v.ko\n", "a.ko": "A", "b.ko": "BB", "v.ko": "VVV", "unlisted.ko": "U",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWriteInitramfs(t *testing.T) {
	boot := testBoot(t)
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := writeInitramfs(w, []byte("guest"), boot); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(boot, "a.ko"), testTime, testTime); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("equal input gave different bytes")
	}
	if first.Len()%4 != 0 {
		t.Errorf("%d bytes: not padded to words", first.Len())
	}
	var got []string
	for r := cpio.NewReader(bytes.NewReader(first.Bytes())); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Guid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v", h.Name, h.Uid, h.Guid, h.ModTime)
		}
		got = append(got, strings.TrimSpace(h.FileInfo().Mode().String()+" "+h.Name+" "+strings.ReplaceAll(string(content), "\n", ";")))
	}
	want := []string{
		"drwxr-xr-x dev", "drwxr-xr-x modules", "drwxr-xr-x proc", "drwxr-xr-x run", "drwxr-xr-x sys", "drwxr-xr-x sysroot", "drwxr-xr-x tmp",
		"Dcrw------- dev/console", "Dcrw------- dev/null", "-rwxr-xr-x init guest",
		"-rw-r--r-- modules/order a.ko;b.ko;", "-rw-r--r-- modules/order.vsock v.ko;",
		"-rw-r--r-- modules/a.ko A", "-rw-r--r-- modules/b.ko BB", "-rw-r--r-- modules/v.ko VVV",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// The library reads no device numbers: rdevmajor and rdevminor are the 10th and 11th word of the header.
	for name, numbers := range map[string]string{"dev/console": "0000000500000001", "dev/null": "0000000100000003"} {
		at := bytes.Index(first.Bytes(), []byte(name+"\x00")) - 110
		if got := string(first.Bytes()[at+6+9*8 : at+6+11*8]); got != numbers {
			t.Errorf("%s has numbers %s, want %s", name, got, numbers)
		}
	}
}

func TestWriteInitramfsRefuses(t *testing.T) {
	boot := testBoot(t)
	if err := os.WriteFile(filepath.Join(boot, "order"), []byte("../../etc/shadow\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeInitramfs(io.Discard, nil, boot); vm.CodeOf(err) != vm.CodeCorrupt {
		t.Errorf("an order that leads out gave %v", err)
	}
	if err := os.WriteFile(filepath.Join(boot, "order"), []byte("missing.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeInitramfs(io.Discard, nil, boot); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing module gave %v", err)
	}
}

func TestBoot(t *testing.T) {
	needDepmod(t)
	l, _ := newLibrary(t)
	k, err := l.Import(t.Context(), "x", writeTemp(t, "k.deb", testDeb(t, "none", testControl, testFiles(t))), nil)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			b, err := l.Boot(t.Context(), k.Digest)
			if err != nil || b.Release != testRelease {
				t.Errorf("%+v, %v", b, err)
			}
			for _, file := range []string{b.Vmlinux, b.Initramfs, b.ModulesDisk} {
				if st, err := os.Stat(file); err != nil || st.Size() == 0 || !filepath.IsAbs(file) {
					t.Errorf("%s: %v", file, err)
				}
			}
		})
	}
	wait.Wait()
	if got := ls(t, l.InitramfsDir); len(got) != 1 || !strings.HasPrefix(got[0], k.Digest[7:23]+"-") {
		t.Errorf("cache holds %q", got)
	}
	// Another guest binary is another initramfs, and the next daemon sweeps the old one.
	setGuest(l, []byte("newer"), nil)
	if _, err := l.Boot(t.Context(), k.Digest); err != nil {
		t.Fatal(err)
	}
	if got := ls(t, l.InitramfsDir); len(got) != 2 {
		t.Errorf("cache holds %q", got)
	}
	if err := l.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ls(t, l.InitramfsDir); len(got) != 1 || !strings.Contains(got[0], l.guestKey()) {
		t.Errorf("cache holds %q after reconcile", got)
	}
	setGuest(l, nil, vm.Errorf(vm.CodeMissing, "built without"))
	if _, err := l.Boot(t.Context(), k.Digest); vm.CodeOf(err) != vm.CodeMissing {
		t.Errorf("boot without a guest binary: %v", err)
	}
	if _, err := l.Boot(t.Context(), "sha256:"+strings.Repeat("0", 64)); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("boot of an unknown kernel: %v", err)
	}
	for _, bad := range []string{"", "sha256:../../etc", k.Digest + "x"} {
		if _, err := l.Boot(t.Context(), bad); vm.CodeOf(err) != vm.CodeInvalid {
			t.Errorf("boot of %q: %v", bad, err)
		}
	}
}

func setGuest(l *Library, binary []byte, err error) { l.Guest = guestOf(binary, err) }

func guestOf(binary []byte, err error) Guest {
	return Guest{Key: string(binary), Binary: func() ([]byte, error) { return binary, err }}
}
