package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

// A VM outlives the shell it was started from, and the daemon: it must hold nothing of theirs ("exec 9>lock; flock 9;
// banger vm start web" would keep the lock for as long as the VM runs), nor inherit which signals they do not want.
func TestAVMHoldsItsOwnOnly(t *testing.T) {
	beside(t)
	b := newBox(t)
	_, _, _ = b.run(nil, "daemon", "stop") // the command below starts it
	lock := filepath.Join(testhost.Dir(t), "callers.lock")
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = b.run(nil, "vm", "delete", "web") })
	cmd := b.command("vm", "run", "--name", "web", "-d")
	cmd.ExtraFiles = []*os.File{f, f, f, f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	daemon, pid := b.daemonPID(), b.show("web").Handles.PID
	for who, pid := range map[string]int{"the daemon": daemon, "the VM": pid} {
		for fd, to := range descriptors(t, pid) {
			if to == lock {
				t.Errorf("%s holds the caller's lock as descriptor %d", who, fd)
			}
		}
	}
	// Of the daemon's files, a VM has those it was given: its own directories and sockets, the kernel's and the image's.
	for fd, to := range descriptors(t, pid) {
		for _, not := range []string{"banger.db", "bangerd.log", "bangerd.lock", "start.lock", "ballast"} {
			if strings.HasPrefix(to, b.root) && strings.Contains(filepath.Base(to), not) {
				t.Errorf("the VM holds the daemon's %s as descriptor %d", to, fd)
			}
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, ignored, _ := strings.Cut(string(status), "\nSigIgn:")
	ignored, _, _ = strings.Cut(ignored, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(ignored), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	if mask&(1<<(unix.SIGHUP-1)) != 0 {
		t.Errorf("the VM inherits that SIGHUP is ignored (%x)", mask)
	}
	_ = f.Close()
	g, err := os.Open(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("somebody keeps the caller's lock: %v", err)
	}
	b.ok("vm", "delete", "web")
}

// descriptors are a process's, each with what it stands for.
func descriptors(t *testing.T, pid int) map[int]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 3 {
		t.Fatalf("%d descriptors in %s, %v", len(entries), dir, err)
	}
	all := map[int]string{}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		all[fd], _ = os.Readlink(filepath.Join(dir, e.Name())) // closed meanwhile: nothing
	}
	return all
}
