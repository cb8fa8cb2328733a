package testhost

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
)

// Alone says that nobody else uses this host, as BANGER_TEST_LAB=1 promises: whatever came and stayed is the test's.
func Alone() bool { return os.Getenv("BANGER_TEST_LAB") == "1" }

// grace is how long what was told to end may take to end after the test did.
const grace = 3 * time.Second

// Leaks makes the test fail when it leaves something on the host: a process, mount, loop or device-mapper device,
// link, nftables rule, network namespace, cgroup or bound socket that was not there when Leaks was called, and that names the test's own
// temporary directory (command line, environment, working directory, path) or one of marks: another directory, a VM's
// id. Tests of other packages run at the same time; what names none of these is theirs.
//
// Call it first: clean-ups that are registered later run before it looks. A leaked process is killed once reported.
func Leaks(t testing.TB, marks ...string) {
	t.Helper()
	leaks(t, grace, marks)
}

func leaks(t testing.TB, grace time.Duration, marks []string) {
	t.Helper()
	for _, m := range marks {
		if len(m) < 8 {
			t.Fatalf("mark %q is too short to tell this test's things from others'", m)
		}
	}
	marks = append(marks, filepath.Dir(t.TempDir())) // the parent of all this test's directories
	before, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := leftAfter(before, marks, grace)
		if err != nil {
			t.Error(err)
			return
		}
		if len(left) > 0 {
			t.Errorf("left on the host:\n%s", Diff(nil, left))
		}
		for _, i := range left {
			if i.Kind == "process" {
				_ = proc.Signal(i.proc, unix.SIGKILL)
			}
		}
	})
}

// leftAfter is what names a mark and was not there before, once ending processes have had time to end.
func leftAfter(before Snapshot, marks []string, grace time.Duration) (Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	look := func() (Snapshot, error) {
		after, err := Take()
		return after.Minus(before).only(func(i Item) bool { return i.Mentions(marks) }), err
	}
	left, err := look()
	if err != nil {
		return nil, err
	}
	for _, i := range left {
		if i.Kind == "process" {
			_ = proc.Wait(ctx, i.proc) // out of time: it is still there in the second look
		}
	}
	return look()
}

// Dir makes a temporary directory that is removed with the test. Its path is short, unlike t.TempDir's: a socket
// path has 107 bytes.
func Dir(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("", "bt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(d); err != nil && !strings.Contains(err.Error(), "not exist") {
			t.Errorf("remove the test's directory: %v", err)
		}
	})
	return d
}
