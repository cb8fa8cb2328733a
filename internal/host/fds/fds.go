// Package fds keeps file descriptors that this process inherited from the programs it starts. What is opened here is
// closed on exec already; what a caller's shell opened is not: `exec 9>lock; flock 9; banger vm start web` would leave the
// lock to a daemon and a VM that outlive the shell by months.
package fds

import (
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CloseOnExec marks every descriptor but stdin, stdout and stderr. What exec.Cmd passes on purpose (ExtraFiles) it still
// passes: those are copies.
func CloseOnExec() error {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	return each() // Linux before 5.11
}

func each() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("close descriptors on exec: %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd) // the directory's own is gone by now, which is no harm
		}
	}
	return nil
}
