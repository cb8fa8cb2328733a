package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process with all its threads has used and holds.
type Usage struct {
	CPU      time.Duration // since its start
	Resident int64         // bytes of memory, those it shares with others included
}

// tick is the unit of times in /proc: USER_HZ, which is 100 for every program.
const tick = 10 * time.Millisecond

// UsageOf returns what exactly this process has used; ErrGone when it is not there.
func UsageOf(id Identity) (Usage, error) {
	stat, err := read("/proc/" + strconv.Itoa(id.PID) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || id.BootID != BootID() {
		return Usage{}, ErrGone
	}
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of process %d: %w", id.PID, err)
	}
	s, err := parseStat(stat)
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of process %d: %w", id.PID, err)
	}
	if s.start != id.StartTime || s.state == 'Z' || s.state == 'X' {
		return Usage{}, ErrGone
	}
	u, err := parseUsage(stat)
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of process %d: %w", id.PID, err)
	}
	return u, nil
}

// parseUsage reads utime, stime and rss, fields 14, 15 and 24 of /proc/PID/stat (proc(5)).
func parseUsage(stat []byte) (Usage, error) {
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // f[0] is field 3
	if len(f) < 22 {
		return Usage{}, fmt.Errorf("stat has %d fields after the name, want 22", len(f))
	}
	var n [3]int64
	for i, at := range []int{14, 15, 24} {
		var err error
		if n[i], err = strconv.ParseInt(f[at-3], 10, 64); err != nil {
			return Usage{}, err
		}
	}
	return Usage{CPU: time.Duration(n[0]+n[1]) * tick, Resident: n[2] * int64(os.Getpagesize())}, nil
}
