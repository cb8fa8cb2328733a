package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/logfile"
	"banger/internal/host/proc"
	"banger/internal/testhost"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// launcherEnv makes this test binary a launcher: it launches the configuration in it, says so, and waits to be killed.
const launcherEnv = "BANGER_TEST_LAUNCH"

func TestMain(m *testing.M) {
	vmmtest.Impostor()
	if text := os.Getenv(launcherEnv); text != "" {
		os.Exit(launcher(text))
	}
	os.Exit(m.Run())
}

func launcher(text string) int {
	var c vmm.Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Println(err)
		return 1
	}
	id, _, err := New(Config{StateDir: filepath.Dir(c.Console)}).Launch(context.Background(), c)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("launched", id.PID)
	_ = proc.Wait(context.Background(), id)
	return 0
}

func launchAndDie(t *testing.T, c vmm.Config) {
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), launcherEnv+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil || !strings.HasPrefix(line, "launched") {
		t.Fatalf("launcher says %q, %v", line, err)
	}
}

// tiny is a machine that halts until it is ended. A comma in every path.
func tiny(t *testing.T, code []byte) vmm.Config {
	t.Helper()
	d := filepath.Join(testhost.Dir(t), "a,b")
	if err := os.Mkdir(d, 0o700); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(d, name) }
	for name, content := range map[string][]byte{
		"vmlinux": vmmtest.TinyImage(t, code), "initramfs": make([]byte, 512), "root.raw": make([]byte, 1<<20), "base.raw": make([]byte, 1<<20),
	} {
		if err := os.WriteFile(in(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return vmm.Config{
		ID: vm.NewID(), Name: "web", Dir: d, VCPU: 1, MemoryMiB: 64, Kernel: in("vmlinux"), Initramfs: in("initramfs"),
		Root:    vmm.Disk{Path: in("root.raw"), Format: "raw"},
		Modules: &vmm.Disk{Path: in("base.raw"), Format: "raw", ReadOnly: true},
		NIC:     &vmm.NIC{User: true, MAC: "02:00:00:00:00:01"},
		APISock: in("qmp.sock"), AgentSock: in("agent.sock"), Console: in("console.log"), Log: in("vmm.log"),
	}
}

func TestRealSuite(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	state := t.TempDir()
	vmmtest.Suite(t, func(*testing.T) vmmtest.Env {
		return vmmtest.Env{
			Driver: New(Config{StateDir: state}), Processes: vmm.HostProcesses{}, LaunchAndDie: launchAndDie,
			Config: func(t *testing.T) vmm.Config { return tiny(t, vmmtest.TinyHalt) },
		}
	})
}

func launch(t *testing.T, c vmm.Config) (proc.Identity, <-chan string) {
	t.Helper()
	id, exited, err := New(Config{StateDir: filepath.Dir(c.Console)}).Launch(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proc.Signal(id, unix.SIGKILL) })
	return id, exited
}

func TestRealGuestOutput(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	c := tiny(t, vmmtest.TinyPrint("hello\r\n", vmmtest.TinyReset))
	for range 2 { // the console is appended to
		_, exited := launch(t, c)
		if how := <-exited; how != "exit status 0" {
			t.Errorf("the guest's restart ends with %q", how)
		}
	}
	if got := read(t, c.Console); got != "hello\r\nhello\r\n" {
		t.Errorf("console has %q", got)
	}
}

// What QEMU refuses comes out with its reason.
func TestRealEarlyFailure(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	for name, x := range map[string]struct {
		change func(*vmm.Config)
		says   string
	}{
		"missing disk":    {func(c *vmm.Config) { c.Root.Path += "x" }, "No such file"},
		"no kernel":       {func(c *vmm.Config) { c.Kernel += "x" }, "vmlinuxx"},
		"locked disk":     {func(c *vmm.Config) { c.Work = &vmm.Disk{Path: c.Root.Path, Format: "raw"} }, "lock"},
		"bad MAC":         {func(c *vmm.Config) { c.NIC.MAC = "zz" }, "mac"},
		"too much memory": {func(c *vmm.Config) { c.MemoryMiB = 1 << 40 }, "memory"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tiny(t, vmmtest.TinyHalt)
			if err := os.WriteFile(c.Log, []byte("words of an earlier run\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			x.change(&c)
			id, exited, err := New(Config{StateDir: filepath.Dir(c.Console)}).Launch(t.Context(), c)
			how := ""
			if err != nil {
				how = err.Error()
			} else {
				defer func() { _ = proc.Signal(id, unix.SIGKILL) }()
				select {
				case how = <-exited:
				case <-time.After(10 * time.Second):
					t.Fatal("it runs")
				}
			}
			if !strings.Contains(how, "exit status 1: ") || !strings.Contains(how, x.says) {
				t.Errorf("told %q, want %q", how, x.says)
			}
			if tail := vmm.LogTail(c.Log, 0, 1<<10); !strings.Contains(tail, x.says) {
				t.Errorf("log ends with %q", tail)
			}
		})
	}
}

// A guest that never stops printing fills no disk: QEMU appends, so that it goes on at the begin of a log that was cut.
func TestRealConsoleIsBounded(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	const limit = 64 << 10
	chatter := vmmtest.TinyPrint("all work and no play\r\n", nil)
	c := tiny(t, append(chatter, 0xeb, byte(-(len(chatter)+2)))) // jmp to the begin
	ctx, cancel := context.WithCancel(t.Context())
	bounded := make(chan error, 1)
	go func() { bounded <- logfile.Bound(ctx, c.Console, limit) }()
	launch(t, c)
	<-time.After(3 * time.Second)
	cancel()
	if err := <-bounded; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	now, err := os.Stat(c.Console)
	if err != nil {
		t.Fatal(err)
	}
	old := read(t, logfile.Old(c.Console))
	if len(old) > limit/2 || !strings.HasPrefix(old, "all work and no play\r\n") {
		t.Errorf("kept %d bytes, beginning with %q", len(old), old[:min(len(old), 30)])
	}
	if st := now.Sys().(*syscall.Stat_t); st.Blocks*512 < now.Size() { // a writer that does not append leaves a hole
		t.Errorf("the log has %d bytes and %d on the disk", now.Size(), st.Blocks*512)
	}
	t.Logf("console has %d bytes", now.Size())
}

// QEMU as root makes a tap device that is missing; ours come from the network driver or not at all.
func TestLaunchWithoutItsTap(t *testing.T) {
	c := example()
	d, _ := stub(t, t.TempDir())
	dir := t.TempDir()
	c.APISock, c.AgentSock = filepath.Join(dir, "q"), filepath.Join(dir, "a")
	c.Console, c.Log = filepath.Join(dir, "console"), filepath.Join(dir, "log")
	c.NIC = &vmm.NIC{Tap: "bt-missing"}
	if _, _, err := d.Launch(t.Context(), c); err == nil || !strings.Contains(err.Error(), "bt-missing") {
		t.Errorf("launch: %v", err)
	}
	if _, err := os.Lstat(c.AgentSock); err == nil {
		t.Error("a socket is left")
	}
}

// Where the host has cgroup v2, the process is in its group from its first instant.
func TestRealCgroup(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU, testhost.Root, testhost.Cgroup)
	testhost.Leaks(t)
	c := tiny(t, vmmtest.TinyHalt)
	c.Cgroup = testhost.MakeCgroup(t, "banger-test-"+string(c.ID))
	id, exited := launch(t, c)
	if got := read(t, fmt.Sprintf("/proc/%d/cgroup", id.PID)); !strings.Contains(got, "0::/banger-test-"+string(c.ID)+"\n") {
		t.Errorf("it is in %q", got)
	}
	// Another one is not launched beside it, not even when nothing else tells of it.
	if err := os.Remove(c.AgentSock); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(c.APISock) // which QEMU may not have made yet
	if second, _, err := New(Config{StateDir: filepath.Dir(c.Console)}).Launch(t.Context(), c); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("launched twice: %v", err)
		_ = proc.Signal(second, unix.SIGKILL)
	}
	if err := proc.Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-exited
	if err := os.Remove(c.Cgroup); err != nil {
		t.Error(err)
	}
	if id, _, err := New(Config{StateDir: filepath.Dir(c.Console)}).Launch(t.Context(), c); err == nil {
		_ = proc.Signal(id, unix.SIGKILL)
		t.Error("launched into a cgroup that is gone")
	}
}

func TestRealProof(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	binary, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	tcg := accelArguments(machine{}, 1)
	c := tiny(t, vmmtest.TinyProof)
	if took, err := prove(t.Context(), binary, tcg, vmm.Bootable{Kernel: c.Kernel, Initramfs: c.Initramfs}); err != nil {
		t.Errorf("a guest that prints the line: %v", err)
	} else {
		t.Logf("proven in %v", took)
	}
	if _, err := prove(t.Context(), binary, tcg, vmm.Bootable{Kernel: c.Root.Path, Initramfs: c.Initramfs}); err == nil {
		t.Error("zeroes as a kernel prove something")
	}
	silent := tiny(t, vmmtest.TinyHalt)
	begin := time.Now()
	if _, err := prove(t.Context(), binary, tcg, vmm.Bootable{Kernel: silent.Kernel, Initramfs: silent.Initramfs}); err == nil || !strings.Contains(err.Error(), "nothing of use in") {
		t.Errorf("a guest that hangs: %v", err)
	}
	if took := time.Since(begin); took < provingTime || took > provingTime+3*time.Second {
		t.Errorf("gave up after %v", took)
	}
}
