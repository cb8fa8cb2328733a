package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"banger/internal/guest"
)

// maxListed bounds the bytes of the list: the host reads 1 MiB of an answer.
const maxListed = 768 << 10

func (s *Server) handleProcesses(w http.ResponseWriter, _ *http.Request) {
	p, err := listProcesses("/proc", maxListed)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	writeJSON(w, p)
}

// listProcesses reads what the kernel tells of processes below proc. One that ends meanwhile is left out.
func listProcesses(proc string, most int) (guest.Processes, error) {
	all := guest.Processes{UptimeMs: uptime().Milliseconds(), Processes: []guest.Process{}}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return all, fmt.Errorf("list the guest's processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	passwd, err := readOptional("/etc/passwd")
	if err != nil {
		return all, err
	}
	users := map[string]string{}
	size := 0
	for _, pid := range pids {
		p, uid, err := readProcess(fmt.Sprintf("%s/%d", proc, pid))
		if err != nil {
			continue
		}
		all.Total++
		if size >= most {
			continue
		}
		name, known := users[uid]
		if !known {
			name = uid
			if a, found := scanPasswd(passwd, uid); found {
				name = guest.Plain(a.name)
			}
			users[uid] = name
		}
		p.PID, p.User = pid, name
		b, err := json.Marshal(p)
		if err != nil {
			return all, err
		}
		if size += len(b) + 1; size < most {
			all.Processes = append(all.Processes, p)
		}
	}
	return all, nil
}

// readProcess reads a process's directory in /proc.
func readProcess(dir string) (p guest.Process, uid string, err error) {
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, "", err
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, "", err
	}
	cmdline, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, "", err
	}
	p, name, err := parseProcess(stat)
	if err != nil {
		return p, "", err
	}
	p.Command = commandOf(cmdline, name)
	return p, effectiveUID(string(status)), nil
}

// commandOf is how a process is told from others: its arguments, or where there are none its name in brackets.
func commandOf(cmdline []byte, name string) string {
	if len(cmdline) > 4<<10 { // of megabytes a line shows little
		cmdline = cmdline[:4<<10]
	}
	if words := strings.TrimSpace(guest.Plain(string(bytes.TrimRight(cmdline, "\x00")))); words != "" {
		return words
	}
	return "[" + guest.Plain(name) + "]"
}

// effectiveUID is the second number after "Uid:" in /proc/PID/status.
func effectiveUID(status string) string {
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "Uid:" {
			return f[2]
		}
	}
	return ""
}

// Of proc(5): times in hundredths of a second, memory in pages.
const (
	tickMs       = 10
	kernelThread = 0x00200000 // PF_KTHREAD, in the flags
)

// parseProcess reads /proc/PID/stat but for its first field, the pid. The name may hold spaces and parentheses.
func parseProcess(stat []byte) (p guest.Process, name string, err error) {
	from, to := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if from < 0 || to < from {
		return p, "", errors.New("no name in a process's stat")
	}
	f := strings.Fields(string(stat[to+1:])) // f[0] is field 3
	if len(f) < 22 {
		return p, "", fmt.Errorf("a process's stat has %d fields after the name, want 22", len(f))
	}
	var n [25]int64 // by the number of the field
	for _, field := range []int{4, 9, 14, 15, 20, 22, 24} {
		if n[field], err = strconv.ParseInt(f[field-3], 10, 64); err != nil {
			return p, "", err
		}
	}
	return guest.Process{PPID: int(n[4]), State: f[0][:1], Threads: int(n[20]), CPUMs: tickMs * (n[14] + n[15]), StartedMs: tickMs * n[22],
		Resident: n[24] * int64(os.Getpagesize()), Kernel: n[9]&kernelThread != 0}, string(stat[from+1 : to]), nil
}
