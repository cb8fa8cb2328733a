package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"banger/internal/testhost"
	"banger/internal/vm"
)

func needDepmod(t *testing.T) {
	t.Helper()
	testhost.Need(t, testhost.Depmod)
}

func ls(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestImportDeb(t *testing.T) {
	needDepmod(t)
	var digests, disks []string
	for _, format := range []string{"xz", "zstd", "gzip", "none"} {
		l, rows := newLibrary(t)
		var stages []string
		deb := writeTemp(t, "k.deb", testDeb(t, format, testControl, testFiles(t)))
		k, err := l.Import(t.Context(), "mine", deb, func(e vm.Event) {
			if e.Kind == "stage" {
				stages = append(stages, e.Name+" "+e.Stage+" "+e.Status)
			}
		})
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		digests = append(digests, k.Digest)
		if k.Name != "mine" || k.Release != testRelease || k.Version != "6.1.2-3" || k.Source != deb || k.Size == 0 || k.CreatedAt.IsZero() {
			t.Errorf("record %+v", k)
		}
		if rows.rows["mine"] != k {
			t.Errorf("row %+v, returned %+v", rows.rows["mine"], k)
		}
		if !slices.Equal(stages, []string{"mine kernel begin", "mine kernel end"}) {
			t.Errorf("stages %q", stages)
		}
		dir := filepath.Join(l.Dir, strings.TrimPrefix(k.Digest, "sha256:"))
		if got := ls(t, l.Dir); !slices.Equal(got, []string{filepath.Base(dir)}) {
			t.Errorf("left beside the kernel: %q", got)
		}
		if got := ls(t, dir); !slices.Equal(got, []string{"boot", "kernel.json", "modules.ext4", "vmlinux"}) {
			t.Errorf("kernel's directory holds %q", got)
		}
		for name, want := range map[string]string{
			"boot/order":                         "virtio_mmio.ko\nvirtio_blk.ko\nvirtio_net.ko\n",
			"boot/order.vsock":                   "vmw_vsock_virtio_transport.ko\n",
			"boot/virtio_mmio.ko":                "mmio",
			"boot/virtio_net.ko":                 "net",
			"boot/vmw_vsock_virtio_transport.ko": "vsock",
			"vmlinux":                            string(testVmlinux(elfOpts{})),
		} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s: %.60q, %v", name, got, err)
			}
		}
		checkDisk(t, filepath.Join(dir, fileModules))
		sum, err := sumFile(filepath.Join(dir, fileModules))
		if err != nil {
			t.Fatal(err)
		}
		disks = append(disks, sum)
	}
	if len(slices.Compact(disks)) != 1 {
		t.Error("equal modules gave different disks")
	}
	if len(slices.Compact(digests)) != 1 {
		t.Errorf("the digest depends on the packing: %q", digests)
	}
}

// checkDisk reads the modules disk with e2fsprogs, an independent implementation.
func checkDisk(t *testing.T, disk string) {
	t.Helper()
	fsck, err := findProgram("e2fsck")
	if err != nil {
		t.Log("no e2fsck: the disk is not checked")
		return
	}
	if out, err := exec.Command(fsck, "-fn", disk).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	debugfs, err := findProgram("debugfs")
	if err != nil {
		return
	}
	read := func(request string) string {
		out, err := exec.Command(debugfs, "-R", request, disk).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if got := read("cat /kernel/fs/overlayfs/overlay.ko"); got != "overlay" {
		t.Errorf("overlay.ko holds %q", got)
	}
	if got := read("cat /modules.dep"); !strings.Contains(got, "kernel/drivers/net/virtio_net.ko:") || strings.Contains(got, "stale") {
		t.Errorf("modules.dep holds %q", got)
	}
	for line := range strings.Lines(read("ls -l /kernel/fs")) {
		if f := strings.Fields(line); len(f) > 4 && (f[3] != "0" || f[4] != "0") {
			t.Errorf("not root's: %s", line)
		}
	}
}

func TestImportTwiceIsOneDirectory(t *testing.T) {
	needDepmod(t)
	l, rows := newLibrary(t)
	deb := writeTemp(t, "k.deb", testDeb(t, "zstd", testControl, testFiles(t)))
	var wait sync.WaitGroup
	for _, name := range []string{"a", "b", "a", "b"} {
		wait.Go(func() {
			if _, err := l.Import(t.Context(), name, deb, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got := ls(t, l.Dir); len(got) != 1 {
		t.Errorf("directories %q", got)
	}
	if len(rows.rows) != 2 || rows.rows["a"].Digest != rows.rows["b"].Digest {
		t.Errorf("rows %+v", rows.rows)
	}
	// A damaged one is made whole by importing it again.
	dir := filepath.Join(l.Dir, ls(t, l.Dir)[0])
	if err := os.Remove(filepath.Join(dir, fileVmlinux)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Boot(t.Context(), rows.rows["a"].Digest); vm.CodeOf(err) != vm.CodeCorrupt {
		t.Errorf("boot of a damaged kernel: %v", err)
	}
	if _, err := l.Ensure(t.Context(), "a", nil); vm.CodeOf(err) != vm.CodeCorrupt || !strings.Contains(vm.HintOf(err), deb) {
		t.Errorf("ensure of a damaged kernel: %v, hint %q", err, vm.HintOf(err))
	}
	k, err := l.Import(t.Context(), "a", deb, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.check(k.Digest); err != nil {
		t.Error(err)
	}
	if got := ls(t, l.Dir); len(got) != 1 {
		t.Errorf("directories after the repair %q", got)
	}
}

func TestImportRefuses(t *testing.T) {
	needDepmod(t)
	image := "./boot/vmlinuz-" + testRelease
	with := func(change func(f map[string][]byte)) []byte {
		f := testFiles(t)
		change(f)
		return testDeb(t, "zstd", testControl, f)
	}
	good := testDeb(t, "zstd", testControl, testFiles(t))
	for name, c := range map[string]struct {
		deb  []byte
		code vm.Code
		want string
	}{
		"empty file":  {nil, vm.CodeInvalid, "too short"},
		"garbage":     {noise(5000), vm.CodeInvalid, "neither an ELF file nor a bzImage"},
		"truncated":   {good[:len(good)/2], vm.CodeInvalid, ""},
		"metapackage": {testDeb(t, "xz", "Package: meta\nVersion: 1\nDepends: linux-image-x\n", map[string][]byte{"./usr/share/doc/x": nil}), vm.CodeInvalid, "holds no kernel image"},
		"no modules":  {testDeb(t, "xz", testControl, map[string][]byte{image: testFiles(t)[image]}), vm.CodeInvalid, "holds no modules"},
		"bad image":   {with(func(f map[string][]byte) { f[image] = []byte("MZ") }), vm.CodeInvalid, "too short"},
		"no PVH":      {with(func(f map[string][]byte) { f[image] = testBzImage(t, "xz", testVmlinux(elfOpts{noNote: true})) }), vm.CodeInvalid, "PVH"},
		"two kernels": {with(func(f map[string][]byte) { f["./lib/modules/9.9/kernel/a.ko"] = nil }), vm.CodeInvalid, "two kernels"},
		"odd release": {with(func(f map[string][]byte) { f["./lib/modules/-x/kernel/a.ko"] = nil }), vm.CodeInvalid, "not a kernel release"},
		"bad module": {with(func(f map[string][]byte) {
			f["./lib/modules/"+testRelease+"/kernel/a.ko.xz"] = []byte("\xfd7zXZ\x00junk")
		}), vm.CodeInvalid, "decompress kernel/a.ko.xz"},
		"module twice": {with(func(f map[string][]byte) { f["./lib/modules/"+testRelease+"/kernel/fs/overlayfs/overlay.ko"] = nil }), vm.CodeInvalid, "twice"},
		"no virtio_blk": {with(func(f map[string][]byte) {
			maps.DeleteFunc(f, func(name string, _ []byte) bool { return strings.Contains(name, "virtio_blk") })
		}), vm.CodeInvalid, "no virtio_blk"},
	} {
		t.Run(name, func(t *testing.T) {
			l, rows := newLibrary(t)
			var last vm.Event
			_, err := l.Import(t.Context(), "mine", writeTemp(t, "k.deb", c.deb), func(e vm.Event) { last = e })
			if vm.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("got %v (%s), want %s with %q", err, vm.CodeOf(err), c.code, c.want)
			}
			if last.Status != "failed" {
				t.Errorf("last event %+v", last)
			}
			if left := ls(t, l.Dir); len(left) != 0 || len(rows.rows) != 0 {
				t.Errorf("left %q, rows %v", left, rows.rows)
			}
		})
	}
	for _, c := range []struct {
		name, source string
		code         vm.Code
	}{
		{"Bad_Name", "installed", vm.CodeInvalid},
		{"", "installed:9.9.9-none", vm.CodeNotFound},
		{"../x", "installed", vm.CodeInvalid},
		{"x", "/nonexistent.deb", vm.CodeNotFound},
		{"x", "relative.deb", vm.CodeNotFound},
		{"x", t.TempDir(), vm.CodeInvalid},
		{"x", "installed:../../x", vm.CodeInvalid},
		{"x", "installed:9.9.9-none", vm.CodeNotFound},
		{"x", "apt:-o Debug::x=1", vm.CodeInvalid},
		{"x", "apt:", vm.CodeInvalid},
	} {
		l, _ := newLibrary(t)
		l.host = t.TempDir()
		if _, err := l.Import(t.Context(), c.name, c.source, nil); vm.CodeOf(err) != c.code || vm.HintOf(err) == "" && c.code == vm.CodeNotFound {
			t.Errorf("%q from %q: %v (%s, hint %q), want %s", c.name, c.source, err, vm.CodeOf(err), vm.HintOf(err), c.code)
		}
	}
}

func TestImportImageAlone(t *testing.T) {
	needDepmod(t)
	l, _ := newLibrary(t)
	for name, image := range map[string][]byte{"elf": testVmlinux(elfOpts{}), "bz": testBzImage(t, "lz4", testVmlinux(elfOpts{}))} {
		k, err := l.Import(t.Context(), name, writeTemp(t, "vmlinuz", image), nil)
		if err != nil || k.Release != testRelease || k.Version != "" {
			t.Fatalf("%s: %+v, %v", name, k, err)
		}
		b, err := l.Boot(t.Context(), k.Digest)
		if err != nil || b.Release != testRelease {
			t.Fatalf("%s: %+v, %v", name, b, err)
		}
	}
}

func TestImportInstalled(t *testing.T) {
	needDepmod(t)
	l, _ := newLibrary(t)
	l.host = t.TempDir()
	// As on a merged-usr host: /lib is a link, and "build" leads out of the tree.
	for name, content := range testFiles(t) {
		file := filepath.Join(l.host, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("usr/lib", filepath.Join(l.host, "lib")),
		os.Symlink("/", filepath.Join(l.host, "usr/lib/modules", testRelease, "build"))); err != nil {
		t.Fatal(err)
	}
	k, err := l.Import(t.Context(), "mine", "installed:"+testRelease, nil)
	if err != nil || k.Release != testRelease {
		t.Fatalf("%+v, %v", k, err)
	}
	fromDeb, err := l.Import(t.Context(), "deb", writeTemp(t, "k.deb", testDeb(t, "xz", testControl, testFiles(t))), nil)
	if err != nil || fromDeb.Digest != k.Digest {
		t.Errorf("installed %s, packaged %s, %v", k.Digest, fromDeb.Digest, err)
	}
}

func TestImportFailsAtTheRow(t *testing.T) {
	needDepmod(t)
	l, rows := newLibrary(t)
	l.Pinned = func(context.Context) ([]string, error) { return nil, nil }
	rows.fail = errors.New("database is gone")
	deb := writeTemp(t, "k.deb", testDeb(t, "none", testControl, testFiles(t)))
	if _, err := l.Import(t.Context(), "mine", deb, nil); !errors.Is(err, rows.fail) {
		t.Fatalf("got %v", err)
	}
	if err := l.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := ls(t, l.Dir); len(left) != 0 {
		t.Errorf("left after reconcile: %q", left)
	}
}

func TestExplain(t *testing.T) {
	l := New(Config{Dir: "/kernels"})
	for _, c := range []struct {
		err  error
		code vm.Code
		hint string
	}{
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, vm.CodeNoSpace, "/kernels"},
		{errors.Join(errors.New("depmod"), syscall.ENOSPC), vm.CodeNoSpace, "/kernels"},
		{vm.Errorf(vm.CodeInvalid, "unpack: %w", syscall.EDQUOT), vm.CodeNoSpace, "/kernels"},
		{fmt.Errorf("read: %w", context.Canceled), vm.CodeCanceled, ""},
		{fmt.Errorf("x: %w", vm.Errorf(vm.CodeMissing, "y").WithHint("apt-get install z")), vm.CodeMissing, "install z"},
		{errors.New("x"), vm.CodeInternal, ""},
	} {
		err := l.explain("import", c.err)
		if vm.CodeOf(err) != c.code || !strings.Contains(vm.HintOf(err), c.hint) || !errors.Is(err, c.err) {
			t.Errorf("%v became %v (%s, hint %q)", c.err, err, vm.CodeOf(err), vm.HintOf(err))
		}
	}
	if l.explain("x", nil) != nil {
		t.Error("nil became an error")
	}
}
