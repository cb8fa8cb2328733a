package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// What a VMM says of a host that has no room just now holds for just now. That it says nothing at all does not.
func TestProveUnsure(t *testing.T) {
	vmm := filepath.Join(t.TempDir(), "vmm")
	for _, c := range []struct {
		name, script string
		unsure       bool
	}{
		{"QEMU, another hypervisor", "echo 'ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy' >&2; exit 1", true},
		{"QEMU, no memory", "echo 'qemu-system-x86_64: cannot set up guest memory: Cannot allocate memory' >&2; exit 1", true},
		{"on stdout alone", "echo 'Event fd error: No file descriptors available (os error 24)'; exit 1", true},
		{"killed", "kill -9 $$", true},
		{"refused", "echo 'Could not access KVM kernel module: Permission denied' >&2; exit 1", false},
		{"a number like one", "echo 'Error(160), exit code: 16' >&2; exit 1", false},
		{"another error, with such words of the guest", "echo 'Device or resource busy'; echo 'no such machine' >&2; exit 1", false},
		{"silent", "exit 0", false},
		{"hangs, and says why", "echo 'Device or resource busy'; exec sleep 1000", false},
	} {
		if err := os.WriteFile(vmm, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		most := 20 * time.Second
		if c.name == "hangs, and says why" {
			most = 200 * time.Millisecond
		}
		if _, err := Prove(t.Context(), most, vmm); err == nil || Unsure(err) != c.unsure {
			t.Errorf("%s: %v, unsure: %v", c.name, err, Unsure(err))
		}
	}
	if _, err := Prove(t.Context(), time.Second, vmm+"x"); !Unsure(err) {
		t.Errorf("what did not even run: %v", err)
	}
	if !Unsure(fmt.Errorf("write what it is to boot: %w", unix.ENOSPC)) || Unsure(unix.EACCES) {
		t.Error("an error of our own is judged by its words")
	}
	if err := os.WriteFile(vmm, []byte("#!/bin/sh\necho 'Device or resource busy'; echo "+guest.ProofLine+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Prove(t.Context(), 20*time.Second, vmm); err != nil {
		t.Errorf("it proved: %v", err)
	}
}
