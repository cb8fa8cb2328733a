package e2e

import (
	"strings"
	"testing"
	"time"

	"banger/internal/testhost"
	"banger/internal/vm"
)

// An image with an init of its own gets PID 1; the agent lives on beside it, through daemon-reload and a dead daemon.
func TestTheImagesInitIsPID1(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("sd", "--image", testhost.SystemdImage)
	b.systemd("sd")
	if got := b.ok("vm", "exec", "sd", "--", "sh", "-c", "cat /proc/1/comm; hostname; systemctl daemon-reload; systemctl daemon-reexec"); got != "systemd\nsd\n" {
		t.Errorf("%q", got)
	}
	kill9(t, b.daemonPID())
	if got := b.ok("vm", "exec", "sd", "--", "sh", "-c", "systemctl is-system-running; pgrep -fc '^@banger-guest'"); got != "running\n1\n" {
		t.Errorf("%q", got)
	}
	b.ok("vm", "stop", "sd")
	if v := b.show("sd"); v.State != vm.StateStopped || v.Runtime.LastError != "" {
		t.Errorf("%+v", v)
	}
	if got := b.ok("vm", "logs", "sd"); !strings.Contains(got, "systemd-shutdown") && !strings.Contains(got, "reboot: ") {
		t.Errorf("the console tells of no orderly end: %q", got)
	}
	b.ok("vm", "start", "sd")
	b.systemd("sd")
	_, _, _ = b.run(nil, "vm", "exec", "sd", "--", "systemctl", "poweroff")
	if v := b.untilState("sd", vm.StateStopped, time.Minute); v.Runtime.LastError != "" {
		t.Errorf("powered off from within, that is no error: %q", v.Runtime.LastError)
	}
}

// systemd waits until it has started everything in the guest.
func (b *box) systemd(name string) {
	b.t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		out, _, _ := b.run(nil, "vm", "exec", name, "--", "systemctl", "is-system-running", "--wait")
		if strings.TrimSpace(out) == "running" {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("systemd is %q: %s", out, b.ok("vm", "exec", name, "--", "systemctl", "--failed"))
		}
	}
}
