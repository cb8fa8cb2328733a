package lab

import (
	"context"
	"errors"
	"fmt"
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
	if stderr.Len() > 0 {
		l.Log("lab: %s", strings.TrimSpace(stderr.String()))
	}
	l.qemu = strings.TrimSpace(string(out))
	return nil
}

func (l *Lab) vcpus() string {
	if l.qemu == "" {
		return "1"
	}
	return vcpus
}

// last is the number of the lab's last processor.
func (l *Lab) last() string {
	if l.vcpus() == "1" {
		return "0"
	}
	return "1"
}
