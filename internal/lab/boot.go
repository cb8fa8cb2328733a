package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const bootTime = 3 * time.Minute

// modules that the lab's tests need. Loop and tun would come by themselves; the others nobody asks for by a device.
var modules = []string{"dm-snapshot", "loop", "tun", "vhost_vsock"}

// ready waits until the lab is as far as services are on a host that has booted (basic.target: file systems, udev,
// sockets), and then loads the modules. Whether every unit started is seen to by settled: nobody here needs a login.
func (l *Lab) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("the lab is not up after %v", bootTime))
	defer cancel()
	for {
		// In the first moments nobody answers systemctl, and nothing tells when somebody will.
		_, stderr, code, err := l.Exec(ctx, "systemctl", "start", "basic.target")
		if err != nil {
			return err
		}
		if code == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for systemd in the lab: %w\n%s", context.Cause(ctx), stderr)
		case <-time.After(200 * time.Millisecond):
		}
	}
	// The processor is the host's where the host has KVM, else an AMD one that QEMU emulates.
	kvm := "kvm-intel"
	if _, _, code, err := l.Exec(ctx, "grep", "-qw", "svm", "/proc/cpuinfo"); err != nil {
		return err
	} else if code == 0 {
		kvm = "kvm-amd"
	}
	if _, err := l.output(ctx, append([]string{"modprobe", "-a", kvm}, modules...)...); err != nil {
		return err
	}
	if _, err := l.output(ctx, "ls", "/dev/kvm", "/dev/mapper/control", "/dev/loop-control", "/dev/net/tun", "/dev/vhost-vsock"); err != nil {
		return err
	}
	_, err := l.output(ctx, holdKVM...)
	return err
}

// holdKVM has one machine of KVM, without a processor or memory, be there as long as the lab runs. With the first machine
// and with the last one the kernel patches its scheduler's code, and an emulated processor that is about to run what is
// patched may run the old code: the kernel panics. So it is patched once, and not around each guest of the tests.
var holdKVM = []string{"systemd-run", "--quiet", "--unit", "hold-kvm",
	"qemu-system-x86_64", "-machine", "none", "-accel", "kvm", "-nodefaults", "-display", "none"}

// settled waits until systemd has started everything. Units that failed are an error.
func (l *Lab) settled(ctx context.Context) error {
	stdout, stderr, _, err := l.Exec(ctx, "systemctl", "is-system-running", "--wait")
	if err != nil {
		return err
	}
	if state := strings.TrimSpace(stdout); state != "running" {
		units, _, _, err := l.Exec(ctx, "systemctl", "--failed", "--no-pager")
		return errors.Join(fmt.Errorf("systemd in the lab is %q\n%s%s", state, stderr, units), err)
	}
	return nil
}

// HardReset is a power cut: the VMM is killed, and started again with the disk kept. It returns when the lab is ready
// again, in another boot.
func (l *Lab) HardReset(ctx context.Context) error {
	before, err := l.bootID(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if _, err := l.banger(ctx, "vm", "kill", "-q", name); err != nil {
		return err
	}
	if _, err := l.banger(ctx, "vm", "start", "-q", name); err != nil {
		return err
	}
	if err := l.ready(ctx); err != nil {
		return err
	}
	after, err := l.bootID(ctx)
	if err != nil {
		return err
	}
	if after == before {
		return fmt.Errorf("reset the lab: its boot id is %s as before", before)
	}
	l.Log("lab: reset, and up again in %.1f s", time.Since(begin).Seconds())
	return nil
}

func (l *Lab) bootID(ctx context.Context) (string, error) {
	return l.output(ctx, "cat", "/proc/sys/kernel/random/boot_id")
}

// console is the end of what the lab's kernel and init wrote, for a lab that has died.
func (l *Lab) console() string {
	out, err := l.banger(context.Background(), "vm", "logs", "-n", "200", name)
	if err != nil {
		return err.Error()
	}
	return out
}
