package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/host/kvm"
	"banger/internal/host/proc"
	"banger/internal/testhost"
	"banger/internal/vm"
	"banger/internal/vmm"
)

func config() vmm.Config {
	return vmm.Config{
		ID: "0123456789ab", Name: "web", Dir: "/v", VCPU: 2, MemoryMiB: 512, Kernel: "/k/vmlinux", Initramfs: "/k/initramfs",
		Root: vmm.Disk{Path: "/v/system", Format: "raw"}, Work: &vmm.Disk{Path: "/v/work", Format: "raw"},
		Modules: &vmm.Disk{Path: "/k/modules", Format: "raw", ReadOnly: true},
		NIC:     &vmm.NIC{Tap: "bt0", MAC: "02:00:00:00:00:01"}, APISock: "/r/api.sock", AgentSock: "/r/agent.sock",
	}
}

func TestConfiguration(t *testing.T) {
	b, err := configuration(config(), files{kernel: "/vmlinux", initramfs: "/initramfs", disks: []string{"/disk0", "/disk1", "/disk2"}, agentSock: "/agent.sock", log: "/vmm.log"})
	if err != nil {
		t.Fatal(err)
	}
	var got Machine
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	args := got.BootSource.BootArgs
	got.BootSource.BootArgs = ""
	want := Machine{
		BootSource: BootSource{KernelImagePath: "/vmlinux", InitrdPath: "/initramfs"},
		Drives: []Drive{{"disk0", "/disk0", false, false, "Writeback"}, {"disk1", "/disk1", false, false, "Writeback"},
			{"disk2", "/disk2", false, true, "Writeback"}},
		MachineConfig:     MachineConfig{VCPUCount: 2, MemSizeMiB: 512},
		NetworkInterfaces: []NetworkInterface{{"eth0", "02:00:00:00:00:01", "bt0"}},
		Vsock:             &Vsock{3, "/agent.sock"}, Logger: &Logger{"/vmm.log", "Warning"}, Entropy: &Entropy{},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, a := range []string{"reboot=k", "banger.root=dev:vda", "banger.work=dev:vdb", "banger.modules=dev:vdc", "banger.init=agent", "banger.channel=vsock:1024"} {
		if !strings.Contains(" "+args+" ", " "+a+" ") {
			t.Errorf("no %s in %q", a, args)
		}
	}
	c := config()
	c.Work = nil
	if args, err := kernelCommandLine(c); err != nil || !strings.Contains(args, "banger.modules=dev:vdb") {
		t.Errorf("without a work disk: %q, %v", args, err)
	}
}

func TestConfigurationRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*vmm.Config){
		"qcow2":             func(c *vmm.Config) { c.Root.Format = "qcow2" },
		"a relative disk":   func(c *vmm.Config) { c.Root.Path = "system" },
		"a user network":    func(c *vmm.Config) { c.NIC = &vmm.NIC{User: true} },
		"a hostile init":    func(c *vmm.Config) { c.Init = "/sbin/init banger.root=dev:vdx" },
		"an endless line":   func(c *vmm.Config) { c.Args = []string{strings.Repeat("x", maxCommandLine)} },
		"an empty argument": func(c *vmm.Config) { c.Args = []string{""} },
	} {
		c := config()
		spoil(&c)
		if b, err := configuration(c, files{disks: make([]string, 3)}); err == nil {
			t.Errorf("%s passed: %s", name, b)
		}
	}
}

func TestVersion(t *testing.T) {
	for out, want := range map[string]string{
		"Firecracker v1.12.1\n\n2025-01-01T00:00:00 [anonymous-instance:main] Firecracker exiting successfully. exit_code=0\n": "1.12.1",
		"Firecracker v1.8.0-dev\n": "1.8.0", "Firecracker v1.7.0\n": "", "Firecracker v2.0.0\n": "", "Firecracker v0.25.2\n": "",
		"QEMU emulator version 7.2\n": "", "": "", "Firecracker v1\n": "",
	} {
		name, got, err := parseVersion([]byte(out))
		if err == nil {
			err = Supports(got)
		}
		if (err == nil) != (want != "") || err == nil && (got != want || name != "Firecracker") {
			t.Errorf("%q: %q %q, %v", out, name, got, err)
		}
	}
	if name, got, err := parseVersion([]byte("Jailer v1.12.1\n")); name != "Jailer" || got != "1.12.1" || err != nil {
		t.Errorf("the jailer: %q %q, %v", name, got, err)
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte("Firecracker v1.12.1\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		if _, v, err := parseVersion(out); err == nil {
			_ = Supports(v)
		}
	})
}

func TestNamed(t *testing.T) {
	ref := config().Ref()
	for _, args := range [][]string{
		{"/usr/bin/firecracker", "--id", "0123456789ab", "--api-sock", "/r/api.sock"},
		{"/firecracker-v1.12.1-x86_64", "--id", "0123456789ab", "--start-time-us", "1"},
		{"/opt/jailer", "--id", "0123456789ab", "--exec-file", "/opt/firecracker"},
		{"/opt/fc", "--id", "0123456789ab", "--api-sock", "/r/api.sock"},
	} {
		if !named(args, ref) {
			t.Errorf("%q is not taken for it", args)
		}
	}
	for _, args := range [][]string{
		nil, {}, {"firecracker"}, {"firecracker", "--id"}, {"firecracker", "--id", "0123456789ac"},
	} {
		if named(args, ref) {
			t.Errorf("%q is taken for it", args)
		}
	}
}

// A command line is anybody's to choose: what only looks like the VMM is not found.
func TestFindWantsProof(t *testing.T) {
	testhost.Leaks(t)
	dir := testhost.Dir(t)
	c := config()
	c.Dir, c.APISock = dir, filepath.Join(dir, "api.sock")
	impostor(t, "firecracker", "--id", string(c.ID), "--api-sock", "/another/api.sock")
	if id, ok, err := New(Config{StateDir: dir}).Find(t.Context(), c.Ref()); ok || err != nil {
		t.Errorf("found %+v, %v", id, err)
	}
	impostor(t, "/opt/fc", "--id", string(c.ID), "--api-sock", c.APISock) // whatever config.toml calls it
	if _, ok, err := New(Config{StateDir: dir}).Find(t.Context(), c.Ref()); !ok || err != nil {
		t.Errorf("the real one is not found: %v", err)
	}
}

// impostor runs a program that waits, under whatever command line.
func impostor(t *testing.T, args ...string) {
	t.Helper()
	waiting(t, &exec.Cmd{Path: os.Args[0], Args: args, Env: append(os.Environ(), impostorEnv+"=1")})
}

// waiting starts a program that goes on until its input ends, as it does with the test.
func waiting(t *testing.T, cmd *exec.Cmd) proc.Identity {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	id, err := proc.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// On Linux 6.12 an exec closes what it has to, which is what Start waits for, while the arguments are still this program's.
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		args, err := proc.Args(id.PID)
		if slices.Equal(args, cmd.Args) {
			return id
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("process %d has the arguments %q, %v; want %q", id.PID, args, err, cmd.Args)
		}
	}
}

// What runs tells whether it is in a jail, not what the configuration says now.
func TestJailed(t *testing.T) {
	testhost.Need(t, testhost.Root)
	d := New(Config{NoJail: true, StateDir: testhost.Dir(t)})
	for what, c := range map[string]struct {
		uid    uint32
		args   []string
		jailed bool
	}{
		"free":      {0, []string{"firecracker", "--id", "0123456789ab", "--api-sock", "/run/api.sock"}, false},
		"jailed":    {900001, []string{"firecracker", "--id", "0123456789ab", "--api-sock", "/api.sock"}, true},
		"a jailer":  {0, []string{"jailer", "--id", "0123456789ab", "--chroot-base-dir", "/vms/0123456789ab/jail"}, true},
		"not there": {0, nil, true},
	} {
		var id proc.Identity
		if c.args != nil {
			// A shell, since other users cannot reach this program; the arguments after its script are what is looked at.
			args := append([]string{c.args[0], "-c", "read nothing", "sh"}, c.args[1:]...)
			id = waiting(t, &exec.Cmd{Path: "/bin/sh", Args: args, SysProcAttr: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}})
		}
		if jailed, err := d.Jailed(id); err != nil || jailed != c.jailed {
			t.Errorf("%s: %v, %v", what, jailed, err)
		}
	}
}

// A driver that jails never starts a VMM as root instead.
func TestNoJailWithoutAUser(t *testing.T) {
	testhost.Need(t, testhost.Root) // else there are no jails
	dir := testhost.Dir(t)
	program := filepath.Join(dir, "firecracker")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'Firecracker v1.12.1'\ntouch "+filepath.Join(dir, "ran")+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := config()
	c.Dir, c.APISock, c.AgentSock = dir, filepath.Join(dir, "api.sock"), filepath.Join(dir, "agent.sock")
	c.Console, c.Log = filepath.Join(dir, "console"), filepath.Join(dir, "log")
	d := New(Config{StateDir: dir, Locate: func() (string, string, error) { return program, program, nil }})
	if _, exited, err := d.Launch(t.Context(), c); vm.CodeOf(err) != vm.CodeInternal || vm.HintOf(err) == "" {
		t.Errorf("launched: %v", err)
		if exited != nil {
			<-exited
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("it ran")
	}
}

func located(program string) func() (string, string, error) {
	return func() (string, string, error) { return program, "jailer", nil }
}

// TestProbeFollowsInstalls: what is installed, replaced or named anew counts at once.
func TestProbeFollowsInstalls(t *testing.T) {
	dir := testhost.Dir(t)
	where, why := "", vm.Errorf(vm.CodeMissing, "there is none").WithHint("get one")
	d := New(Config{NoJail: true, StateDir: dir, Host: kvm.Host{Device: filepath.Join(dir, "kvm")}, Locate: func() (string, string, error) {
		if where == "" {
			return "", "", why
		}
		return where, "", nil
	}})
	if p := d.Probe(t.Context()); p.Usable || !strings.Contains(p.Why, "there is none") || p.Hint != "get one" {
		t.Errorf("none: %+v", p)
	}
	for _, version := range []string{"1.9.0", "1.10.0"} {
		where = filepath.Join(dir, "firecracker-"+version)
		if err := os.WriteFile(where, []byte("#!/bin/sh\necho Firecracker v"+version+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if p := d.Probe(t.Context()); p.Version != version || p.Binary != where {
				t.Errorf("%s: %+v", version, p)
			}
		}
	}
	if err := os.WriteFile(where, []byte("#!/bin/sh\necho Jailer v1.10.0 # longer\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if p := d.Probe(t.Context()); !strings.Contains(p.Why, "it says that it is Jailer") {
		t.Errorf("another program: %+v", p)
	}
}

func TestProbeWithout(t *testing.T) {
	dir := testhost.Dir(t)
	d := New(Config{Locate: located(filepath.Join(dir, "firecracker")), StateDir: dir})
	if p := d.Probe(t.Context()); p.Usable || p.Pending || !strings.Contains(p.Why, "firecracker") || !strings.Contains(p.Hint, "vmm install") {
		t.Errorf("not installed: %+v", p)
	}
	script := "#!/bin/sh\necho 'Firecracker v1.12.1'\n"
	if err := os.WriteFile(filepath.Join(dir, "firecracker"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	c := Config{Locate: located(filepath.Join(dir, "firecracker")), NoJail: true, StateDir: dir, Host: kvm.Host{Device: filepath.Join(dir, "kvm")}}
	if p := New(c).Probe(t.Context()); p.Usable || !strings.Contains(p.Why, "there is no") || p.Version != "1.12.1" {
		t.Errorf("no device: %+v", p)
	}
	if err := errors.Join(os.WriteFile(c.Host.Device, nil, 0o600), os.WriteFile(filepath.Join(dir, "cpuinfo"), []byte("flags\t: fpu svm\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	c.Host.CPUInfo = filepath.Join(dir, "cpuinfo")
	c.ProveBoot = func(context.Context) (vmm.Bootable, error) {
		return vmm.Bootable{}, vm.Errorf(vm.CodeNotFound, "no kernel yet")
	}
	if p := New(c).Probe(t.Context()); p.Usable || !p.Pending {
		t.Errorf("nothing to boot: %+v", p)
	}
	c.ProveBoot = func(context.Context) (vmm.Bootable, error) { return vmm.Bootable{Kernel: "/k", Initramfs: "/i"}, nil }
	p := New(c).Probe(t.Context())
	if p.Usable || p.Pending || !strings.Contains(p.Why, "does not boot") {
		t.Errorf("a guest that prints nothing: %+v", p)
	}
	c.ProveBoot = func(context.Context) (vmm.Bootable, error) {
		t.Error("tried again in the same boot")
		return vmm.Bootable{}, nil
	}
	if again := New(c).Probe(t.Context()); again != p {
		t.Errorf("remembered %+v, found %+v", again, p)
	}
}

// serve answers one connection on a socket.
func serve(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(testhost.Dir(t), "v.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
		}
	}()
	return path
}

func TestDialVsock(t *testing.T) {
	asked := make(chan string, 1)
	path := serve(t, func(c net.Conn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		asked <- line
		_, _ = io.WriteString(c, "OK 1073741824\nhello") // the guest's first bytes right behind
		_ = c.Close()
	})
	conn, err := dialVsock(t.Context(), path, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "hello" {
		t.Errorf("read %q, %v", b, err)
	}
	if got := <-asked; got != "CONNECT 1024\n" {
		t.Errorf("asked %q", got)
	}
}

func TestDialVsockRefused(t *testing.T) {
	for name, answer := range map[string]string{"hung up": "", "half a line": "OK", "nonsense": "HTTP/1.1 200 OK\n", "endless": strings.Repeat("x", 1<<16)} {
		path := serve(t, func(c net.Conn) {
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		})
		if conn, err := dialVsock(t.Context(), path, 1); err == nil {
			_ = conn.Close()
			t.Errorf("%s: connected", name)
		}
	}
	path := serve(t, func(net.Conn) {}) // accepted, and silent
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := dialVsock(ctx, path, 1); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	if _, err := dialVsock(t.Context(), path+"x", 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
}

// A VMM may have been taken over by its guest: whatever it answers is an error in words, of bounded length.
func TestAPIAgainstAHostileVMM(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"not JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"endless":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 64<<20)) },
		"a fault": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"fault_message":"no"}`)
		},
	} {
		path := filepath.Join(testhost.Dir(t), "api.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
		go func() { _ = srv.Serve(l) }()
		if _, err := NewAPI(path).Info(t.Context()); err == nil || len(err.Error()) > 1000 {
			t.Errorf("%s: %.200v", name, err)
		}
		_ = srv.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
