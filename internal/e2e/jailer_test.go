package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banger/internal/host/file"
	"banger/internal/host/proc"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// padding makes Firecracker so large that the jailer, which copies it into the jail, can be met while it does.
const padding = 256 << 20

// The jailer is killed while it makes the jail, alone and together with the daemon: the start fails with a word, nothing of
// the jail stays, and the next start succeeds.
func TestTheJailerIsKilled(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.KVM, testhost.Firecracker, testhost.Root)
	b := newBox(t)
	b.ok("daemon", "stop") // the next one reads the configuration
	large := padded(t)
	jailer, err := exec.LookPath("jailer")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("[vm]\nvmm = \"firecracker\"\n[firecracker]\nbinary = %q\njailer = %q\n", large, jailer)
	if err := os.WriteFile(filepath.Join(b.root, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b.ok("vm", "create", "--name", "web")
	t.Cleanup(func() { b.ok("vm", "delete", "web") })
	jail := filepath.Join(b.show("web").VMDir, "jail")
	for _, daemonToo := range []bool{false, true} {
		daemon := b.daemonPID()
		start := b.command("vm", "start", "web")
		var errs lockedBuffer
		start.Stderr = &errs
		if err := start.Start(); err != nil {
			t.Fatal(err)
		}
		pid, copied := halfWay(t, jail)
		if daemonToo {
			kill9(t, daemon)
		}
		kill9(t, pid)
		_ = start.Wait()
		t.Logf("killed the jailer after %d of %d MiB: %s", copied>>20, padding>>20, errs.String())
		if code := start.ProcessState.ExitCode(); code != 125 || errs.String() == "" {
			t.Errorf("the start: exit code %d, %q; want 125 and words", code, errs.String())
		}
		wait(t, "end of it in the record", func() bool { return b.show("web").Runtime.State != vm.StateStarting })
		if !daemonToo { // the next daemon may have started it again by now: that is what its record wants
			if left, err := os.ReadDir(jail); !os.IsNotExist(err) {
				t.Errorf("left of the jail: %v, %v", left, err)
			}
		}
		b.ok("vm", "start", "web")
		b.ok("vm", "exec", "web", "--", "true")
		b.ok("vm", "kill", "web")
	}
}

// padded is a Firecracker with zeros behind it, which nobody minds.
func padded(t *testing.T) string {
	t.Helper()
	real, err := exec.LookPath("firecracker")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(testhost.Dir(t), "firecracker")
	if err := os.WriteFile(path, nil, 0o755); err != nil { //nolint:gosec // to be run
		t.Fatal(err)
	}
	if err := file.CopySparse(t.Context(), path, real); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, st.Size()+padding)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// halfWay waits until a jailer has begun to copy the VMM into the jail, and returns its pid and how much it has copied.
func halfWay(t *testing.T, jail string) (pid int, copied int64) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found, _ := filepath.Glob(filepath.Join(jail, "firecracker", "*", "root", "firecracker"))
		if len(found) == 0 {
			continue
		}
		st, err := os.Stat(found[0])
		if err != nil || st.Size() == 0 {
			continue
		}
		ps, err := proc.Find(func(args []string) bool {
			return slices.Contains(args, "--chroot-base-dir") && slices.Contains(args, jail)
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(ps) != 1 || st.Size() >= padding {
			t.Fatalf("too late: %d jailers, %d bytes copied", len(ps), st.Size())
		}
		return ps[0].PID, st.Size()
	}
	t.Fatal("no jailer makes a jail")
	return 0, 0
}
