package kvm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/testhost"
)

func TestLook(t *testing.T) {
	const amd = "processor\t: 0\nflags\t\t: fpu vme svm lm\n\nprocessor\t: 1\nflags\t\t: fpu\n"
	for _, c := range []struct {
		name    string
		device  bool
		cpuinfo string
		usable  bool
		why     string
		hint    string
	}{
		{"all there", true, amd, true, "", ""},
		{"Intel", true, "flags : fpu vmx\n", true, "", ""},
		{"no device", false, amd, false, "there is no ", "modprobe kvm_amd"},
		{"no device, Intel", false, "flags : fpu vmx\n", false, "there is no ", "modprobe kvm_intel"},
		{"no device, no flag", false, "flags : fpu\n", false, "there is no ", "firmware"},
		{"a KVM that lies", true, "flags : fpu svme vmxx\n", false, "no vmx or svm flag", "nested"},
		{"nothing known of the processor", true, "", false, "no vmx or svm flag", "nested"},
	} {
		dir := t.TempDir()
		h := Host{Device: filepath.Join(dir, "kvm"), CPUInfo: filepath.Join(dir, "cpuinfo")}
		if c.device {
			if err := os.WriteFile(h.Device, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.cpuinfo != "" {
			if err := os.WriteFile(h.CPUInfo, []byte(c.cpuinfo), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if v := h.Look(); v.Usable != c.usable || !strings.Contains(v.Why, c.why) || !strings.Contains(v.Hint, c.hint) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

// Of a device that may not be opened it is said who may, unless that would not help.
func TestLookOfWhoMayNot(t *testing.T) {
	const asUser = "BANGER_TEST_AS_USER"
	if dir := os.Getenv(asUser); dir != "" {
		v := Host{Device: filepath.Join(dir, "kvm"), CPUInfo: filepath.Join(dir, "cpuinfo")}.Look()
		fmt.Printf("%v|%s|%s\n", v.Usable, v.Why, v.Hint)
		os.Exit(0)
	}
	testhost.Need(t, testhost.Root) // to be somebody else
	dir := testhost.Dir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(dir, "self") // the test's own program may lie where only root looks
	if b, err := os.ReadFile(os.Args[0]); err != nil || os.WriteFile(self, b, 0o755) != nil {
		t.Fatal(err)
	}
	device, cpuinfo := filepath.Join(dir, "kvm"), filepath.Join(dir, "cpuinfo")
	for _, c := range []struct {
		name, flags string
		mode        os.FileMode
		gid         int
		groups      []uint32
		want        string
	}{
		{"a group that may", "svm", 0o660, 5, nil, "false|" + device + " may not be opened by this user|as root: usermod -aG tty 54321; then log in again"},
		{"a group of no name", "svm", 0o660, 54322, nil, "false|" + device + " may not be opened by this user|as root: chgrp kvm " + device + " && chmod 660 " + device + " && usermod -aG kvm 54321; then log in again"},
		{"root's alone", "vmx", 0o600, 0, nil, "false|" + device + " may not be opened by this user|as root: chgrp kvm " + device + " && chmod 660 " + device + " && usermod -aG kvm 54321; then log in again"},
		{"a processor that cannot", "fpu", 0o600, 0, nil, "false|the processor has no vmx or svm flag|switch nested virtualization on in the machine below"},
		{"one of the group", "svm", 0o660, 5, []uint32{5}, "true||"},
	} {
		if err := os.WriteFile(cpuinfo, []byte("flags\t: "+c.flags+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Chown(device, 0, c.gid), os.Chmod(device, c.mode)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestLookOfWhoMayNot$")
		cmd.Env, cmd.Dir = []string{asUser + "=" + dir, "HOME=/"}, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321, Groups: c.groups}}
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, err, out, c.want)
		}
	}
}
