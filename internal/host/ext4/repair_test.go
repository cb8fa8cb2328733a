package ext4

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testhost"
	"banger/internal/vm"
)

// made is a file system of 32 MiB with some files, in a directory whose name a shell would split.
func made(t *testing.T) string {
	t.Helper()
	testhost.Need(t, testhost.Ext4)
	dir := filepath.Join(t.TempDir(), "with space")
	tree := filepath.Join(dir, "tree")
	path := filepath.Join(dir, "fs")
	program, err := Program()
	if err := errors.Join(err, os.MkdirAll(filepath.Join(tree, "etc"), 0o755), os.Mkdir(filepath.Join(tree, "sbin"), 0o755), os.Symlink("/nowhere", filepath.Join(tree, "sbin/init")),
		os.WriteFile(filepath.Join(tree, "etc/machine-id"), []byte("me\n"), 0o644), os.WriteFile(filepath.Join(tree, "etc/key"), []byte("k"), 0o600),
		os.WriteFile(path, nil, 0o600), os.Truncate(path, 32<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, Args(path, "x", tree)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func cat(t *testing.T, path, name string) string {
	t.Helper()
	out, _, err := run(t.Context(), "debugfs", "-R", "cat "+name, path)
	if err != nil {
		t.Fatal(err)
	}
	_, out, _ = strings.Cut(out, "\n") // its version
	return out
}

func TestEnlarge(t *testing.T) {
	path := made(t)
	if size, err := SizeOf(path); err != nil || size != 32<<20 {
		t.Errorf("it has %d bytes, %v", size, err)
	}
	for range 2 {
		if err := errors.Join(Tools(), Check(t.Context(), path), Enlarge(t.Context(), path, 8<<30)); err != nil {
			t.Fatal(err)
		}
		if size, err := SizeOf(path); err != nil || size != 8<<30 {
			t.Errorf("enlarged it has %d bytes, %v", size, err)
		}
	}
	if err := Enlarge(t.Context(), path, 1<<20); err != nil {
		t.Errorf("to less than it has: %v", err)
	}
	if out, code, err := run(t.Context(), "e2fsck", "-f", "-n", path); code != 0 || err != nil {
		t.Errorf("e2fsck: %d, %v, %s", code, err, out)
	}
	if got := cat(t, path, "/etc/machine-id"); got != "me\n" {
		t.Errorf("a file holds %q", got)
	}
}

func TestHasAndClear(t *testing.T) {
	path := made(t)
	for name, want := range map[string]bool{"/sbin/init": true, "/etc": true, "/none": false, "/etc/none": false, "/none/none": false} {
		if got, err := Has(t.Context(), path, name); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", name, got, err, want)
		}
	}
	for name, want := range map[string]string{"/sbin/init": "/nowhere", "/etc": "", "/none": ""} {
		if got, err := Link(t.Context(), path, name); err != nil || got != want {
			t.Errorf("%s: leads to %q, %v, want %q", name, got, err, want)
		}
	}
	for range 2 {
		if err := Clear(t.Context(), path, []string{"/etc/key", "/none/key"}, []string{"/etc/machine-id", "/none/id"}); err != nil {
			t.Fatal(err)
		}
		gone, err1 := Has(t.Context(), path, "/etc/key")
		there, err2 := Has(t.Context(), path, "/etc/machine-id")
		if err := errors.Join(err1, err2, Check(t.Context(), path)); err != nil || gone || !there || cat(t, path, "/etc/machine-id") != "" {
			t.Errorf("key %v, machine-id %v, %v", gone, there, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 2 {
		t.Errorf("beside it: %v %v", entries, err)
	}
	if out, code, err := run(t.Context(), "e2fsck", "-f", "-n", path); code != 0 || err != nil {
		t.Errorf("e2fsck: %d, %v, %s", code, err, out)
	}
}

func TestCheckRefusesWhatIsDamaged(t *testing.T) {
	path := made(t)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(strings.Repeat("x", 1<<20)), 4096) // the tables of inodes and blocks
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), path); vm.CodeOf(err) != vm.CodeInvalid || vm.HintOf(err) == "" || !strings.Contains(err.Error(), "damaged: ") {
		t.Errorf("%v (code %s, hint %q)", err, vm.CodeOf(err), vm.HintOf(err))
	}
}

func TestInspect(t *testing.T) {
	if _, err := Inspect(strings.NewReader(strings.Repeat("x", 4096))); !errors.Is(err, ErrNone) {
		t.Errorf("text: %v", err)
	}
	if _, err := Inspect(strings.NewReader("short")); !errors.Is(err, ErrNone) {
		t.Errorf("short: %v", err)
	}
}

// FuzzInspect: whatever a superblock says, the size is one that a host can have.
func FuzzInspect(f *testing.F) {
	b := make([]byte, 2048)
	b[superblock+magicAt], b[superblock+magicAt+1] = 0x53, 0xef
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if size, err := Inspect(strings.NewReader(string(b))); err == nil && (size <= 0 || size > MaxSize) {
			t.Errorf("size %d", size)
		}
	})
}
