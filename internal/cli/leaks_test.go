package cli

import (
	"syscall"
	"testing"
)

// On a terminal the plan is asked about, and anything but yes removes nothing.
func TestFixAsks(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "list") // the daemon is there
	for _, c := range []struct {
		answer, shows string
		exit          int
	}{
		{"y\n", "removed VM's directory /r/vms/b", 1}, // one is kept
		{"Yes\n", "removed VM's directory /r/vms/b", 1},
		{"\n", "nothing was removed", 1},
		{"no\n", "nothing was removed", 1},
		{"\x04", "nothing was removed", 1}, // the end of input
	} {
		cmd, tty, screen := onTerminal(t, env, "doctor", "--leaks", "--fix")
		screen.wait(t, "Remove 2 orphans? [y/N] ")
		if _, err := tty.WriteString(c.answer); err != nil {
			t.Fatal(err)
		}
		screen.wait(t, c.shows)
		wantExit(t, cmd, c.exit)
	}
	cmd, _, screen := onTerminal(t, env, "doctor", "--leaks", "--fix")
	screen.wait(t, "[y/N] ")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	wantExit(t, cmd, 130)
}
