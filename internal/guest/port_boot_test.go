package guest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"banger/internal/testhost"
)

// bootPort boots the test binary as a guest and returns the socket of its port.
func bootPort(t *testing.T, wait time.Duration) (sock string) {
	t.Helper()
	testhost.Need(t, testhost.Real, testhost.QEMU)
	vmlinux, mmio := testKernel(t)
	dir := t.TempDir()
	self := filepath.Join(dir, "init")
	build := exec.Command("go", "test", "-c", "-o", self, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v\n%s", err, out)
	}
	ird := filepath.Join(dir, "initramfs")
	packInit(t, ird, map[string]string{"init": self, "virtio_mmio.ko": mmio})
	sock = filepath.Join(dir, "a.sock")
	console := filepath.Join(dir, "console")
	q := exec.Command("qemu-system-x86_64", "-M", "microvm", "-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm", "-smp", "1", "-m", "512",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-kernel", vmlinux, "-initrd", ird,
		"-chardev", "file,id=s,path="+console, "-serial", "chardev:s",
		"-append", "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable no_timer_check mitigations=off tsc_early_khz="+hostKHz(t),
		"-device", "virtio-serial-device", "-chardev", "socket,id=c,path="+sock+",server=on,wait=off", "-device", "virtserialport,chardev=c,name=x")
	if err := q.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = q.Process.Kill()
		_ = q.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(console)
			t.Logf("console:\n%s", b)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(sock); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	time.Sleep(wait)
	return sock
}

// testKernel finds a kernel in a seeded root.
func testKernel(t *testing.T) (vmlinux, mmio string) {
	t.Helper()
	root, _ := testhost.SeedRoot(t)
	found, _ := filepath.Glob(filepath.Join(root, "kernels", "*", "vmlinux"))
	if len(found) == 0 {
		t.Fatalf("no kernel below %s", root)
	}
	return found[0], filepath.Join(filepath.Dir(found[0]), "boot", "virtio_mmio.ko")
}

func hostKHz(t *testing.T) string {
	t.Helper()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(info), "cpu MHz")
	line, _, _ := strings.Cut(rest, "\n")
	mhz, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimLeft(line, "\t :")), 64)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(int(mhz * 1000))
}

func packInit(t *testing.T, to string, files map[string]string) {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	for name, path := range files {
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | 0o755, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(to, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}
