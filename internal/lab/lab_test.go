package lab

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	inLab = flag.Bool("lab", false, "start a lab and run the suites in it (some minutes)")
	only  = flag.String("suites", "", "run the tests of these packages only, as ./internal/host/dm,./internal/host/loop")
)

// suites are the packages whose tests run in the lab: those with something to do that few hosts have.
var suites = []string{
	"./internal/host/loop",
	"./internal/host/dm",
	"./internal/disk/dmsnap",
	"./internal/disk/reflink",
	"./internal/host/cgroup",
	"./internal/host/proc",
	"./internal/vmm/firecracker",
	"./internal/e2e",
}

// TestLab is all that is done in a lab, one thing after another in a single one: it takes half of a small machine.
func TestLab(t *testing.T) {
	if !*inLab {
		t.Skip("needs -lab (make lab): starts a machine of 4 GiB and runs other packages' tests in it")
	}
	l := Up(t)
	t.Run("units", func(t *testing.T) {
		if err := l.settled(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := l.output(t.Context(), holdsCode...); err != nil {
			t.Errorf("nothing keeps the kernel from patching itself: %v", err)
		}
	})
	part := func(name string, test func(*testing.T)) {
		if !t.Run(name, test) {
			l.revive(t, name) // for the next one; scripts/gotest has this one run again
		}
	}
	part("exec", l.testExec)
	part("files", l.testFiles)
	t.Run("suites", func(t *testing.T) {
		if *only != "" {
			suites = strings.Split(*only, ",")
		}
		l.Suite(t, suites...)
	})
	part("hard reset", l.testHardReset)
	part("power cuts", l.testPowerCuts)
	part("without udev", l.testWithoutUdev)
	part("cycles", l.testCycles)
	part("seed scenario", l.testSeed)
}

func (l *Lab) testExec(t *testing.T) {
	ctx := t.Context()
	stdout, stderr, code, err := l.Exec(ctx, "sh", "-c", "echo out; echo err >&2; exit 42")
	if stdout != "out\n" || stderr != "err\n" || code != 42 || err != nil {
		t.Errorf("exec: %q, %q, %d, %v", stdout, stderr, code, err)
	}
	if err := l.Run(ctx, "sh", "-c", "uname -sr; cat /proc/1/comm"); err != nil {
		t.Error(err)
	}
	if err := l.Run(ctx, "false"); err == nil || !strings.Contains(err.Error(), "exit code 1") {
		t.Errorf("run false: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, _, _, err := l.Exec(short, "sleep", "infinity"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command without end: %v", err)
	}
	if out, err := l.output(ctx, "sh", "-c", "pgrep -x sleep || echo none"); err != nil || out != "none" {
		t.Errorf("what the command without end left in the lab: %q, %v", out, err)
	}
}

// Directories come and go whole, and what is mostly holes is not sent as zeros.
func (l *Lab) testFiles(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	const text = "some text\n"
	if err := os.WriteFile(filepath.Join(dir, "sub", "f"), []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(ctx, dir, "/srv/put"); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back")
	if err := l.Get(ctx, "/srv/put", back); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(back, "sub", "f")); err != nil || string(got) != text {
		t.Errorf("there and back: %q, %v", got, err)
	}
	holes := filepath.Join(dir, "holes")
	if err := os.WriteFile(holes, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(holes, 8<<30); err != nil {
		t.Fatal(err)
	}
	if err := l.send(ctx, dir, "/srv"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.output(ctx, "sh", "-c", `stat -c %s /srv/holes; [ "$(du -k /srv/holes | cut -f1)" -le 64 ] && head -n1 /srv/holes`); err != nil || got != "8589934592\n"+strings.TrimSpace(text) {
		t.Errorf("a file of 8 GiB with holes: %q, %v", got, err)
	}
}

func (l *Lab) testHardReset(t *testing.T) {
	ctx := t.Context()
	if err := l.Equip(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.output(ctx, "sh", "-ec", "echo kept >/srv/kept; sync; echo gone >/run/gone"); err != nil {
		t.Fatal(err)
	}
	before, err := l.bootID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.HardReset(ctx); err != nil {
		t.Fatal(err)
	}
	if after, err := l.bootID(ctx); err != nil || after == before {
		t.Errorf("boot id %s before, %s after, %v", before, after, err)
	}
	if got, err := l.output(ctx, "sh", "-c", "cat /srv/kept; ls /run/gone 2>/dev/null"); err == nil || got != "kept" {
		t.Errorf("after the reset: %q, %v", got, err)
	}
	if got, err := l.output(ctx, "ls", RootDir); err != nil || !strings.Contains(got, "banger.db") {
		t.Errorf("the product's root after the reset: %q, %v", got, err)
	}
}
