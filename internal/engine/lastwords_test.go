package engine

import (
	"os"
	"strings"
	"testing"
	"time"

	"banger/internal/host/logfile"
)

// Metrics grow as long as a VM runs, as its logs do.
func TestMetricsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.jails = true
	r := w.start().run("web", false)
	must(t, os.WriteFile(r.Runtime.MetricsPath, []byte(strings.Repeat("{}\n", logMax/2)), 0o600))
	for end := time.Now().Add(10 * time.Second); fileSize(r.Runtime.MetricsPath) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the metrics grow without bounds")
		}
	}
	if n := fileSize(logfile.Old(r.Runtime.MetricsPath)); n == 0 || n > logMax {
		t.Errorf("%d bytes of them are kept", n)
	}
}

func TestTelling(t *testing.T) {
	long := strings.Repeat("x", 400)
	for _, c := range []struct{ name, console, want string }{
		{"nothing", "", ""},
		{"the last line", "[0.1] one\r\n[0.2] two\r", "[0.2] two"},
		{"a panic before its trace", "[1.0] Kernel panic - not syncing: no root\n[1.0] Call Trace:\n[1.0] Rebooting in 0 seconds..", "[1.0] Kernel panic - not syncing: no root"},
		{"the agent's words before the kernel's", "banger-guest: cannot go on: no disk\n[2.0] reboot: Restarting system", "banger-guest: cannot go on: no disk"},
		{"terminal codes", "\x1b[2Jhalted", "[2Jhalted"},
		{"a long line", long, long[:300] + "…"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := telling(c.console); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
