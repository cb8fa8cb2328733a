package qemu

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/vmm/vmmtest"

	"banger/internal/kernel"
	"banger/internal/testhost"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// oneKernel is a library's records of what the test imports, which nobody reads.
type oneKernel struct{ kernel.Records }

func (oneKernel) PutKernel(context.Context, vm.Kernel) error { return nil }

func (oneKernel) KernelByName(context.Context, string) (vm.Kernel, error) {
	return vm.Kernel{}, vm.Errorf(vm.CodeNotFound, "no such kernel")
}

// kernelToBoot returns Debian's kernel with the test's own init (testdata/guest) around it. The kernel is kept between
// runs, in the cache that scripts/test-root fills as well.
func kernelToBoot(t *testing.T) kernel.Boot {
	t.Helper()
	init := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", init, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the test's guest: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(init)
	if err != nil {
		t.Fatal(err)
	}
	cache := os.Getenv("BANGER_TEST_CACHE")
	if cache == "" {
		cache = filepath.Join(testhost.Repo(t), ".cache", "test")
	}
	own := filepath.Join(cache, "qemu", "kernels")
	guest := kernel.Guest{Key: "test", Binary: func() ([]byte, error) { return binary, nil }}
	library := func(dir string) *kernel.Library {
		return kernel.New(kernel.Config{Dir: dir, InitramfsDir: t.TempDir(), Guest: guest, Records: oneKernel{}})
	}
	for _, dir := range []string{filepath.Join(cache, "root", "kernels"), own} {
		found, _ := filepath.Glob(filepath.Join(dir, "*", "kernel.json"))
		for _, f := range found {
			if boot, err := library(dir).Boot(t.Context(), "sha256:"+filepath.Base(filepath.Dir(f))); err == nil {
				return boot
			}
		}
	}
	k, err := library(own).Import(t.Context(), vm.DefaultKernel, kernel.DefaultSource, nil)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := library(own).Boot(t.Context(), k.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return boot
}

// debian is a machine with a real kernel whose init does what is asked of it.
func debian(t *testing.T, boot kernel.Boot, do string) vmm.Config {
	t.Helper()
	c := tiny(t, vmmtest.TinyHalt)
	c.Kernel, c.Initramfs, c.MemoryMiB = boot.Vmlinux, boot.Initramfs, 512
	c.Args = []string{"quiet", "test.do=" + do}
	return c
}

// await waits for the machine's end and returns its console.
func await(t *testing.T, c vmm.Config, exited <-chan string) string {
	t.Helper()
	select {
	case how := <-exited:
		if how != "exit status 0" {
			t.Errorf("it ends with %q", how)
		}
	case <-time.After(time.Minute):
		t.Fatalf("the guest hangs; console:\n%s", read(t, c.Console))
	}
	console := read(t, c.Console)
	if strings.Contains(console, "FAILED") || !strings.Contains(console, "READY") {
		t.Errorf("console:\n%s", console)
	}
	return console
}

// However a guest ends, the process does.
func TestRealBootEnds(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	boot := kernelToBoot(t)
	for _, how := range []string{"restart", "poweroff", "panic"} {
		t.Run(how, func(t *testing.T) {
			c := debian(t, boot, how)
			begin := time.Now()
			_, exited := launch(t, c)
			await(t, c, exited)
			t.Logf("launch to end in %v", time.Since(begin))
		})
	}
}

func TestRealBootDisks(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	c := debian(t, kernelToBoot(t), "disks")
	overlay := c.Root.Path + ".qcow2"
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", c.Modules.Path, overlay).CombinedOutput(); err != nil {
		t.Fatalf("make overlay: %v: %s", err, out)
	}
	write(t, c.Modules.Path, "the base"+strings.Repeat("\x00", 1<<20-8)) // both the overlay's base and a disk: shared by readers
	c.Work = &vmm.Disk{Path: c.Root.Path, Format: "raw"}
	c.Root = vmm.Disk{Path: overlay, Format: "qcow2"}
	base := c.Modules.Path
	_, exited := launch(t, c)
	console := await(t, c, exited)
	for _, want := range []string{
		"DISK banger-root ro=0 first=the base", "DISK banger-work ro=0 first=\r", "DISK banger-modules ro=1 first=the base",
		"NIC 02:00:00:00:00:01",
	} {
		if !strings.Contains(console, want) {
			t.Errorf("no %q in:\n%s", want, console)
		}
	}
	if got := read(t, base)[:8]; got != "the base" {
		t.Errorf("the base was written to: %q", got)
	}
	if got := read(t, c.Work.Path)[:8]; got != "written!" {
		t.Errorf("the work disk has %q", got)
	}
}

// loopOver makes a file of that beginning a block device.
func loopOver(t *testing.T, file, begin string) string {
	t.Helper()
	write(t, file, begin+strings.Repeat("\x00", 1<<20-len(begin)))
	out, err := exec.Command("losetup", "--find", "--show", "--", file).CombinedOutput()
	if err != nil {
		testhost.Lacks(t, testhost.Loop, fmt.Errorf("%w: %s", err, out))
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", dev, err, out)
		}
	})
	return dev
}

// A root on device-mapper is a block device, which QEMU takes by another driver than a file.
func TestRealBootBlockDevices(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU, testhost.Root, testhost.Loop)
	testhost.Leaks(t)
	c := debian(t, kernelToBoot(t), "disks")
	work := c.Root.Path + ".work"
	c.Root = vmm.Disk{Path: loopOver(t, c.Root.Path, "the root"), Format: "raw", Block: true}
	c.Work = &vmm.Disk{Path: loopOver(t, work, ""), Format: "raw", Block: true}
	_, exited := launch(t, c)
	console := await(t, c, exited)
	for _, want := range []string{"DISK banger-root ro=0 first=the root", "DISK banger-work ro=0 first=\r", "DISK banger-modules ro=1"} {
		if !strings.Contains(console, want) {
			t.Errorf("no %q in:\n%s", want, console)
		}
	}
	if got := read(t, c.Work.Path)[:8]; got != "written!" {
		t.Errorf("the work disk has %q", got)
	}
	// The other way round, each driver refuses what is the other's: that is why they are told apart.
	c.Root.Block = false
	_, exited = launch(t, c)
	select {
	case how := <-exited:
		if !strings.Contains(how, "regular file") {
			t.Errorf("a device taken for a file ends with %q", how)
		}
	case <-time.After(time.Minute):
		t.Error("a device taken for a file boots")
	}
}

// ask sends a line on the agent's port and returns the guest's clocks, and the host's between which they were read.
func ask(t *testing.T, conn net.Conn, answers *bufio.Reader) (wall, mono time.Duration, before, after time.Time) {
	t.Helper()
	before = time.Now()
	if _, err := fmt.Fprintln(conn, "time"); err != nil {
		t.Fatal(err)
	}
	line, err := answers.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	after = time.Now()
	if _, err := fmt.Sscan(line, &wall, &mono); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return wall, mono, before, after
}

// The port answers from the connection made before the guest ran; and the guest's time runs as the host's does.
func TestRealBootChannelAndClock(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	const span = 20 * time.Second
	c := debian(t, kernelToBoot(t), "channel")
	begin := time.Now()
	_, exited := launch(t, c)
	d := New(Config{StateDir: t.TempDir()})
	conn, err := d.DialAgent(t.Context(), c.Ref())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	ask(t, conn, answers)
	t.Logf("launch to first answer in %v", time.Since(begin))

	var trips []time.Duration
	for range 50 {
		_, _, before, after := ask(t, conn, answers)
		trips = append(trips, after.Sub(before))
	}
	slices.Sort(trips)
	t.Logf("round trip %v median, %v at best", trips[25], trips[0])

	wall0, mono0, b0, a0 := ask(t, conn, answers)
	<-time.After(span)
	wall1, mono1, b1, a1 := ask(t, conn, answers)
	host := b1.Add(a1.Sub(b1) / 2).Sub(b0.Add(a0.Sub(b0) / 2))
	for name, guest := range map[string]time.Duration{"wall": wall1 - wall0, "monotonic": mono1 - mono0} {
		drift := float64(guest-host) / float64(host)
		t.Logf("%s clock: %v in %v, drift %.0f ppm", name, guest, host, drift*1e6)
		if math.Abs(drift) > 0.001 {
			t.Errorf("%s clock drifts by %.3f%%", name, drift*100)
		}
	}
	if err := d.Quit(t.Context(), c.Ref()); err != nil {
		t.Fatal(err)
	}
	if how := <-exited; how != "exit status 0" {
		t.Errorf("quit ends with %q", how)
	}
	if _, err := os.Stat(c.APISock); err == nil {
		t.Error("an orderly end leaves the API socket")
	}
}
