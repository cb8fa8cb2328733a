package testhost

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
)

func TestRequired(t *testing.T) {
	for _, c := range []struct {
		f           Facility
		require, ci string
		want        bool
	}{
		{QEMU, "", "", false},
		{QEMU, "", "true", true},
		{QEMU, "1", "", true},
		{QEMU, "0", "true", false},
		{KVM, "1", "", false},
		{DM, "", "true", false},
		{DM, "loop,dm", "", true},
		{Loop, "loop,dm", "", true},
		{QEMU, "loop,dm", "true", false},
	} {
		if got := required(c.f, c.require, c.ci); got != c.want {
			t.Errorf("required(%s, REQUIRE=%q, CI=%q) = %v, want %v", c.f, c.require, c.ci, got, c.want)
		}
	}
}

func TestUnknownFacility(t *testing.T) {
	if err := Facility("flux").check(); err == nil {
		t.Error("a facility nobody knows counts as present")
	}
}

// recorder is a test that is watched: what it would report is kept, its clean-ups run when told.
type recorder struct {
	testing.TB
	errors   []string
	skipped  string
	cleanups []func()
}

func (r *recorder) Helper()                   {}
func (r *recorder) Error(args ...any)         { r.errors = append(r.errors, fmt.Sprint(args...)) }
func (r *recorder) Errorf(f string, a ...any) { r.errors = append(r.errors, fmt.Sprintf(f, a...)) }
func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Skip(args ...any)          { r.skipped = fmt.Sprint(args...) }
func (r *recorder) Skipf(f string, a ...any)  { r.skipped = fmt.Sprintf(f, a...) }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...) }

func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func TestRealIsOnlyOnRequest(t *testing.T) {
	t.Setenv("BANGER_TEST_REAL", "")
	t.Setenv("CI", "true")
	r := &recorder{TB: t}
	Need(r, Real)
	if !strings.Contains(r.skipped, "BANGER_TEST_REAL=1") {
		t.Errorf("skipped with %q, want the variable's name", r.skipped)
	}
}

func TestLacks(t *testing.T) {
	for _, c := range []struct {
		ci       string
		f        Facility
		required bool
	}{{"true", XFS, true}, {"true", KVM, false}, {"", XFS, false}} {
		t.Setenv("BANGER_TEST_REQUIRE", "")
		t.Setenv("CI", c.ci)
		r := &recorder{TB: t}
		Lacks(r, c.f, os.ErrNotExist)
		said := r.skipped
		if c.required {
			said = strings.Join(r.errors, "\n")
		}
		if !strings.Contains(said, string(c.f)) || !strings.Contains(said, "not exist") {
			t.Errorf("CI=%q, %s: skipped with %q, failed with %q", c.ci, c.f, r.skipped, r.errors)
		}
	}
}

// A kernel has what it mounts, and not what nobody ever wrote.
func TestFileSystem(t *testing.T) {
	if err := fileSystem("proc"); err != nil {
		t.Error(err)
	}
	if err := fileSystem("fluxfs"); err == nil {
		t.Error("a file system nobody knows counts as present")
	}
}

func TestLeaksFindsWhatIsLeft(t *testing.T) {
	for _, c := range []struct {
		name, want string
		leak       func(t *testing.T, dir string) (undo func())
	}{
		{"process by its command line", "process", func(t *testing.T, dir string) func() {
			return start(t, exec.Command("tail", "-f", "/dev/null", dir))
		}},
		{"process by its environment", "process", func(t *testing.T, dir string) func() {
			c := exec.Command("sleep", "300")
			c.Env = []string{"PATH=" + os.Getenv("PATH"), "BANGER_ROOT=" + dir}
			return start(t, c)
		}},
		{"process by its working directory", "process", func(t *testing.T, dir string) func() {
			c := exec.Command("sleep", "300")
			c.Dir = dir
			return start(t, c)
		}},
		{"socket", "socket", func(t *testing.T, dir string) func() {
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err != nil {
				t.Fatal(err)
			}
			return func() { _ = l.Close() }
		}},
		{"nothing", "", func(*testing.T, string) func() { return func() {} }},
		{"what was stopped", "", func(t *testing.T, dir string) func() {
			start(t, exec.Command("tail", "-f", "/dev/null", dir))()
			return func() {}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := Dir(t)
			r := &recorder{TB: t}
			leaks(r, 50*time.Millisecond, []string{dir})
			undo := c.leak(t, dir)
			r.end()
			undo()
			got := strings.Join(r.errors, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) || c.want != "" && !strings.Contains(got, "left on the host") {
				t.Errorf("reported %q, want it to name %q", got, c.want)
			}
		})
	}
}

// start runs a command in a session of its own; undo ends it.
func start(t *testing.T, c *exec.Cmd) (undo func()) {
	t.Helper()
	c.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// TestLeakedProcessIsKilled holds that one bad test does not spoil the next.
func TestLeakedProcessIsKilled(t *testing.T) {
	dir := Dir(t)
	r := &recorder{TB: t}
	leaks(r, 50*time.Millisecond, []string{dir})
	c := exec.Command("tail", "-f", "/dev/null", dir)
	defer start(t, c)()
	id, err := proc.Identify(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r.end()
	if err := proc.Wait(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestTakeSeesFiles(t *testing.T) {
	dir := t.TempDir()
	before, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"banger.db", "banger.db-wal"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	in := func(i Item) bool { return strings.Contains(i.Text, dir) }
	if got, want := Diff(before.only(in), after.only(in)), "+ file  "+dir+"/banger.db\n"; got != want {
		t.Errorf("diff = %q, want %q", got, want)
	}
	if got, want := Diff(after.only(in), before.only(in)), "- file  "+dir+"/banger.db\n"; got != want {
		t.Errorf("diff backwards = %q, want %q", got, want)
	}
}

func TestTakeOfNoDirectory(t *testing.T) {
	if _, err := Take(filepath.Join(t.TempDir(), "absent")); err != nil {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// TestNetworkNamespaceIsSeen makes real ones: one kept by a process, one by a path.
func TestNetworkNamespaceIsSeen(t *testing.T) {
	Need(t, Root)
	for what, leak := range map[string]func(t *testing.T, dir string) (undo func()){
		" of ": func(t *testing.T, dir string) func() {
			c := exec.Command("tail", "-f", "/dev/null", dir)
			c.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setsid: true}
			if err := c.Start(); err != nil { // the child has them by then
				t.Fatal(err)
			}
			return func() {
				_ = c.Process.Kill()
				_ = c.Wait()
			}
		},
		" at ": func(t *testing.T, dir string) func() {
			path := filepath.Join(dir, "ns")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("unshare", "--net="+path, "true").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return func() {
				if err := unix.Unmount(path, 0); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		dir := Dir(t)
		before, err := Take()
		if err != nil {
			t.Fatal(err)
		}
		undo := leak(t, dir)
		after, err := Take()
		undo()
		if err != nil {
			t.Fatal(err)
		}
		ours := func(i Item) bool { return i.Kind == "netns" && i.Mentions([]string{dir}) }
		if got := after.Minus(before).only(ours); len(got) != 1 || !strings.Contains(got[0].Text, what) || len(before.only(ours)) > 0 {
			t.Errorf("of one that is kept by%ssomething it sees %v", what, got)
		}
		now, err := Take()
		if err != nil {
			t.Fatal(err)
		}
		if left := now.only(ours); len(left) > 0 {
			t.Errorf("it is gone, and seen: %v", left)
		}
	}
}

// TestLoopIsSeen sets up a real loop device.
func TestLoopIsSeen(t *testing.T) {
	Need(t, Root, Loop)
	dir := Dir(t)
	r := &recorder{TB: t}
	leaks(r, 50*time.Millisecond, []string{dir})
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatalf("set up a loop device: %v", err)
	}
	r.end()
	if err := exec.Command("losetup", "--detach", strings.TrimSpace(string(out))).Run(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(r.errors, "\n"); !strings.Contains(got, "loop  loop") {
		t.Errorf("reported %q, want the loop device", got)
	}
}
