package qemu

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"time"

	"banger/internal/guest"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// provingTime bounds one boot that is to prove KVM. A working one takes under a second, one on a KVM that is itself emulated
// some seconds.
const provingTime = 20 * time.Second

// trial starts a machine without a guest and ends it: does this QEMU have microvm, and does it take the sandbox?
func trial(ctx context.Context, binary string) (sandbox bool, err error) {
	try := func(extra ...string) (string, error) {
		args := append([]string{"-machine", "microvm", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio"}, extra...)
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}` + "\n" + `{"execute":"quit"}` + "\n")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		return strings.TrimSpace(stderr.String()), err
	}
	if _, err := try("-sandbox", sandboxOptions); err == nil {
		return true, nil
	}
	words, err := try()
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil {
		return false, vm.Errorf(vm.CodeMissing, "start a microvm without a guest: %w: %s", err, words).
			WithHint("install a QEMU for x86-64 of version 5.2 or later, with the microvm machine")
	}
	return false, nil
}

// prove boots a guest with guest.ArgProve until it prints guest.ProofLine, and returns how long that took. The process
// has ended on return, whatever happened: the deadline kills it, through its pidfd.
func prove(ctx context.Context, binary string, accel []string, b vmm.Bootable) (time.Duration, error) {
	args := append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-smp", "1", "-m", "256M",
		"-kernel", b.Kernel, "-initrd", b.Initramfs,
		"-append", "console=ttyS0 quiet panic=-1 reboot=t " + guest.ArgProve + "=1",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
	}, accel...)
	return vmm.Prove(ctx, provingTime, binary, args...)
}
