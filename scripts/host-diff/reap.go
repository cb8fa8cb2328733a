package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
)

// grace is how long daemons that were told to end may take after the command itself has ended.
const grace = 3 * time.Second

// reapUntil reaps every child, adopted ones too, until the one with this pid has ended, and returns its exit status
// as a shell would.
func reapUntil(pid int) (int, error) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for the command: %w", err)
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case got == pid:
			return ws.ExitStatus(), nil
		}
	}
}

// stragglers gives what is left of the command's descendants time to end, then lists and kills them.
func stragglers() string {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	timeout := time.After(grace)
	for {
		if reapEnded() {
			return ""
		}
		select {
		case <-ended:
		case <-timeout:
			return killChildren()
		}
	}
}

// reapEnded reaps what has ended, and says whether no child is left.
func reapEnded() bool {
	for {
		got, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.ECHILD) {
			return true
		}
		if got == 0 && err == nil {
			return false
		}
	}
}

// killChildren kills until there are none: the children of a killed one become ours.
func killChildren() string {
	var b strings.Builder
	for !reapEnded() {
		for _, pid := range children() {
			args, err := proc.Args(pid)
			if err != nil {
				continue // ended since
			}
			fmt.Fprintf(&b, "+ process  %d %s\n", pid, strings.Join(args, " "))
			_ = unix.Kill(pid, unix.SIGKILL) // a child of ours that is not reaped: the pid cannot be another's
		}
		_, _ = unix.Wait4(-1, nil, 0, nil)
	}
	return b.String()
}

func children() []int {
	ids, err := proc.Find(func([]string) bool { return true })
	if err != nil {
		return nil
	}
	var pids []int
	for _, id := range ids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", id.PID))
		if err == nil && strings.Contains(string(b), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid())) {
			pids = append(pids, id.PID)
		}
	}
	return pids
}
