package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/host/kvm"
	"banger/internal/testhost"
	"banger/internal/vmm"
)

// trying is the configuration of a Firecracker that is a shell script, on a host where KVM looks usable, and how often a
// boot was tried.
func trying(t *testing.T, boots string) (Config, *int) {
	t.Helper()
	dir := testhost.Dir(t)
	tries := 0
	c := Config{NoJail: true, StateDir: dir, Locate: located(filepath.Join(dir, "firecracker")),
		Host: kvm.Host{Device: filepath.Join(dir, "kvm"), CPUInfo: filepath.Join(dir, "cpuinfo")},
		ProveBoot: func(context.Context) (vmm.Bootable, error) {
			tries++
			return vmm.Bootable{Kernel: "/k", Initramfs: "/i"}, nil
		}}
	script := "#!/bin/sh\n[ \"$1\" = --version ] && echo 'Firecracker v1.12.1' && exit\n" + boots + "\n"
	err := errors.Join(os.WriteFile(filepath.Join(dir, "firecracker"), []byte(script), 0o700),
		os.WriteFile(c.Host.Device, nil, 0o600), os.WriteFile(c.Host.CPUInfo, []byte("flags\t: fpu svm\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return c, &tries
}

// What a boot proved is remembered, but KVM has to look usable each time.
func TestProbeLooksAtKVMEachTime(t *testing.T) {
	c, tries := trying(t, "echo "+guest.ProofLine)
	d := New(c)
	if p := d.Probe(t.Context()); !p.Usable || p.Accel != "kvm" {
		t.Fatalf("with KVM: %+v", p)
	}
	if err := os.Remove(c.Host.Device); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*Driver{d, New(c)} {
		if p := d.Probe(t.Context()); p.Usable || p.Accel != "" || !strings.Contains(p.Why, "there is no ") || p.Hint == "" {
			t.Errorf("its device is gone: %+v", p)
		}
	}
	if err := os.WriteFile(c.Host.Device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*Driver{d, New(c)} {
		if p := d.Probe(t.Context()); !p.Usable || !strings.Contains(p.Why, "a guest booted") || *tries != 1 {
			t.Errorf("its device is back: %+v after %d boots", p, *tries)
		}
	}
}

// What is booted stays until the boot is over, and not for ever.
func TestProbeHoldsWhatItBoots(t *testing.T) {
	booted := filepath.Join(testhost.Dir(t), "booted")
	for _, says := range []string{guest.ProofLine, "nothing of use"} {
		c, _ := trying(t, "touch "+booted+"; echo "+says)
		released := 0
		c.ProveBoot = func(context.Context) (vmm.Bootable, error) {
			return vmm.Bootable{Kernel: "/k", Initramfs: "/i", Release: func() {
				released++
				if err := os.Remove(booted); err != nil {
					t.Errorf("it is let go before the boot: %v", err)
				}
			}}, nil
		}
		if p := New(c).Probe(t.Context()); p.Usable != (says == guest.ProofLine) || released != 1 {
			t.Errorf("%s: %+v, let go %d times", says, p, released)
		}
	}
}

// KVM that comes later is tried then.
func TestProbeTriesKVMThatComesLater(t *testing.T) {
	c, tries := trying(t, "echo "+guest.ProofLine)
	if err := os.Rename(c.Host.Device, c.Host.Device+"x"); err != nil {
		t.Fatal(err)
	}
	d := New(c)
	if p := d.Probe(t.Context()); p.Usable || *tries != 0 {
		t.Fatalf("without KVM: %+v after %d boots", p, *tries)
	}
	if err := os.Rename(c.Host.Device+"x", c.Host.Device); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if p := d.Probe(t.Context()); !p.Usable || *tries != 1 {
			t.Errorf("with KVM: %+v after %d boots", p, *tries)
		}
	}
}

// That somebody killed the VMM that was to prove KVM says nothing of KVM: another daemon tries it again, this one does not.
func TestProbeForgetsWhatIsUnsure(t *testing.T) {
	c, tries := trying(t, "kill -9 $$")
	for i := range 2 {
		d := New(c)
		for range 2 {
			if p := d.Probe(t.Context()); p.Usable || !strings.Contains(p.Why, "signal: killed") || p.Hint == "" || *tries != i+1 {
				t.Errorf("daemon %d: %+v after %d boots", i, p, *tries)
			}
		}
	}
}

// So does a host that was short of something, or whose KVM another hypervisor had: each as Firecracker 1.12.1 says it, whose
// libc has other words for the errors than Go.
func TestProbeForgetsAHostThatWasBusy(t *testing.T) {
	for says, sure := range map[string]bool{
		"RunWithoutApiError(BuildMicroVMFromJson(StartMicroVM(Internal(Kvm(Kvm(Error(16)))))))":                                                                        false,
		`RunWithoutApiError(BuildMicroVMFromJson(StartMicroVM(GuestMemory(MmapRegionError(Mmap(Os { code: 12, kind: OutOfMemory, message: "Out of memory" }))))))`:     false,
		`RunWithoutApiError(BuildMicroVMFromJson(StartMicroVM(Internal(EventFd(Os { code: 24, kind: Uncategorized, message: "No file descriptors available" })))))`:    false,
		"Kvm error: Error creating KVM object: Interrupted system call (os error 4)":                                                                                   false,
		`RunWithoutApiError(BuildMicroVMFromJson(ParseFromJson(BootSource(InvalidKernelPath(Os { code: 2, kind: NotFound, message: "No such file or directory" })))))`: true,
		"RunWithoutApiError(BuildMicroVMFromJson(StartMicroVM(Internal(Kvm(Kvm(Error(22)))))))":                                                                        true,
	} {
		c, tries := trying(t, "echo 'Error: "+says+"' >&2; exit 1")
		for i := range 2 {
			d := New(c)
			want := i + 1
			hint := "and the next daemon tries it again"
			if sure {
				want, hint = 1, "rm "+filepath.Join(c.StateDir, "firecracker.json")
			}
			for range 2 {
				if p := d.Probe(t.Context()); p.Usable || !strings.Contains(p.Why, says) || !strings.Contains(p.Hint, hint) || *tries != want {
					t.Errorf("daemon %d: %+v after %d boots", i, p, *tries)
				}
			}
		}
		if err := os.RemoveAll(filepath.Join(c.StateDir, "firecracker.json")); err != nil { // as the hint says
			t.Fatal(err)
		}
		if before := *tries; New(c).Probe(t.Context()).Usable || *tries != before+1 {
			t.Errorf("%s: with its verdict removed KVM is not tried again", says)
		}
	}
}

// A mount may forbid what a jail needs. It is said before each VM fails of it, and counts no longer than it is so.
func TestProbeLooksAtTheJailsMount(t *testing.T) {
	testhost.Need(t, testhost.Root)
	c, _ := trying(t, "echo "+guest.ProofLine)
	jailing(t, &c, "1.12.1")
	c.VMs = t.TempDir()
	if err := unix.Mount("tmpfs", c.VMs, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(c.VMs, 0); err != nil {
			t.Error(err)
		}
	})
	d := New(c)
	for _, m := range []struct {
		flags uintptr
		why   string // empty: usable
	}{{0, ""}, {unix.MS_NODEV, "mounted nodev:"}, {unix.MS_NOEXEC, "mounted noexec:"}, {unix.MS_NODEV | unix.MS_NOEXEC, "mounted nodev, noexec:"}, {unix.MS_NOSUID, ""}} {
		if err := unix.Mount("", c.VMs, "", unix.MS_REMOUNT|m.flags, "size=64k"); err != nil {
			t.Fatal(err)
		}
		p := d.Probe(t.Context())
		if p.Usable != (m.why == "") || !strings.Contains(p.Why, m.why) || !p.Usable && p.Hint == "" {
			t.Errorf("flags %#x: %+v", m.flags, p)
		}
		c.NoJail = true
		if p := New(c).Probe(t.Context()); !p.Usable {
			t.Errorf("flags %#x, without jails: %+v", m.flags, p)
		}
	}
}

// jailing has the configuration make jails, with a jailer that says that it is of this version.
func jailing(t *testing.T, c *Config, version string) {
	t.Helper()
	program, _, _ := c.Locate()
	jailer := filepath.Join(filepath.Dir(program), "jailer")
	if err := os.WriteFile(jailer, []byte("#!/bin/sh\necho 'Jailer v"+version+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.NoJail, c.Locate = false, func() (string, string, error) { return program, jailer, nil }
}

// A jailer that cannot do its work is told of before a VM is made that fails of it, and counts anew once it is another.
func TestProbeLooksAtTheJailer(t *testing.T) {
	testhost.Need(t, testhost.Root)
	c, tries := trying(t, "echo "+guest.ProofLine)
	c.VMs = t.TempDir()
	jailing(t, &c, "1.12.1")
	d := New(c)
	program, jailer, _ := c.Locate()
	usable := func(d *Driver, why string) {
		t.Helper()
		if p := d.Probe(t.Context()); p.Usable != (why == "") || !strings.Contains(p.Why, why) || !p.Usable && p.Hint == "" {
			t.Errorf("want %q: %+v", why, p)
		}
	}
	usable(d, "")
	for script, why := range map[string]string{
		"exit 0":                         jailer + " --version: it says",
		"echo 'Firecracker v1.12.1'":     jailer + ": it says that it is Firecracker",
		"echo 'Jailer v1.11.0'; exit  0": jailer + " is version 1.11.0, " + program + " is 1.12.1",
	} {
		if err := os.WriteFile(jailer, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		usable(d, why)
		usable(New(c), why)
	}
	jailing(t, &c, "1.12.1")
	usable(d, "")
	usable(New(c), "")
	if *tries != 1 {
		t.Errorf("%d boots of one program", *tries)
	}

	// The jailer's own rule.
	odd := filepath.Join(filepath.Dir(program), "fc")
	if err := os.Link(program, odd); err != nil {
		t.Fatal(err)
	}
	c.Locate = func() (string, string, error) { return odd, jailer, nil }
	usable(New(c), `"firecracker" in its name`)
	c.NoJail = true
	usable(New(c), "")
}
