package cli

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
)

// On a terminal each sample takes the place of the last; elsewhere they follow each other.
func TestStatsStream(t *testing.T) {
	t.Parallel()
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, _, s := onTerminal(t, env, "vm", "stats")
	s.waitFor(t, "a second sample", func(text string) bool {
		return strings.Count(text, "\x1b[HNAME") >= 2 && strings.HasSuffix(text, "\x1b[J") && strings.Contains(text, "%")
	})
	cmd.Process.Signal(syscall.SIGINT)
	wantExit(t, cmd, 130)

	cmd, s = piped(t, env, "", "vm", "stats", "--json")
	s.waitFor(t, "two lines", func(text string) bool { return strings.Count(text, "\n") >= 2 })
	cmd.Process.Signal(syscall.SIGINT)
	wantExit(t, cmd, 130)
	for i, line := range strings.Split(strings.TrimSpace(s.String()), "\n")[:2] {
		var loads []load
		check(t, json.Unmarshal([]byte(line), &loads))
		if len(loads) != 1 || loads[0].Name != "web" || (loads[0].CPUPercent != nil) != (i == 1) {
			t.Errorf("sample %d: %s", i, line)
		}
	}
}

// The one that was named is gone: there is nothing left to show.
func TestStatsOfAVMThatGoes(t *testing.T) {
	t.Parallel()
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	mustRun(t, env, "vm", "run", "-d", "--name", "db")
	cmd, s := piped(t, env, "\nweb ", "vm", "stats", "web")
	mustRun(t, env, "vm", "delete", "web")
	wantExit(t, cmd, 0)
	if strings.Contains(s.String(), "\x1b") || strings.Contains(s.String(), "db") {
		t.Errorf("%q", s.String())
	}
}

// A VM that gets another name meanwhile is still the one that was named.
func TestStatsOfAVMThatIsRenamed(t *testing.T) {
	t.Parallel()
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, s := piped(t, env, "\nweb ", "vm", "stats", "web")
	mustRun(t, env, "vm", "rename", "web", "shop")
	mustRun(t, env, "vm", "run", "-d", "--name", "web") // another
	s.wait(t, "\nshop ")
	mustRun(t, env, "vm", "delete", "shop")
	wantExit(t, cmd, 0)
}

func TestShares(t *testing.T) {
	at := time.Now()
	old := load{VMStats: api.VMStats{At: at, Guest: &guest.Stats{UptimeMs: 5000, CPUUserMs: 100, CPUSystemMs: 50}, Host: api.HostStats{PID: 7, CPUMs: 1000}}}
	for _, c := range []struct {
		name        string
		now         api.VMStats
		guest, host string
	}{
		{"both", api.VMStats{At: at.Add(2 * time.Second), Guest: &guest.Stats{UptimeMs: 7000, CPUUserMs: 600, CPUSystemMs: 150}, Host: api.HostStats{PID: 7, CPUMs: 5000}}, "30.0%", "200.0%"},
		{"another boot", api.VMStats{At: at.Add(time.Second), Guest: &guest.Stats{UptimeMs: 100, CPUUserMs: 600}, Host: api.HostStats{PID: 8, CPUMs: 5000}}, "-", "-"},
		{"no guest", api.VMStats{At: at.Add(time.Second), Host: api.HostStats{PID: 7, CPUMs: 1000}}, "-", "0.0%"},
		{"a guest that lies", api.VMStats{At: at, Guest: &guest.Stats{UptimeMs: 9000, CPUUserMs: -5}, Host: api.HostStats{PID: 7, CPUMs: 1000}}, "-", "-"},
	} {
		l := load{VMStats: c.now}
		l.since(old)
		if g, h := percentCell(l.CPUPercent), percentCell(l.HostCPUPercent); g != c.guest || h != c.host {
			t.Errorf("%s: %s and %s, want %s and %s", c.name, g, h, c.guest, c.host)
		}
	}
}

// A screen too small for all shows the first ones: it would scroll with each sample, and lose what is at the top.
func TestStatsFitTheScreen(t *testing.T) {
	var loads []load
	for _, name := range []string{"a", "b", "c", "d"} {
		loads = append(loads, load{VMStats: api.VMStats{Name: name}})
	}
	for _, c := range []struct {
		width, height int
		shown         string // the beginning of each line
	}{
		{200, 24, "NAME a b c d"},
		{200, 6, "NAME a b c d"},
		{200, 5, "NAME a b …"},
		{60, 24, "NAME a b c d"},
		{60, 11, "NAME a b c d"}, // each takes two rows, and the cursor one
		{60, 10, "NAME a b c …"},
		{60, 2, "NAME …"},
		{0, 0, "NAME a b c d"},
	} {
		var b strings.Builder
		check(t, redraw(&b, loads, c.width, c.height))
		var shown []string
		for line := range strings.Lines(b.String()) {
			if text := strings.TrimPrefix(line, "\x1b[H"); text != "\x1b[J" {
				shown = append(shown, strings.Fields(text)[0])
			}
		}
		if got := strings.Join(shown, " "); got != c.shown || !strings.HasSuffix(b.String(), "\x1b[K\n\x1b[J") {
			t.Errorf("%d×%d: %s, want %s: %q", c.width, c.height, got, c.shown, b.String())
		}
	}
}
