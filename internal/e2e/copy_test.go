package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/testhost"
)

// copyVar is, in the environment, how many MiB testLargeCopies sends, as 100. Where nothing is said it is 1024, for which an
// emulated guest on a busy machine takes 20 seconds each way by vm cp, and 80 to 100 by scp, which it has to decrypt.
const copyVar = "BANGER_TEST_COPY_MIB"

// testLargeCopies sends a large file into the VM web and back, by vm cp and by scp: it comes back as it was, and nobody
// on its way holds more than a part of it.
func testLargeCopies(t *testing.T, b *box) {
	testhost.Need(t, testhost.SSH, testhost.Time)
	cp, scp := 1024, 1024 // MiB
	if s := os.Getenv(copyVar); s != "" {
		var err error
		if cp, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", copyVar, err)
		}
		scp = cp
	} else if testhost.Alone() { // a guest within a guest, all of it emulated, brings some 300 kB/s
		cp, scp = 8, 2
	}
	dir := testhost.Dir(t)
	here, back := filepath.Join(dir, "here"), filepath.Join(dir, "back")
	t.Cleanup(func() { b.ok("vm", "exec", "web", "--", "rm", "-f", "/srv/large") })

	cli := b.peak(t, "vm", "list") // what the program takes at all
	for _, way := range []struct {
		name    string
		mib     int
		in, out []string // after banger
	}{
		{"vm cp", cp, []string{"vm", "cp", here, "web:/srv/large"}, []string{"vm", "cp", "web:/srv/large", back}},
		{"scp", scp, []string{"scp", "-q", here, "web.vm:/srv/large"}, []string{"scp", "-q", "web.vm:/srv/large", back}},
	} {
		want := randomFile(t, here, int64(way.mib)<<20)
		for i, args := range [][]string{way.in, way.out} {
			what := way.name + [...]string{" in", " out"}[i]
			grown := b.growth(t)
			begin := time.Now()
			took := b.peak(t, args...)
			t.Logf("%s: %d MiB, %.1f MB/s", what, way.mib, float64(way.mib<<20)/1e6/time.Since(begin).Seconds())
			who := grown()
			who["the client"] = took - cli
			flat(t, what, who)
		}
		if got := digestOf(t, back); got != want {
			t.Errorf("%s: another file came back", way.name)
		}
		if err := os.Remove(back); err != nil {
			t.Fatal(err)
		}
		b.ok("vm", "exec", "web", "--", "rm", "/srv/large")
	}
}

// growth begins a new count of the most that the daemon and the agent of the VM web hold, and returns what tells how much
// they have grown by, in KiB.
func (b *box) growth(t *testing.T) (grown func() map[string]int) {
	t.Helper()
	daemon := b.daemonPID()
	agent := func(script string) string { return b.ok("vm", "exec", "web", "--", "sh", "-c", script) }
	before, agentBefore := resetPeak(t, daemon), kib(t, agent("echo 5 > /proc/1/clear_refs; cat /proc/1/status"), "VmRSS")
	return func() map[string]int {
		t.Helper()
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", daemon))
		if err != nil {
			t.Fatal(err)
		}
		return map[string]int{
			"the daemon": kib(t, string(status), "VmHWM") - before, "the agent": kib(t, agent("cat /proc/1/status"), "VmHWM") - agentBefore,
		}
	}
}

// flat wants nobody to have grown by more than a part of what passed.
func flat(t *testing.T, what string, grown map[string]int) {
	t.Helper()
	const most = 64 << 10 // KiB
	for who, kib := range grown {
		t.Logf("%s: %s grew by %d KiB", what, who, kib)
		if kib > most {
			t.Errorf("%s: %s grew by %d KiB, and may by %d", what, who, kib, most)
		}
	}
}

// peak runs a command of banger's, or scp by banger's own configuration, to its end, and returns the most memory that it
// or a child of its took, in KiB. time(1) starts it: what the kernel tells of a child includes what its parent held when it was
// started, and this program, which other tests run in as well, may hold more than all of a bound.
func (b *box) peak(t *testing.T, args ...string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience) // of 1024 MiB, on a busy machine
	defer cancel()
	argv := append([]string{b.banger}, args...)
	if args[0] == "scp" {
		config := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(config, []byte(b.ok("ssh-config")), 0o600); err != nil {
			t.Fatal(err)
		}
		argv = append([]string{args[0], "-F", config}, args[1:]...)
	}
	told := filepath.Join(t.TempDir(), "peak")
	cmd := exec.CommandContext(ctx, "time", append([]string{"-f", "%M", "-o", told}, argv...)...)
	cmd.Env = b.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	text, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	peak, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return peak
}

// resetPeak begins a new count of the most that a process holds, and returns what it holds now, in KiB.
func resetPeak(t *testing.T, pid int) int {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	return resident(t, pid) >> 10
}

// kib is a value of /proc/PID/status.
func kib(t *testing.T, status, key string) int {
	t.Helper()
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == key+":" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %q", key, status)
	return 0
}

// randomFile makes a file that nothing on its way can shorten, and returns its digest.
func randomFile(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(rand.NewChaCha8([32]byte{1}), size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func digestOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// testCutOffCopies kills the client in the middle of a copy, in each direction: what had the name keeps it.
func testCutOffCopies(t *testing.T, b *box) {
	dir := testhost.Dir(t)
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.ok("vm", "exec", "web", "--", "sh", "-c", "mkdir -p /srv/cut; truncate -s 4G /srv/endless")
	b.ok("vm", "cp", old, "web:/srv/cut/name")
	endless := filepath.Join(dir, "endless")
	if err := os.WriteFile(endless, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(endless, 4<<30); err != nil {
		t.Fatal(err)
	}
	// cut starts a copy, waits until a part of it is there under another name, and kills it.
	cut := func(begun func() bool, args ...string) {
		t.Helper()
		cmd := b.command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait(t, "a copy that is under way", begun)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	there := func() []string {
		return strings.Fields(b.ok("vm", "exec", "web", "--", "ls", "-A", "/srv/cut"))
	}
	cut(func() bool { return len(there()) == 2 }, "vm", "cp", "-q", endless, "web:/srv/cut/name")
	wait(t, "the part that came gone again", func() bool { return len(there()) == 1 })
	if got := b.ok("vm", "exec", "web", "--", "cat", "/srv/cut/name"); got != "old\n" {
		t.Errorf("in the guest the name has %d bytes", len(got))
	}

	target := filepath.Join(dir, "target")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, filepath.Join(target, "name")); err != nil {
		t.Fatal(err)
	}
	cut(func() bool { entries, err := os.ReadDir(target); return err == nil && len(entries) == 2 }, "vm", "cp", "-q", "web:/srv/endless", filepath.Join(target, "name"))
	if got, err := os.ReadFile(filepath.Join(target, "name")); string(got) != "old\n" || err != nil {
		t.Errorf("here the name has %d bytes, %v", len(got), err)
	}
	b.ok("vm", "exec", "web", "--", "rm", "-r", "/srv/cut", "/srv/endless")
}

// wait polls, as a user would, until something is so.
func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s after three minutes", what)
		}
	}
}
