package engine

import (
	"strings"
	"testing"
)

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
