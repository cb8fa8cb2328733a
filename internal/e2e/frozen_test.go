package e2e

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
)

// A guest that is frozen with its VMM takes no signal. Whoever waits for a command in it can leave all the same, by one
// signal or at once by two, and the guest goes on as if nothing had been when it is let.
func TestAFrozenGuestHoldsNoClient(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("web")
	vmm, err := proc.Identify(b.show("web").Handles.PID)
	if err != nil {
		t.Fatal(err)
	}
	begin := func() (*exec.Cmd, *lockedBuffer, *lockedBuffer) {
		var out, errs lockedBuffer
		cmd := b.command("vm", "exec", "web", "--", "sh", "-c", "echo ready; exec tail -f /dev/null")
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.until(t, "ready")
		return cmd, &out, &errs
	}
	once, _, onceSays := begin()
	twice, _, twiceSays := begin()
	if err := proc.Signal(vmm, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = proc.Signal(vmm, unix.SIGCONT) }()
	// Two that are alike could become one on their way.
	if err := errors.Join(once.Process.Signal(unix.SIGTERM), twice.Process.Signal(unix.SIGINT), twice.Process.Signal(unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	_ = twice.Wait()
	if code, says := twice.ProcessState.ExitCode(), twiceSays.String(); code != 143 && code != 130 || says != "" {
		t.Errorf("after two: exit code %d, %q", code, says)
	}
	_ = once.Wait()
	if code, says := once.ProcessState.ExitCode(), onceSays.String(); code != 143 || !strings.Contains(says, "VM web: left after SIGTERM, since its guest does not answer") {
		t.Errorf("after one: exit code %d, %q", code, says)
	}
	if err := proc.Signal(vmm, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// What was on its way when they left may reach the commands, or not: then they wait for another client.
	for _, job := range strings.Fields(b.ok("vm", "jobs", "-q", "web")) {
		_, _, _ = b.run(nil, "vm", "signal", "web", job, "KILL")
	}
	b.ok("vm", "exec", "web", "--", "sh", "-c", "while grep -qsx tail /proc/[0-9]*/comm; do sleep 0.1; done")
}

// A guest that has died while its VMM lives, as one that was powered off by force does under Firecracker, holds nobody who
// follows a command in it. Here all of its agent stops, under a kernel that says that it has halted.
func TestADeadGuestHoldsNoClient(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("web")
	const die = `g=/sys/fs/cgroup/frozen; mkdir $g && echo 1 >$g/cgroup.procs && echo '<0>reboot: System halted' >/dev/kmsg && echo 1 >$g/cgroup.freeze; exec sleep 1000`
	b.fails(125, "the connection to the guest broke", "vm", "exec", "web", "--", "sh", "-c", die)
	if v := b.show("web"); !v.Observed.Alive {
		t.Errorf("its VMM has ended: %+v", v.Observed)
	}
}
