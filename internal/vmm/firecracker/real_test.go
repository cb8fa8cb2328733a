package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/testhost"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// launcherEnv makes this test binary a launcher: it launches the configuration in it, says so, and waits to be killed.
const launcherEnv = "BANGER_TEST_LAUNCH"

// impostorEnv makes it a process that waits for the end of its input.
const impostorEnv = "BANGER_TEST_IMPOSTOR"

func TestMain(m *testing.M) {
	if os.Getenv(impostorEnv) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
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
	id, _, err := realDriver(filepath.Dir(c.Kernel), c.UID).Launch(context.Background(), c)
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

// realDriver is one over the real Firecracker, for machines of user uid (0: without jails), with its findings and the
// guest that proves KVM in dir.
func realDriver(dir string, uid int) *Driver {
	return New(Config{NoJail: uid == 0, StateDir: dir, ProveBoot: func(context.Context) (vmm.Bootable, error) {
		return vmm.Bootable{Kernel: filepath.Join(dir, "proof"), Initramfs: filepath.Join(dir, "initramfs")}, nil
	}})
}

// host makes a directory with what all machines of a test share.
func host(t *testing.T) string {
	t.Helper()
	testhost.Need(t, testhost.Real, testhost.Root, testhost.KVM, testhost.Firecracker)
	dir := testhost.Dir(t)
	for name, content := range map[string][]byte{
		"vmlinux": vmmtest.TinyImage(t, vmmtest.TinyHalt), "proof": vmmtest.TinyImage(t, vmmtest.TinyProof),
		"initramfs": make([]byte, 4096), "base.raw": make([]byte, 1<<20),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// machine is one that halts until it is ended, in directories of its own below dir; uid 0 is without a jail.
func machine(t *testing.T, dir string, uid int) vmm.Config {
	t.Helper()
	id := vm.NewID()
	own, run := filepath.Join(dir, "vms", string(id)), filepath.Join(dir, "run", string(id))
	for _, d := range []string{own, run} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"system", "work.ext4"} {
		if err := os.WriteFile(filepath.Join(own, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := vmm.Config{
		ID: id, Name: "web", Dir: own, UID: uid, VCPU: 1, MemoryMiB: 64,
		Kernel: filepath.Join(dir, "vmlinux"), Initramfs: filepath.Join(dir, "initramfs"),
		Root:    vmm.Disk{Path: filepath.Join(own, "system"), Format: "raw"},
		Work:    &vmm.Disk{Path: filepath.Join(own, "work.ext4"), Format: "raw"},
		Modules: &vmm.Disk{Path: filepath.Join(dir, "base.raw"), Format: "raw", ReadOnly: true},
		APISock: filepath.Join(run, "api.sock"), AgentSock: filepath.Join(run, "agent.sock"),
		Console: filepath.Join(own, "console.log"), Log: filepath.Join(own, "vmm.log"), Metrics: filepath.Join(own, "metrics"),
	}
	keepSecrets(t, c)
	return c
}

const jailedUID = 47001

func TestRealSuite(t *testing.T) {
	dir := host(t)
	for name, uid := range map[string]int{"jailed": jailedUID, "free": 0} {
		t.Run(name, func(t *testing.T) {
			testhost.Leaks(t)
			vmmtest.Suite(t, func(*testing.T) vmmtest.Env {
				return vmmtest.Env{
					Driver: realDriver(dir, uid), Processes: vmm.HostProcesses{}, LaunchAndDie: launchAndDie,
					Config: func(t *testing.T) vmm.Config { return machine(t, dir, uid) },
				}
			})
		})
	}
}

func launch(t *testing.T, d *Driver, c vmm.Config) (proc.Identity, <-chan string) {
	t.Helper()
	id, exited, err := d.Launch(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proc.Signal(id, unix.SIGKILL)
		_ = proc.Wait(context.Background(), id)
		if err := d.Remove(context.Background(), c.Ref()); err != nil {
			t.Error(err)
		}
	})
	return id, exited
}

// awaitAPI waits until the API answers.
func awaitAPI(t *testing.T, c vmm.Config) *API {
	t.Helper()
	api := NewAPI(c.APISock)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		info, err := api.Info(t.Context())
		if err == nil && info.State == StateRunning {
			if info.ID != string(c.ID) || info.VMMVersion == "" || info.AppName != "Firecracker" {
				t.Errorf("info %+v", info)
			}
			return api
		}
		if time.Now().After(end) {
			t.Fatalf("the API does not answer: %+v, %v", info, err)
		}
	}
}

// Every call of the client against the real thing.
func TestRealAPI(t *testing.T) {
	dir := host(t)
	testhost.Leaks(t)
	d, c := realDriver(dir, jailedUID), machine(t, dir, jailedUID)
	launch(t, d, c)
	api := awaitAPI(t, c)
	if v, err := api.Version(t.Context()); err != nil || Supports(v) != nil {
		t.Errorf("version %q, %v", v, err)
	}
	if m, err := api.MachineConfig(t.Context()); err != nil || m.VCPUCount != c.VCPU || m.MemSizeMiB != c.MemoryMiB {
		t.Errorf("machine %+v, %v", m, err)
	}
	for _, step := range []struct {
		do   func(context.Context, vmm.Ref) error
		want string
	}{{d.Pause, StatePaused}, {d.Pause, StatePaused}, {d.Resume, StateRunning}, {d.Resume, StateRunning}} {
		if err := step.do(t.Context(), c.Ref()); err != nil {
			t.Errorf("to %s: %v", step.want, err)
		}
		if info, err := api.Info(t.Context()); err != nil || info.State != step.want {
			t.Errorf("%+v, %v, want %s", info, err, step.want)
		}
	}
	if err := api.FlushMetrics(t.Context()); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(c.Metrics); err != nil || !json.Valid([]byte(strings.SplitN(string(b), "\n", 2)[0])) {
		t.Errorf("metrics %.100q, %v", b, err)
	}
	err := api.call(t.Context(), "PUT", "/machine-config", MachineConfig{VCPUCount: 2, MemSizeMiB: 64}, nil)
	if err == nil || !strings.Contains(err.Error(), "400") || !strings.Contains(err.Error(), "microVM") {
		t.Errorf("changing a running machine: %v", err)
	}
}

// What lies in a jail: no secret, nothing that another VM can write, nothing that the VM's user can write but its own.
func TestRealJail(t *testing.T) {
	dir := host(t)
	testhost.Leaks(t)
	d := realDriver(dir, jailedUID)
	a, b := machine(t, dir, jailedUID), machine(t, dir, jailedUID+1)
	for _, c := range []vmm.Config{a, b} {
		id, _ := launch(t, d, c)
		awaitAPI(t, c)
		if uid, err := proc.UID(id.PID); err != nil || uid != c.UID {
			t.Errorf("it runs as user %d, %v, want %d", uid, err, c.UID)
		}
		if jailed, err := d.Jailed(id); err != nil || !jailed {
			t.Errorf("it is in its jail, and is said to be: %v, %v", jailed, err)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", id.PID))
		if err != nil || !strings.Contains(string(status), "CapEff:\t0000000000000000") || !strings.Contains(string(status), "Seccomp:\t2") {
			t.Errorf("it has capabilities, or no filter: %v\n%s", err, status)
		}
	}
	shared := map[uint64]string{}
	for _, c := range []vmm.Config{a, b} {
		root := d.jailRoot(c.Ref(), d.found.Binary)
		noSecret(t, root, a, b)
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			writable := int(st.Uid) == c.UID && st.Mode&0o200 != 0 || st.Mode&0o002 != 0
			if st.Uid != 0 && int(st.Uid) != c.UID {
				t.Errorf("%s belongs to user %d", path, st.Uid)
			}
			if other, ok := shared[st.Ino]; ok && st.Mode&unix.S_IFMT == unix.S_IFREG && writable {
				t.Errorf("%s is %s, and can be written", path, other)
			}
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				shared[st.Ino] = path
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if err := d.Quit(t.Context(), a.Ref()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, ok, err := d.Find(t.Context(), a.Ref()); err == nil && !ok {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not quit")
		}
	}
	for range 2 {
		if err := d.Remove(t.Context(), a.Ref()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(jailBase(a.Ref())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the jail is still there: %v", err)
	}
	for _, disk := range disksOf(a) {
		if fi, err := os.Stat(disk.Path); err != nil || fi.Size() != 1<<20 {
			t.Errorf("disk %s: %v, %v", disk.Path, fi, err)
		}
	}
	if _, ok, err := d.Find(t.Context(), b.Ref()); err != nil || !ok {
		t.Errorf("the other machine is gone: %v", err)
	}
}
