package proc

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A pid that names another process now: same number, other start time or boot.
func TestReusedPID(t *testing.T) {
	cmd := start(t)
	now := identify(t, cmd)
	for name, then := range map[string]Identity{
		"earlier start": {now.PID, now.StartTime - 1, now.BootID},
		"other boot":    {now.PID, now.StartTime, "00000000-0000-0000-0000-000000000000"},
		"no boot":       {now.PID, now.StartTime, ""},
		"only a pid":    {PID: now.PID},
		"nothing":       {},
		"a group":       {-now.PID, now.StartTime, now.BootID},
	} {
		if Alive(then) {
			t.Errorf("%s: alive", name)
		}
		if err := Signal(then, unix.SIGKILL); !errors.Is(err, ErrGone) {
			t.Errorf("%s: signal: %v", name, err)
		}
		if err := Wait(t.Context(), then); err != nil {
			t.Errorf("%s: wait: %v", name, err)
		}
	}
	if !Alive(now) {
		t.Error("the process that has the pid now was hit")
	}
}

// The kernel gives a pid to another process, as it does when they have all been used once.
func TestAPIDThatTheKernelGaveAgain(t *testing.T) {
	const last = "/proc/sys/kernel/ns_last_pid"
	if err := os.WriteFile(last, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		t.Skipf("needs root, and a kernel that can be told the next pid: %v", err)
	}
	old := start(t)
	then := identify(t, old)
	if err := errors.Join(old.Process.Kill(), unix.Waitid(unix.P_PID, then.PID, nil, unix.WEXITED|unix.WNOWAIT, nil)); err != nil {
		t.Fatal(err)
	}
	_ = old.Wait()
	var now Identity
	for range 1000 { // others may take it, or one in between
		if err := os.WriteFile(last, []byte(strconv.Itoa(then.PID-1)), 0); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		now, _ = Identify(cmd.Process.Pid)
		if now.PID == then.PID && now.StartTime != then.StartTime { // a start time has a hundredth of a second
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			break
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if now.PID != then.PID || now == then {
		t.Fatalf("pid %d was not given again", then.PID)
	}
	if Alive(then) || !Alive(now) {
		t.Errorf("%+v is alive: %v, %+v: %v", then, Alive(then), now, Alive(now))
	}
	if err := Signal(then, unix.SIGKILL); !errors.Is(err, ErrGone) {
		t.Errorf("signal: %v", err)
	}
	if err := Wait(t.Context(), then); err != nil || !Alive(now) {
		t.Errorf("the one that has the pid now was waited for, or hit: %v", err)
	}
}
