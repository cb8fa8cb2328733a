package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/guest"
)

func TestParseProcess(t *testing.T) {
	p, name, err := parseProcess([]byte("7 (a) (b c) S 1 7 7 0 -1 2097216 1 0 0 0 150 50 0 0 20 0 3 0 4711 1000 25 184"))
	want := guest.Process{PPID: 1, State: "S", Threads: 3, CPUMs: 2000, StartedMs: 47110, Resident: 25 * int64(os.Getpagesize()), Kernel: true}
	if err != nil || name != "a) (b c" || p != want {
		t.Errorf("%+v, %q, %v, want %+v", p, name, err, want)
	}
	for _, stat := range []string{"", "7 )(", "7 (a) S 1", "7 (a) S x 7 7 0 -1 0 1 0 0 0 150 50 0 0 20 0 3 0 4711 1000 25 184"} {
		if p, _, err := parseProcess([]byte(stat)); err == nil {
			t.Errorf("%q: %+v", stat, p)
		}
	}
}

func FuzzParseProcess(f *testing.F) {
	f.Add([]byte("7 (a) (b c) S 1 7 7 0 -1 2097216 1 0 0 0 150 50 0 0 20 0 3 0 4711 1000 25 184"))
	f.Fuzz(func(_ *testing.T, stat []byte) { _, _, _ = parseProcess(stat) })
}

func TestCommandOf(t *testing.T) {
	for cmdline, want := range map[string]string{
		"":                            "[kworker/0:1]",
		"\x00\x00":                    "[kworker/0:1]",
		"/bin/sh\x00-c\x00a  b\x00":   "/bin/sh -c a  b",
		"evil\x1b[2J\nline\x00":       "evil [2J line",
		strings.Repeat("x", 1<<20):    guest.Plain(strings.Repeat("x", 4<<10)),
		"a title without an end \xff": "a title without an end",
	} {
		if got := commandOf([]byte(cmdline), "kworker/0:1"); got != want {
			t.Errorf("%.40q: %q, want %q", cmdline, got, want)
		}
	}
}

// This machine's processes, through the agent.
func TestProcesses(t *testing.T) {
	_, socket := serveAgent(t)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	resp, err := clientOf(socket).Get("http://guest" + guest.PathProcesses)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all guest.Processes
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	if all.Total < 2 || all.UptimeMs <= 0 {
		t.Errorf("%+v", all)
	}
	last := 0
	for _, p := range all.Processes {
		if p.PID <= last {
			t.Errorf("%d comes after %d", p.PID, last)
		}
		last = p.PID
		if p.PID == cmd.Process.Pid {
			if p.PPID != os.Getpid() || p.Command != "sleep 1000" || p.Threads != 1 || p.Kernel || p.StartedMs <= 0 || p.StartedMs > all.UptimeMs || len(p.State) != 1 || os.Getuid() == 0 && p.User != "root" {
				t.Errorf("%+v", p)
			}
			return
		}
	}
	t.Errorf("%d processes, and not %d among them", len(all.Processes), cmd.Process.Pid)
}

// Very many processes with long arguments: what the host is told has a bound, and says how many there are.
func TestManyProcesses(t *testing.T) {
	proc := t.TempDir()
	const many = 300
	for pid := 1; pid <= many; pid++ {
		dir := filepath.Join(proc, fmt.Sprint(pid))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"stat":    fmt.Sprintf("%d (x) S 1 7 7 0 -1 0 1 0 0 0 150 50 0 0 20 0 3 0 4711 1000 25 184", pid),
			"status":  "Name:\tx\nUid:\t4000000000\t4000000001\t0\t0\n",
			"cmdline": strings.Repeat("<", 100_000),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(proc, "999"), 0o700); err != nil { // it has just ended
		t.Fatal(err)
	}
	all, err := listProcesses(proc, 100<<10)
	if err != nil || all.Total != many || len(all.Processes) < 50 || len(all.Processes) > 70 {
		t.Fatalf("%d of %d, %v", len(all.Processes), all.Total, err)
	}
	if b, err := json.Marshal(all); err != nil || len(b) > 101<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if p := all.Processes[0]; p.User != "4000000001" || p.PID != 1 || len(p.Command) > 256 {
		t.Errorf("%+v", p)
	}
}
