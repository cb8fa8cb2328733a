package daemon

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/host/lockfile"
	"banger/internal/paths"
	"banger/internal/vm"
)

func TestLockOutwaitsWhoOnlyLooks(t *testing.T) {
	p := paths.Under(t.TempDir())
	drop, err := lockfile.Take(t.Context(), p.DaemonLock()) // as 'banger daemon stop' does, to see a daemon's end
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, drop)
	unlock, err := lock(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if b, err := os.ReadFile(p.DaemonLock()); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(os.Getpid()) {
		t.Errorf("the lock file says %q, %v", b, err)
	}
}

func TestLockNamesALivingHolderOnly(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pid   int
		named bool
	}{
		"alive": {os.Getpid(), true},
		"dead":  {dead.Process.Pid, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits as long as a daemon does
			p := paths.Under(t.TempDir())
			drop, err := lockfile.Take(t.Context(), p.DaemonLock())
			if err != nil {
				t.Fatal(err)
			}
			defer drop()
			if err := os.WriteFile(p.DaemonLock(), []byte(strconv.Itoa(c.pid)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = lock(t.Context(), p)
			if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), p.Root) || strings.Contains(err.Error(), "(pid ") != c.named {
				t.Error(err)
			}
		})
	}
}
