package daemon

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
)

const (
	launchWait = time.Second // far more than an exec takes
	launchLook = time.Millisecond
)

// awaitLaunches waits for what an earlier daemon was launching when it was killed: between its fork and its exec a VMM shows
// that daemon's arguments, and would not be found by its own. On most kernels it holds the daemon's lock until its arguments
// are its own; on some (Linux 6.12 of Debian) the lock is free a moment before. There is nothing to be told by.
func awaitLaunches(ctx context.Context, lock string) {
	own, err := proc.Args(os.Getpid())
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, launchWait)
	defer cancel()
	for launching(own, lock) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(launchLook):
		}
	}
}

// launching says whether a process looks like a daemon, has a session of its own, and holds no daemon's lock: one that is about
// to become something else, or to take the lock.
func launching(own []string, lock string) bool {
	found, err := proc.Find(func(args []string) bool {
		return len(args) == len(own) && filepath.Base(args[0]) == filepath.Base(own[0]) && slices.Equal(args[1:], own[1:])
	})
	return err == nil && slices.ContainsFunc(found, func(id proc.Identity) bool {
		sid, err := unix.Getsid(id.PID)
		return err == nil && id.PID != os.Getpid() && sid == id.PID && !holds(id.PID, filepath.Base(lock)) && proc.Alive(id)
	})
}

// holds says whether a process has a file of that name open, be it removed since, or cannot be looked at.
func holds(pid int, name string) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	open, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(open, func(e os.DirEntry) bool {
		file, err := os.Readlink(filepath.Join(dir, e.Name()))
		return err == nil && filepath.Base(strings.TrimSuffix(file, " (deleted)")) == name
	})
}
