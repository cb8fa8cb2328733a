package engine

import (
	"os"
	"path/filepath"
	"strings"

	"banger/internal/vm"
	"banger/internal/vmm"
)

const (
	consoleEnd  = 16 << 10 // bytes of a console that are looked at for what was said last
	kernelPanic = "Kernel panic - not syncing"
)

// lastWords is what a guest's console said before its machine ended, to go after an error: the kernel's panic if there
// was one, else the last line. A kernel that panics ends its machine as an orderly reboot does.
func (w *worker) lastWords(r vm.VMRecord) string {
	words := telling(vmm.LogTail(r.Runtime.LogPath, w.consoleFrom, consoleEnd))
	if words == "" {
		return ""
	}
	return "; its console ends with: " + words
}

// telling is the line of a console that says most about the end of its machine.
func telling(console string) string {
	const limit = 300
	lines := strings.Split(console, "\n")
	line := lines[len(lines)-1]
	for _, l := range lines {
		if strings.Contains(l, kernelPanic) || strings.HasPrefix(l, "banger-guest: ") {
			line = l
		}
	}
	line = strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, line))
	if len(line) > limit {
		line = line[:limit] + "…"
	}
	return line
}

// logsOf are the files that grow as long as a VM runs, but for its disks.
func logsOf(r vm.VMRecord) []string {
	logs := []string{r.Runtime.LogPath, filepath.Join(r.Runtime.VMDir, vmmLog)}
	if r.Runtime.MetricsPath != "" { // not all VMMs have them
		logs = append(logs, r.Runtime.MetricsPath)
	}
	return logs
}

// fileSize is 0 for a file that cannot be seen.
func fileSize(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}
