package agent

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// uptime counts from the boot, and on while the machine was suspended.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func (s *Server) handleStats(w http.ResponseWriter, _ *http.Request) {
	st, err := readStats()
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	writeJSON(w, st)
}

func readStats() (guest.Stats, error) {
	st := guest.Stats{UptimeMs: uptime().Milliseconds()}
	for file, parse := range map[string]func(string, *guest.Stats){
		"/proc/meminfo": parseMeminfo, "/proc/loadavg": parseLoadavg, "/proc/stat": parseStat,
		"/proc/net/dev": parseNetDev, "/proc/diskstats": parseDiskstats,
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			return guest.Stats{}, fmt.Errorf("read the guest's load: %w", err)
		}
		parse(string(b), &st)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return guest.Stats{}, fmt.Errorf("count the guest's processes: %w", err)
	}
	for _, e := range entries {
		if c := e.Name()[0]; c >= '1' && c <= '9' {
			st.Processes++
		}
	}
	return st, nil
}

// parseMeminfo reads /proc/meminfo, whose values are in KiB.
func parseMeminfo(text string, st *guest.Stats) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			st.MemTotal = kib << 10
		case "MemAvailable:":
			st.MemAvailable = kib << 10
		}
	}
}

func parseLoadavg(text string, st *guest.Stats) {
	if f := strings.Fields(text); len(f) > 0 {
		st.Load1, _ = strconv.ParseFloat(f[0], 64)
	}
}

// parseStat reads the first line of /proc/stat: user nice system idle iowait irq softirq, in hundredths of a second.
func parseStat(text string, st *guest.Stats) {
	f := strings.Fields(text)
	if len(f) < 8 || f[0] != "cpu" {
		return
	}
	var ticks [7]int64
	for i := range ticks {
		ticks[i], _ = strconv.ParseInt(f[i+1], 10, 64)
	}
	st.CPUUserMs = 10 * (ticks[0] + ticks[1])
	st.CPUSystemMs = 10 * (ticks[2] + ticks[5] + ticks[6])
}

// parseNetDev reads /proc/net/dev: two lines of titles, then "NAME: " with eight numbers of what came in, bytes first, and
// eight of what went out.
func parseNetDev(text string, st *guest.Stats) {
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		in, _ := strconv.ParseInt(f[0], 10, 64)
		out, _ := strconv.ParseInt(f[8], 10, 64)
		st.NetReceived += in
		st.NetSent += out
	}
}

// sector is the unit of /proc/diskstats, whatever the disk's own is.
const sector = 512

// parseDiskstats reads /proc/diskstats (the kernel's Documentation/admin-guide/iostats.rst): major, minor, name, reads, merged,
// sectors read, milliseconds, writes, merged, sectors written. Partitions count as part of their disk.
func parseDiskstats(text string, st *guest.Stats) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || !strings.HasPrefix(f[2], "vd") || strings.ContainsAny(f[2], "0123456789") {
			continue
		}
		read, _ := strconv.ParseInt(f[5], 10, 64)
		written, _ := strconv.ParseInt(f[9], 10, 64)
		st.DiskRead += read * sector
		st.DiskWritten += written * sector
	}
}
