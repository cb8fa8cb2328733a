package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
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
	// What would hang is to panic, so that it is seen. A lab on a busy host may stand still for a minute.
	if _, err := l.output(ctx, "sysctl", "-q", "kernel.watchdog_thresh=60", "kernel.softlockup_panic=1", "kernel.panic_on_oops=1"); err != nil {
		return err
	}
	if _, err := l.output(ctx, holdCode...); err != nil {
		return err
	}
	_, err := l.output(ctx, holdsCode...)
	return err
}

// holdCode keeps the lab's kernel from patching its own code again and again: with the first and the last user of some
// facilities it does so, and an emulated processor that another one patches code under may run the old code
// (docs/adr/0004). This unit is a user of each that VMs and their networks come and go with: a machine of
// KVM whose processor never ran, a limit on processor time, and a chain on every hook of netfilter. What is patched is seen
// by ftrace's text_poke_bp_batch.
var holdCode = []string{"systemd-run", "--quiet", "--unit", "hold-code", "-p", "PrivateNetwork=yes", "-p", "CPUQuota=100%", "sh", "-ec", `
nft -f - <<.
table inet hold {
    chain prerouting { type filter hook prerouting priority 0; ct state new; }
    chain input { type filter hook input priority 0; }
    chain forward { type filter hook forward priority 0; }
    chain output { type filter hook output priority 0; }
    chain postrouting { type nat hook postrouting priority 0; }
}
table bridge hold {
    chain prerouting { type filter hook prerouting priority 0; }
    chain input { type filter hook input priority 0; }
    chain forward { type filter hook forward priority 0; }
    chain output { type filter hook output priority 0; }
    chain postrouting { type filter hook postrouting priority 0; }
}
table netdev hold {
    chain ingress { type filter hook ingress device lo priority 0; }
    chain egress { type filter hook egress device lo priority 0; }
}
.
exec qemu-system-x86_64 -machine pc -accel kvm -m 16 -S -nodefaults -display none`}

// holdsCode waits until the unit is a user of all that.
var holdsCode = []string{"sh", "-c", `for try in $(seq 100); do
    ls -l /proc/$(systemctl show --property MainPID --value hold-code)/fd 2>/dev/null | grep -q kvm-vcpu && exit
    sleep 0.2
done
systemctl status --no-pager hold-code; exit 1`}

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
	if err := l.again(ctx); err != nil {
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

// again starts a lab that has ended.
func (l *Lab) again(ctx context.Context) error {
	if _, err := l.banger(ctx, "vm", "start", "-q", name); err != nil {
		return err
	}
	return l.ready(ctx)
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

// died says that the lab's own kernel has panicked, which an emulated processor makes it do now and then
// (docs/adr/0004), and which says nothing of banger. A lab that is gone for another reason has not died of itself.
func (l *Lab) died() bool {
	ctx := context.Background()
	if _, err := l.banger(ctx, "vm", "wait", "--for", "stopped", "--timeout", "10s", name); err != nil {
		return false
	}
	why, err := l.banger(ctx, "vm", "show", name) // its console may still have the panic before this one
	return err == nil && strings.Contains(why, "its guest's kernel panicked")
}

// lives is how often a lab's kernel may panic until that is no chance any more.
const lives = 3

// revive starts the lab once more if its kernel has panicked, and says so in t's log with what that cut short.
func (l *Lab) revive(t *testing.T, during string) bool {
	t.Helper()
	if t.Context().Err() != nil || l.deaths == lives || !l.died() {
		return false
	}
	l.deaths++
	t.Logf("REPORT: the lab's own kernel panicked for the %d. time, in %s\n%s", l.deaths, cmp.Or(during, "none of its tests"), l.console())
	if err := l.again(t.Context()); err != nil {
		t.Errorf("start the lab again: %v", err)
		return false
	}
	return true
}
