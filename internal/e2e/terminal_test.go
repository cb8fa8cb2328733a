package e2e

import (
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"

	"banger/internal/api"
	"banger/internal/vm"
)

// `vm run` alone on a terminal opens a shell in a new VM, which stays; Ctrl-C while it starts takes away what was begun.
func TestRunOnATerminal(t *testing.T) {
	b := newBox(t)
	t.Run("a shell", func(t *testing.T) {
		b := b.with(t)
		t.Cleanup(func() { _, _, _ = b.run(nil, "vm", "delete", "desk") })
		cmd := b.command("vm", "run", "--name", "desk")
		cmd.Env = append(cmd.Env, "TERM=xterm")
		tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 31, Cols: 83})
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		var seen lockedBuffer
		go func() { _, _ = io.Copy(&seen, tty) }()
		seen.until(t, "# ")
		keys(t, tty, "echo $((6*7))-$(hostname)-$TERM; stty size; exit 5\r")
		seen.until(t, "42-desk-xterm\r\n31 83\r\n")
		seen.until(t, "VM desk stays")
		ended(t, cmd, &seen, 5)
		if v := b.show("desk"); v.State != vm.StateRunning {
			t.Errorf("the VM is %s", v.State)
		}
	})
	t.Run("Ctrl-C while it starts", func(t *testing.T) {
		b := b.with(t)
		t.Cleanup(func() { _, _, _ = b.run(nil, "vm", "delete", "gone") })
		cmd := b.command("vm", "run", "--name", "gone")
		tty, err := pty.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		var seen lockedBuffer
		go func() { _, _ = io.Copy(&seen, tty) }()
		is := func(l []vm.VMRecord) bool {
			for _, r := range l {
				if r.Name == "gone" {
					return r.State == vm.StateStarting
				}
			}
			return false
		}
		b.untilListed(is)
		b.until("gone", "with a VMM", patience, func(v api.VMView) bool { return v.Handles.PID != 0 })
		keys(t, tty, "\x03")
		ended(t, cmd, &seen, 130)
		if got := b.ok("vm", "list", "-q"); strings.Contains(got, "gone") {
			t.Errorf("VMs are left: %q; %s", got, seen.String())
		}
	})
	b.ok("vm", "delete", "--all", "--yes")
}
