package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/cli/launch"
	"banger/internal/host/lockfile"
	"banger/internal/paths"
	"banger/internal/testhost"
)

// place is a root of its own for the real programs; its daemon ends with the test.
type place struct {
	paths.Paths
	env []string
}

func newPlace(t *testing.T) place {
	t.Helper()
	testhost.Need(t, testhost.Guest)
	return newPlaceIn(t, testhost.Dir(t))
}

func newPlaceIn(t *testing.T, root string) place {
	t.Helper()
	p := place{Paths: paths.Under(root)}
	p.env = append(os.Environ(), "BANGER_ROOT="+p.Root, "NO_COLOR=1")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c := client.New(p.Socket())
		defer c.Close()
		_ = c.Shutdown(ctx) // most likely one runs
		if err := launch.WaitGone(ctx, p.Paths); err != nil {
			t.Errorf("the daemon does not end: %v", err)
		}
	})
	return p
}

func (p place) command(t *testing.T, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = p.env
	return cmd
}

func (p place) run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := p.command(t, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		log, _ := os.ReadFile(p.DaemonLog())
		t.Fatalf("%s %v: %v\n%s\nthe daemon says:\n%s", name, args, err, &stderr, log[max(0, len(log)-4000):])
	}
	return out
}

func TestManyClientsStartOneDaemon(t *testing.T) {
	p := newPlace(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if out, err := p.command(t, "banger", "vm", "list", "--json").CombinedOutput(); err != nil || string(out) != "[]\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	wg.Wait()
	log, err := os.ReadFile(p.DaemonLog())
	if n := strings.Count(string(log), `"msg":"serving"`); err != nil || n != 1 {
		t.Errorf("%d daemons served, %v\n%s", n, err, log)
	}
}

// What the caller's shell holds open ("exec 9>lock; flock 9; banger vm list") is held by nobody who outlives it.
func TestADaemonHoldsNothingOfItsCaller(t *testing.T) {
	p := newPlace(t)
	lock := filepath.Join(p.Root, "callers.lock")
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	cmd := p.command(t, "banger", "vm", "list")
	cmd.ExtraFiles = []*os.File{f, f, f} // 3, where the ready pipe will be, and more
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var s api.Status
	if err := json.Unmarshal(p.run(t, "banger", "daemon", "status", "--json"), &s); err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID))
	if err != nil || len(fds) < 3 {
		t.Fatalf("%v, %v", fds, err)
	}
	for _, e := range fds {
		if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", s.PID, e.Name())); to == lock {
			t.Errorf("the daemon's descriptor %s is the caller's", e.Name())
		}
	}
	_ = f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	drop, err := lockfile.Take(ctx, lock)
	if err != nil {
		t.Fatalf("the caller's lock outlives it: %v", err)
	}
	drop()
}

// A daemon that was started by hand keeps what it was given, but gives none of it on; nor does it pass on that it wants to
// hear nothing of a closed pipe.
func TestChildrenOfTheDaemonInheritNothing(t *testing.T) {
	p := newPlace(t)
	bin, told := filepath.Join(p.Root, "bin"), filepath.Join(p.Root, "told")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\n{ ls -l /proc/$$/fd; grep SigIgn /proc/$$/status; } > %s.new && mv %s.new %s\nexit 1\n", told, told, told)
	if err := os.WriteFile(filepath.Join(bin, "qemu-system-x86_64"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env, "PATH="+bin+":"+os.Getenv("PATH"))
	f, err := os.Create(filepath.Join(p.Root, "callers.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	daemon := p.command(t, "bangerd")
	daemon.ExtraFiles = []*os.File{w, f}
	daemon.Env = append(daemon.Env, api.ReadyEnv+"=3")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { _ = daemon.Process.Signal(unix.SIGTERM); _ = daemon.Wait() })
	var ready api.Ready
	if err := json.NewDecoder(r).Decode(&ready); err != nil || !ready.Ready {
		t.Fatalf("%+v, %v", ready, err)
	}
	_ = p.command(t, "banger", "doctor").Run() // asks the daemon to try QEMU; finds that it is none
	out, err := os.ReadFile(told)
	if err != nil {
		t.Fatalf("the daemon tried no QEMU: %v", err)
	}
	if strings.Contains(string(out), f.Name()) {
		t.Errorf("it has what is the daemon's:\n%s", out)
	}
	_, mask, _ := strings.Cut(string(out), "SigIgn:")
	ignored, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
	if err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGPIPE} {
		if ignored&(1<<(s-1)) != 0 {
			t.Errorf("it ignores %v (%x)", s, ignored)
		}
	}
}
