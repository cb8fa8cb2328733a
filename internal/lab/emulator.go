package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// emulator finds or gets the QEMU that runs the lab. Before 8.1 two emulated processors were no good: the kernel panicked
// now and then when it patched its own code, as it does at the first KVM guest, and one guest in fifteen within the lab
// hung. Where no newer one can be had, the lab is slow and has one processor.
func (l *Lab) emulator(ctx context.Context) error {
	dir, err := filepath.Abs(filepath.Join(l.Cache, "qemu"))
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	cmd := exec.CommandContext(bounded, filepath.Join(l.Repo, "scripts", "lab-qemu"), dir)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // its apt-get ends with it
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = patience
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return fmt.Errorf("get a QEMU for the lab: %w\n%s", ctx.Err(), stderr.String())
	}
	if err != nil {
		l.Log("lab: one processor only, by the host's own QEMU: %v: %s", errors.Join(err, bounded.Err()), stderr.String())
		return nil
	}
	l.qemu = strings.TrimSpace(string(out))
	return nil
}

// bytewise is a QEMU whose processors say that they are good at string instructions, which banger takes away from emulated
// ones. A lab is half as fast so, but labs whose kernel copies by words died several times as often (docs/adr/0004).
const bytewise = `#!/bin/sh
last=
for a; do
    shift
    [ "$last" = -cpu ] && a=${a%%%%,*} # a processor with all that it has
    last=$a
    set -- "$@" "$a"
done
exec %s/qemu-system-x86_64 "$@"
`

// slow puts such a QEMU in front of the lab's own.
func (l *Lab) slow() error {
	if l.qemu == "" || l.Fast {
		return nil
	}
	bin := filepath.Join(l.Dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	err := os.WriteFile(filepath.Join(bin, "qemu-system-x86_64"), fmt.Appendf(nil, bytewise, l.qemu), 0o700) //nolint:gosec // a program
	l.qemu = bin + ":" + l.qemu
	return err
}

func (l *Lab) vcpus() string {
	if l.qemu == "" {
		return "1"
	}
	return vcpus
}
