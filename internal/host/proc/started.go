package proc

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the kernel's USER_HZ, in which it tells start times: 100 on every architecture we know.
const ticksPerSecond = 100

// Started is the moment at which a process began, by the host's clock of today; zero when it cannot be known, as that of a
// process of another boot.
func Started(id Identity) time.Time {
	if id.BootID != BootID() {
		return time.Time{}
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range bytes.Lines(stat) {
		rest, ok := strings.CutPrefix(string(line), "btime ")
		if !ok {
			continue
		}
		boot, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		if err != nil {
			return time.Time{}
		}
		return time.Unix(boot, 0).Add(time.Duration(id.StartTime) * time.Second / ticksPerSecond)
	}
	return time.Time{}
}
