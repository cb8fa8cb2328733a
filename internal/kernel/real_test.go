package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/tsc"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// TestRealBoot imports Debian's cloud kernel with the host's apt and boots it: modules of the initramfs load in their
// order, the modules disk mounts, and what is on it loads and works.
func TestRealBoot(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU, testhost.Depmod, testhost.Apt)
	testhost.Leaks(t)
	l, _ := newLibrary(t)
	setGuest(l, buildInit(t), nil)

	start := time.Now()
	k, err := l.Ensure(t.Context(), vm.DefaultKernel, func(e vm.Event) { t.Log(time.Since(start).Round(time.Millisecond), e.Text) })
	if vm.CodeOf(err) == vm.CodeNotFound || vm.CodeOf(err) == vm.CodeUnavailable {
		testhost.Lacks(t, testhost.Apt, fmt.Errorf("%w (%s)", err, vm.HintOf(err)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s (%s): %.0f MB, imported in %v", k.Release, k.Version, float64(k.Size)/1e6, time.Since(start).Round(time.Millisecond))
	start = time.Now()
	b, err := l.Boot(t.Context(), k.Digest)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("initramfs in %v", time.Since(start).Round(time.Microsecond))
	if fsck, err := findProgram("e2fsck"); err == nil {
		if out, err := exec.Command(fsck, "-fn", b.ModulesDisk).CombinedOutput(); err != nil {
			t.Errorf("e2fsck: %v\n%s", err, out)
		}
	}
	console := boot(t, b)
	if !strings.Contains(console, "RESULT: <nil>") || !strings.Contains(console, "RELEASE: "+k.Release) {
		t.Errorf("the guest's console:\n%s", console)
	}
}

func buildInit(t *testing.T) []byte {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "build", "-o", bin, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's init: %v\n%s", err, out)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// boot runs a guest to its end and returns its console.
func boot(t *testing.T, b Boot) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	khz, err := tsc.KHz(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "microvm", "-accel", "tcg", "-cpu", "max", "-m", "512",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", b.Vmlinux, "-initrd", b.Initramfs,
		"-append", fmt.Sprintf("console=ttyS0 quiet panic=-1 reboot=t tsc=reliable no_timer_check mitigations=off net.ifnames=0 tsc_early_khz=%d", khz),
		"-blockdev", "driver=raw,node-name=m,read-only=on,file.driver=file,file.filename="+b.ModulesDisk,
		"-device", "virtio-blk-device,drive=m",
		"-netdev", "user,id=n,restrict=on", "-device", "virtio-net-device,netdev=n")
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Errorf("qemu: %v", err)
	}
	t.Logf("guest's life: %v", time.Since(start).Round(time.Millisecond))
	return console.String()
}

// TestRealFullDisk has the disk full in the middle of an import.
func TestRealFullDisk(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.Root, testhost.Depmod)
	testhost.Leaks(t)
	for _, size := range []string{"64k", "400k", "900k"} {
		t.Run(size, func(t *testing.T) {
			l, rows := newLibrary(t)
			if err := os.MkdirAll(l.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", l.Dir, "tmpfs", 0, "size="+size); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(l.Dir, 0); err != nil {
					t.Error(err)
				}
			}()
			files := testFiles(t)
			files["./lib/modules/"+testRelease+"/kernel/large.ko"] = noise(500_000)
			_, err := l.Import(t.Context(), "x", writeTemp(t, "k.deb", testDeb(t, "none", testControl, files)), nil)
			if vm.CodeOf(err) != vm.CodeNoSpace || !strings.Contains(vm.HintOf(err), l.Dir) {
				t.Errorf("%v (%s, hint %q)", err, vm.CodeOf(err), vm.HintOf(err))
			}
			if left := ls(t, l.Dir); len(left) != 0 || len(rows.rows) != 0 {
				t.Errorf("left %q, rows %v", left, rows.rows)
			}
		})
	}
}
