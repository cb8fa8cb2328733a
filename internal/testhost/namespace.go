package testhost

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside names the test that this process was started for.
const inside = "BANGER_TEST_NAMESPACE"

// InNamespace runs a test in a network namespace of its own: links, addresses, routes and packet rules are made there
// and nowhere else, and go with it. /run is empty, so that "ip netns add" leaves nothing either. The test must be a
// top-level one: it is a new process of the same program, which runs only it.
func InNamespace(t *testing.T, run func(t *testing.T)) {
	t.Helper()
	Need(t, Root, IP)
	if os.Getenv(inside) == t.Name() {
		if err := enter(); err != nil {
			t.Fatal(err)
		}
		run(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.count=1", "-test.v"}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(end).String())
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	if skipped := "--- SKIP: " + t.Name() + " "; err == nil && strings.Contains(string(out), skipped) {
		t.Skipf("in a network namespace:\n%s", out)
	}
	if err != nil {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	t.Logf("in a network namespace:\n%s", out)
}

// enter makes the new process's mounts its own, so that it sees its namespace and nobody sees its mounts.
func enter() error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"sysfs", "/sys", "sysfs", 0},
		{"tmpfs", "/run", "tmpfs", 0},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring lo up: %w: %s", err, out)
	}
	return nil
}
