// Package proc is the thin hand on processes: identity that survives pid reuse, search by argument, signals and waits
// through pidfds. It decides nothing.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that a process does not exist (any more), or is a zombie, or is another one with the same pid.
var ErrGone = errors.New("process is gone")

// Identity is a process that cannot be mistaken for another: a pid alone is reused.
type Identity struct {
	PID       int
	StartTime uint64 // field 22 of /proc/PID/stat, clock ticks since boot
	BootID    string // /proc/sys/kernel/random/boot_id
}

// BootID is the identity of the host's current boot.
var BootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // matches no recorded boot: everything remembered is then void, which is safe
	}
	return strings.TrimSpace(string(b))
})

// Identify reads the identity of a live process; ErrGone when there is none or it is a zombie. A process whose first thread
// has ended lives as long as another has not: it still holds its files.
func Identify(pid int) (Identity, error) {
	if pid <= 0 {
		return Identity{}, ErrGone
	}
	stat, err := read("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return Identity{}, ErrGone
		}
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	now, err := parseStat(stat)
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	if (now.state == 'Z' || now.state == 'X') && now.threads <= 1 {
		return Identity{}, ErrGone
	}
	return Identity{PID: pid, StartTime: now.start, BootID: BootID()}, nil
}

// status is what we read of /proc/PID/stat (proc(5)).
type status struct {
	state   byte   // field 3
	flags   uint64 // field 9, PF_* of the kernel's sched.h
	threads int    // field 20
	start   uint64 // field 22
}

// kernelThread is PF_KTHREAD.
const kernelThread = 0x00200000

// parseStat reads /proc/PID/stat. The command name may hold spaces and parentheses.
func parseStat(stat []byte) (s status, err error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return s, fmt.Errorf("no command name in stat %q", stat)
	}
	f := strings.Fields(string(stat[i+1:])) // f[0] is field 3
	if len(f) < 20 {
		return s, fmt.Errorf("stat has %d fields after the name, want 20", len(f))
	}
	s.state = f[0][0]
	if s.flags, err = strconv.ParseUint(f[6], 10, 32); err != nil {
		return s, err
	}
	if s.threads, err = strconv.Atoi(f[17]); err != nil {
		return s, err
	}
	s.start, err = strconv.ParseUint(f[19], 10, 64)
	return s, err
}

// Alive says whether exactly this process still runs.
func Alive(id Identity) bool {
	now, err := Identify(id.PID)
	return err == nil && now == id
}

// In the middle of an exec a process has no command line, for some microseconds (more where the host is busy). Whoever
// looks for it then must not take it for absent, so Args looks again; no event tells the end of another's exec. Kernel
// threads never have a command line, and cost nothing here.
const (
	execTime = 20 * time.Millisecond // given to an exec; a process that wiped its title costs this much
	execLook = 100 * time.Microsecond
)

// Args returns the command line of a process; ErrGone when there is none.
func Args(pid int) ([]string, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	for end := time.Now().Add(execTime); ; <-time.After(execLook) {
		b, err := read(dir + "/cmdline")
		if err != nil {
			return nil, ErrGone
		}
		if len(b) > 0 {
			return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
		}
		stat, err := read(dir + "/stat")
		if err != nil {
			return nil, ErrGone
		}
		if s, err := parseStat(stat); err != nil || s.state == 'Z' || s.state == 'X' || s.flags&kernelThread != 0 {
			return nil, ErrGone
		}
		if time.Now().After(end) {
			return nil, ErrGone
		}
	}
}

// UID returns the effective user of a process; ErrGone when there is none.
func UID(pid int) (int, error) {
	b, err := read("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, ErrGone
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "Uid:" {
			return strconv.Atoi(f[2])
		}
	}
	return 0, fmt.Errorf("no Uid in the status of process %d", pid)
}

// Find returns the live processes whose command line match accepts, in pid order.
func Find(match func(args []string) bool) ([]Identity, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []Identity
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args, err := Args(pid)
		if err != nil || !match(args) {
			continue
		}
		id, err := Identify(pid)
		if err != nil {
			continue
		}
		if args, err := Args(pid); err == nil && match(args) { // again: the pid may have changed hands in between
			found = append(found, id)
		}
	}
	slices.SortFunc(found, func(a, b Identity) int { return a.PID - b.PID })
	return found, nil
}

// open returns a pidfd of exactly this process. The check after the open is what makes it proof.
func open(id Identity) (int, error) {
	if id.PID <= 0 {
		return -1, ErrGone
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return -1, ErrGone
	}
	if err != nil {
		return -1, fmt.Errorf("open pidfd of process %d: %w", id.PID, err)
	}
	if !Alive(id) {
		_ = unix.Close(fd)
		return -1, ErrGone
	}
	return fd, nil
}

// Signal sends sig to exactly this process; ErrGone when it is not there.
func Signal(id Identity, sig unix.Signal) error {
	fd, err := open(id)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return ErrGone
		}
		return fmt.Errorf("send %v to process %d: %w", sig, id.PID, err)
	}
	return nil
}

// Wait returns nil when the process has ended (a zombie has), or ctx's error. It holds no thread while it waits.
func Wait(ctx context.Context, id Identity) error {
	fd, err := open(id)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // then the runtime's poller takes it
		_ = unix.Close(fd)
		return fmt.Errorf("wait for process %d: %w", id.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = f.Close() }()
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", id.PID, err)
	}
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	var pollErr error
	err = conn.Read(func(fd uintptr) bool { // called again each time the pidfd becomes readable: when the process ends
		var ended bool
		ended, pollErr = readable(int(fd))
		return ended || pollErr != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return ctx.Err()
	}
	if err := errors.Join(err, pollErr); err != nil {
		return fmt.Errorf("wait for process %d: %w", id.PID, err)
	}
	return nil
}

// readable asks without waiting.
func readable(fd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}
