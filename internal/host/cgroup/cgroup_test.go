package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"banger/internal/testhost"
	"banger/internal/vm"
)

func TestFind(t *testing.T) {
	const v1 = "31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n"
	for text, want := range map[string]string{
		"":                           "",
		v1:                           "",
		"nonsense\n - cgroup2 x\n\n": "",
		v1 + "40 25 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n":                       "/sys/fs/cgroup/unified",
		"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n":                  "/sys/fs/cgroup",
		"30 23 0:26 / /a shared:4 master:1 - cgroup2 x rw\n31 23 0:26 / /b shared:4 - cgroup2 cgroup2 rw\n": "/a",
	} {
		if got := find(strings.NewReader(text)); got != want {
			t.Errorf("find(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestNoHierarchy(t *testing.T) {
	var none Tree
	dir, limited, err := none.Ensure(t.Context(), "0123456789ab", Limits{Memory: 1 << 20})
	ids, lerr := none.List()
	if dir != "" || limited || err != nil || none.Remove(t.Context(), "0123456789ab") != nil || ids != nil || lerr != nil {
		t.Errorf("%q, %v, %v, %v", dir, err, ids, lerr)
	}
}

func TestLacks(t *testing.T) {
	dir := t.TempDir()
	for controllers, want := range map[string]string{
		"cpuset cpu io memory pids\n": "", "cpuset io\n": "lacks the controllers: memory, cpu", "memory\n": "lacks the controllers: cpu", "": "memory, cpu",
	} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte(controllers), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := (Tree{dir}).Lacks(); (got == "") != (want == "") || !strings.HasSuffix(got, want) {
			t.Errorf("%q: %q, want %q", controllers, got, want)
		}
	}
	for _, none := range []Tree{{}, {filepath.Join(dir, "absent")}} {
		if none.Lacks() == "" {
			t.Errorf("%+v lacks nothing", none)
		}
	}
}

func TestRealHierarchy(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.Cgroup)
	tree := Open()
	if tree.mount == "" {
		t.Fatal("there is a hierarchy, and it was not found")
	}
	id := vm.NewID()
	testhost.Leaks(t, string(id))
	t.Cleanup(func() { _ = tree.Remove(t.Context(), id) })
	var dir string
	for range 2 {
		var err error
		if dir, _, err = tree.Ensure(t.Context(), id, Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := tree.List(); err != nil || !slices.Contains(ids, id) {
		t.Errorf("%v, %v", ids, err)
	}
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	cmd := exec.Command("sleep", "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err, stranger := tree.Remove(t.Context(), id), fmt.Sprintf("%d (sleep)", cmd.Process.Pid); err == nil || !strings.Contains(err.Error(), stranger) {
		t.Errorf("remove a cgroup that %s lives in: %v", stranger, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for range 2 {
		if err := tree.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// Limits hold, and are set anew each time: a VM may be given more.
func TestRealLimits(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.Cgroup)
	tree, id := Open(), vm.NewID()
	testhost.Leaks(t, string(id))
	t.Cleanup(func() { _ = tree.Remove(t.Context(), id) })
	dir, limited, err := tree.Ensure(t.Context(), id, Limits{Memory: 64 << 20, CPUs: 2})
	if err != nil {
		t.Fatal(err)
	}
	if !limited {
		controllers, _ := os.ReadFile(tree.mount + "/cgroup.controllers")
		if strings.Contains(string(controllers), "memory") && strings.Contains(string(controllers), "cpu ") {
			t.Errorf("the limits do not hold, though the hierarchy has %s", controllers)
		}
		testhost.Lacks(t, testhost.Controllers, errors.New("this hierarchy has no memory and cpu controllers"))
	}
	read := func(name string) string {
		b, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if m, c := read("memory.max"), read("cpu.max"); m != "67108864" || c != "200000 100000" {
		t.Errorf("memory.max %s, cpu.max %s", m, c)
	}
	if _, limited, err := tree.Ensure(t.Context(), id, Limits{}); err != nil || !limited {
		t.Errorf("without limits: %v, %v", limited, err)
	}
	if m, c := read("memory.max"), read("cpu.max"); m != "max" || c != "max 100000" {
		t.Errorf("memory.max %s, cpu.max %s", m, c)
	}
}
