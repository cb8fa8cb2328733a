package firecracker

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// A socket path may be longer below a jail than a socket's may be.
func TestRealDeepDirectory(t *testing.T) {
	dir := host(t)
	testhost.Leaks(t)
	d, c := realDriver(dir, jailedUID), machine(t, dir, jailedUID)
	deep := filepath.Join(dir, strings.Repeat("d", 90), string(c.ID))
	if err := errors.Join(os.MkdirAll(filepath.Dir(deep), 0o700), os.Rename(c.Dir, deep)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*string{&c.Root.Path, &c.Work.Path, &c.Console, &c.Log, &c.Metrics} {
		*p = filepath.Join(deep, filepath.Base(*p))
	}
	c.Dir = deep
	launch(t, d, c)
	awaitAPI(t, c)
	conn, err := net.Dial("unix", c.AgentSock)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// Another machine is not launched beside a VM's own, not even when nothing but its cgroup tells of that one, and takes
// nothing of it away.
func TestRealCgroup(t *testing.T) {
	dir := host(t)
	testhost.Need(t, testhost.Cgroup)
	testhost.Leaks(t)
	d, c := realDriver(dir, jailedUID), machine(t, dir, jailedUID)
	c.Cgroup = testhost.MakeCgroup(t, "banger-test-"+string(c.ID))
	id, exited := launch(t, d, c)
	awaitAPI(t, c)
	if err := errors.Join(os.Remove(c.APISock), os.Remove(c.AgentSock)); err != nil {
		t.Fatal(err)
	}
	if second, _, err := d.Launch(t.Context(), c); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("launched twice: %v", err)
		_ = proc.Signal(second, unix.SIGKILL)
	}
	if _, err := os.Stat(d.jailRoot(c.Ref(), d.found.Binary)); err != nil || !proc.Alive(id) {
		t.Errorf("the machine that was there has lost something: alive %v, its jail: %v", proc.Alive(id), err)
	}
	if err := proc.Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-exited
}
