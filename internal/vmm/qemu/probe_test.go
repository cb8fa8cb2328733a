package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger/internal/host/kvm"
	"banger/internal/vm"
	"banger/internal/vmm"
)

const svm = "processor\t: 0\nflags\t\t: fpu vme svm lm\n\nprocessor\t: 1\nflags\t\t: fpu\n"

// stub is a driver over a QEMU that is a shell script, whose calls are lines in the file runs.
func stub(t *testing.T, dir string) (d *Driver, runs func() int) {
	t.Helper()
	binary, calls := filepath.Join(dir, "qemu-system-x86_64"), filepath.Join(dir, "calls")
	script := "#!/bin/sh\necho \"$*\" >> " + calls + "\n" + `case "$1" in -version) echo "QEMU emulator version 7.2.22 (Debian)";; esac` + "\n"
	if _, err := os.Stat(binary); err != nil {
		if err := os.WriteFile(binary, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d = New(Config{Binary: binary, StateDir: dir})
	d.host = kvm.Host{Device: filepath.Join(dir, "kvm"), CPUInfo: filepath.Join(dir, "cpuinfo")}
	return d, func() int {
		b, _ := os.ReadFile(calls)
		return strings.Count(string(b), "\n")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProbeOnceABoot(t *testing.T) {
	dir := t.TempDir()
	d, runs := stub(t, dir)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if p := d.Probe(t.Context()); !p.Usable || p.Version != "7.2.22" || p.Accel != "tcg" {
				t.Errorf("probe says %+v", p)
			}
		})
	}
	wg.Wait()
	if n := runs(); n != 2 { // -version, and the trial
		t.Errorf("QEMU ran %d times", n)
	}
	first, _ := d.find(t.Context())

	next, _ := stub(t, dir) // the next daemon runs nothing
	if f, err := next.find(t.Context()); err != nil || f != first {
		t.Errorf("found %+v, %v; before %+v", f, err, first)
	}
	if n := runs(); n != 2 {
		t.Errorf("QEMU ran %d times", n)
	}

	for name, spoil := range map[string]string{
		"corrupt": "{", "another boot": strings.Replace(read(t, d.stateFile), first.BootID, "00", 1), "empty": "",
		"upgraded": strings.Replace(read(t, d.stateFile), `"size": `, `"size": 1`, 1),
	} {
		write(t, d.stateFile, spoil)
		before := runs()
		again, _ := stub(t, dir)
		if f, err := again.find(t.Context()); err != nil || f.BootID != first.BootID || f.Version != first.Version || runs() != before+2 {
			t.Errorf("%s probe.json: %+v, %v after %d runs", name, f, err, runs()-before)
		}
		if got, known := loadFindings(d.stateFile, first); !known || got.Version != first.Version {
			t.Errorf("%s probe.json is not written anew", name)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestProbeWithoutQEMU(t *testing.T) {
	d := New(Config{Binary: "qemu-system-none", StateDir: t.TempDir()})
	p := d.Probe(t.Context())
	if p.Usable || p.Hint == "" || !strings.Contains(p.Why, "qemu-system-none") {
		t.Errorf("probe says %+v", p)
	}
	if _, _, err := d.Launch(t.Context(), example()); vm.CodeOf(err) != vm.CodeMissing {
		t.Errorf("launch: %v", err)
	}
}

// A caller that goes away while it probes leaves no verdict.
func TestProbeCancelled(t *testing.T) {
	d, _ := stub(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p := d.Probe(ctx); p.Usable {
		t.Errorf("probe says %+v", p)
	}
	if p := d.Probe(t.Context()); !p.Usable {
		t.Errorf("afterwards it says %+v", p)
	}
}

func TestKVMVerdicts(t *testing.T) {
	noBoot := func(context.Context) (vmm.Bootable, error) { return vmm.Bootable{}, errors.New("no kernel yet") }
	boot := func(context.Context) (vmm.Bootable, error) {
		return vmm.Bootable{Kernel: "/k/vmlinux", Initramfs: "/k/initramfs"}, nil
	}
	for _, c := range []struct {
		name      string
		device    bool
		cpuinfo   string
		proveBoot func(context.Context) (vmm.Bootable, error)
		says      string // what the stub prints as a guest
		want      verdict
		why       string
	}{
		{"no device", false, svm, boot, "", kvmUnusable, "there is no"},
		{"no flag", true, "flags\t: fpu\n", boot, "BANGER-GUEST-RUNS", kvmUnusable, "no vmx or svm flag"},
		{"no cpuinfo", true, "", boot, "", kvmUnusable, "no vmx or svm flag"},
		{"nothing to boot with", true, svm, nil, "", kvmUnknown, "unproven"},
		{"no kernel", true, svm, noBoot, "", kvmUnknown, "no kernel yet"},
		{"boots", true, svm, boot, "[    0.1] noise\\r\\nBANGER-GUEST-RUNS\\r\\n", kvmProven, "booted under KVM"},
		{"is silent", true, svm, boot, "", kvmDisproven, "without a word"},
		{"says something else", true, svm, boot, "xBANGER-GUEST-RUNS", kvmDisproven, "does not boot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			d, _ := stub(t, dir)
			script := read(t, d.binary) + `case "$*" in *banger.prove=1*) printf '` + c.says + `';; esac` + "\n"
			if err := os.WriteFile(d.binary, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			if c.device {
				write(t, d.host.Device, "")
			}
			write(t, d.host.CPUInfo, c.cpuinfo)
			d.proveBoot = c.proveBoot
			f, err := d.find(t.Context())
			if err != nil || f.KVM != c.want || !strings.Contains(f.KVMWhy, c.why) {
				t.Fatalf("verdict %q because %q, %v; want %q", f.KVM, f.KVMWhy, err, c.want)
			}
			if p := d.Probe(t.Context()); (p.Accel == "kvm") != (c.want == kvmProven) || (p.Hint == "") != (c.want == kvmProven) || p.Version != "7.2.22" || (p.Limit == "") != (c.want == kvmProven) {
				t.Errorf("probe says %+v", p)
			}
			if c.want != kvmProven && c.want != kvmDisproven {
				return
			}
			next, runs := stub(t, dir) // remembered: no second boot
			next.proveBoot = noBoot
			before := runs()
			if f, err := next.find(t.Context()); err != nil || f.KVM != c.want || runs() != before {
				t.Errorf("the next daemon: %q, %v after %d runs", f.KVM, err, runs()-before)
			}
		})
	}
}

// On some hosts QEMU does not even start with the host's processor as it is.
func TestKVMTriesAProcessorWithLess(t *testing.T) {
	dir := t.TempDir()
	d, _ := stub(t, dir)
	script := read(t, d.binary) + `case "$*" in
*"-cpu host,-arch-capabilities"*banger.prove=1*|*banger.prove=1*"-cpu host,-arch-capabilities"*) printf 'BANGER-GUEST-RUNS\r\n';;
*banger.prove=1*) echo "kvm: error: failed to set MSR 0x10a" >&2; exit 1;;
esac
`
	if err := os.WriteFile(d.binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, d.host.Device, "")
	write(t, d.host.CPUInfo, svm)
	boot := func(context.Context) (vmm.Bootable, error) {
		return vmm.Bootable{Kernel: "/k/vmlinux", Initramfs: "/k/initramfs"}, nil
	}
	d.proveBoot = boot
	f, err := d.find(t.Context())
	if err != nil || f.KVM != kvmProven || f.KVMCPU != "host,-arch-capabilities" || !strings.Contains(f.KVMWhy, "host,-arch-capabilities") {
		t.Fatalf("found %+v, %v", f, err)
	}
	next, _ := stub(t, dir)
	next.proveBoot = func(context.Context) (vmm.Bootable, error) { return vmm.Bootable{}, errors.New("asked again") }
	if again, err := next.find(t.Context()); err != nil || again != f {
		t.Errorf("the next daemon found %+v, %v", again, err)
	}
}

// What is booted stays until the boots are over, with whatever outcome, and not for ever.
func TestProbeHoldsWhatItBoots(t *testing.T) {
	for _, says := range []string{"BANGER-GUEST-RUNS", "nothing of use"} {
		d, runs := stub(t, t.TempDir())
		script := read(t, d.binary) + `case "$*" in *banger.prove=1*) printf '` + says + `\r\n';; esac` + "\n"
		if err := os.WriteFile(d.binary, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, d.host.Device, "")
		write(t, d.host.CPUInfo, svm)
		begun, over, released := 0, 0, 0
		d.proveBoot = func(context.Context) (vmm.Bootable, error) {
			begun = runs()
			return vmm.Bootable{Kernel: "/k/vmlinux", Initramfs: "/k/initramfs", Release: func() { over, released = runs(), released+1 }}, nil
		}
		if p := d.Probe(t.Context()); released != 1 || over == begun || over != runs() || (p.Accel == "kvm") != (says == "BANGER-GUEST-RUNS") {
			t.Errorf("%s: let go %d times, after %d of %d runs, asked for after %d; %+v", says, released, over, runs(), begun, p)
		}
	}
}

// That somebody killed the QEMU that was to prove KVM says nothing of KVM: another daemon tries it again, this one does not.
func TestKVMForgetsWhatIsUnsure(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 {
		d, runs := stub(t, dir)
		if i == 0 {
			script := read(t, d.binary) + `case "$*" in *banger.prove=1*) kill -9 $$;; esac` + "\n"
			if err := os.WriteFile(d.binary, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		write(t, d.host.Device, "")
		write(t, d.host.CPUInfo, svm)
		tries := 0
		d.proveBoot = func(context.Context) (vmm.Bootable, error) {
			tries++
			return vmm.Bootable{Kernel: "/k/vmlinux", Initramfs: "/k/initramfs"}, nil
		}
		for range 2 {
			if p := d.Probe(t.Context()); p.Accel != "tcg" || !strings.Contains(p.Why, "signal: killed") || !strings.Contains(p.Hint, "daemon stop") || tries != 1 {
				t.Errorf("daemon %d: %+v after %d tries and %d runs", i, p, tries, runs())
			}
		}
	}
}

// Where neither boots, both reasons are told.
func TestKVMWithNoProcessor(t *testing.T) {
	d, _ := stub(t, t.TempDir())
	script := read(t, d.binary) + `case "$*" in *-arch-cap*) echo "second" >&2; exit 1;; *-cpu*host*) echo "first" >&2; exit 1;; esac` + "\n"
	if err := os.WriteFile(d.binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, d.host.Device, "")
	write(t, d.host.CPUInfo, svm)
	d.proveBoot = func(context.Context) (vmm.Bootable, error) {
		return vmm.Bootable{Kernel: "/k/vmlinux", Initramfs: "/k/initramfs"}, nil
	}
	f, err := d.find(t.Context())
	if err != nil || f.KVM != kvmDisproven || f.KVMCPU != "" || !strings.Contains(f.KVMWhy, "first") || !strings.Contains(f.KVMWhy, "second") ||
		strings.Contains(f.KVMWhy, "\n") {
		t.Errorf("found %+v, %v", f, err)
	}
	if p := d.Probe(t.Context()); !strings.HasSuffix(p.Hint, "rm "+d.stateFile) {
		t.Errorf("how to try it again: %q", p.Hint)
	}
}

// KVM that another hypervisor has now is free later.
func TestKVMForgetsThatItWasBusy(t *testing.T) {
	dir := t.TempDir()
	d, _ := stub(t, dir)
	busy := read(t, d.binary) + `case "$*" in *banger.prove=1*) echo "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy" >&2; exit 1;; esac` + "\n"
	if err := os.WriteFile(d.binary, []byte(busy), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, d.host.Device, "")
	write(t, d.host.CPUInfo, svm)
	tries := 0
	boot := func(context.Context) (vmm.Bootable, error) {
		tries++
		return vmm.Bootable{Kernel: "/k/vmlinux", Initramfs: "/k/initramfs"}, nil
	}
	next, _ := stub(t, dir)
	for i, d := range []*Driver{d, next} {
		d.proveBoot = boot
		if p := d.Probe(t.Context()); p.Accel != "tcg" || !strings.Contains(p.Why, "resource busy") || !strings.Contains(p.Hint, "another hypervisor") || tries != i+1 {
			t.Errorf("daemon %d: %+v after %d tries", i, p, tries)
		}
	}
}

// On a new host the first question comes before the first kernel: that verdict must not last for the daemon's life.
func TestKVMIsProvenOnceThereIsAKernel(t *testing.T) {
	dir := t.TempDir()
	d, _ := stub(t, dir)
	script := read(t, d.binary) + `case "$*" in *banger.prove=1*) printf 'BANGER-GUEST-RUNS\r\n';; esac` + "\n"
	if err := os.WriteFile(d.binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, d.host.Device, "")
	write(t, d.host.CPUInfo, svm)
	there := false
	d.proveBoot = func(context.Context) (vmm.Bootable, error) {
		if !there {
			return vmm.Bootable{}, errors.New("no kernel yet")
		}
		return vmm.Bootable{Kernel: "/k/vmlinux", Initramfs: "/k/initramfs"}, nil
	}
	if p := d.Probe(t.Context()); p.Accel != "tcg" {
		t.Fatalf("without a kernel: %+v", p)
	}
	there = true
	if p := d.Probe(t.Context()); p.Accel != "kvm" {
		t.Errorf("with one: %+v", p)
	}
	next, _ := stub(t, dir)
	next.proveBoot = d.proveBoot
	there = false
	if p := next.Probe(t.Context()); p.Accel != "kvm" {
		t.Errorf("the next daemon: %+v", p)
	}
}

// A device that goes, or comes back, counts at once; what a boot proved is remembered meanwhile.
func TestKVMIsLookedAtEachTime(t *testing.T) {
	dir := t.TempDir()
	d, _ := stub(t, dir)
	script := read(t, d.binary) + `case "$*" in *banger.prove=1*) printf 'BANGER-GUEST-RUNS\r\n';; esac` + "\n"
	if err := os.WriteFile(d.binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, d.host.CPUInfo, svm)
	tries := 0
	d.proveBoot = func(context.Context) (vmm.Bootable, error) {
		tries++
		return vmm.Bootable{Kernel: "/k/vmlinux", Initramfs: "/k/initramfs"}, nil
	}
	for _, there := range []bool{false, true, false, true} {
		if there {
			write(t, d.host.Device, "")
		} else {
			_ = os.Remove(d.host.Device)
		}
		next, _ := stub(t, dir)
		next.proveBoot = d.proveBoot
		for _, d := range []*Driver{d, next} {
			p := d.Probe(t.Context())
			if (p.Accel == "kvm") != there || there != (p.Hint == "") || !there && !strings.Contains(p.Why, "there is no ") {
				t.Errorf("device there %v: %+v", there, p)
			}
		}
	}
	if tries != 1 {
		t.Errorf("a boot was tried %d times", tries)
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright": "7.2.22",
		"QEMU emulator version 10.0.2\n":                                            "10.0.2",
		"QEMU emulator version 9.1":                                                 "9.1",
		"QEMU emulator version 8.2.94-rc1":                                          "8.2.94",
		"QEMU emulator version x":                                                   "",
		"qemu-img version 7.2.22":                                                   "",
		"":                                                                          "",
	} {
		got, err := parseVersion([]byte(in))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte("QEMU emulator version 7.2.22 (Debian)"))
	f.Add([]byte("QEMU emulator version 99999.1"))
	f.Fuzz(func(t *testing.T, out []byte) {
		v, err := parseVersion(out)
		if (err == nil) != (v != "") || len(v) > 14 || strings.Trim(v, "0123456789.") != "" {
			t.Errorf("%q: %q, %v", out, v, err)
		}
	})
}
