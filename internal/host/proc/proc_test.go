package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// start runs a process that sleeps, and that the test reaps itself.
func start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if len(args) == 0 {
		args = []string{"sleep", "60"}
	}
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func identify(t *testing.T, cmd *exec.Cmd) Identity {
	t.Helper()
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// becomeZombie kills and waits for the end without reaping.
func becomeZombie(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}

func TestIdentify(t *testing.T) {
	self, err := Identify(os.Getpid())
	if err != nil || self.PID != os.Getpid() || self.StartTime == 0 || self.BootID != BootID() || self.BootID == "" {
		t.Errorf("self is %+v, %v", self, err)
	}
	if again, err := Identify(os.Getpid()); err != nil || again != self || !Alive(self) {
		t.Errorf("the same process is %+v, then %+v, %v", self, again, err)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, err := Identify(pid); !errors.Is(err, ErrGone) {
			t.Errorf("pid %d: %v, want ErrGone", pid, err)
		}
	}
}

func TestZombieIsGone(t *testing.T) {
	cmd := start(t)
	id := identify(t, cmd)
	if !Alive(id) {
		t.Fatal("not alive while it runs")
	}
	becomeZombie(t, cmd)
	if _, err := Identify(id.PID); !errors.Is(err, ErrGone) {
		t.Errorf("identify a zombie: %v", err)
	}
	if Alive(id) {
		t.Error("a zombie lives")
	}
	if err := Signal(id, unix.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("signal a zombie: %v", err)
	}
	if err := Wait(t.Context(), id); err != nil {
		t.Errorf("wait for a zombie: %v", err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the zombie was not left to its parent")
	}
	if Alive(id) {
		t.Error("alive after it was reaped")
	}
}

func TestSignalAndWait(t *testing.T) {
	cmd := start(t)
	id := identify(t, cmd)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := Wait(t.Context(), id); err != nil {
				t.Errorf("wait: %v", err)
			}
		})
	}
	if err := errors.Join(Signal(id, 0), Signal(id, unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.String() != "signal: terminated" {
		t.Errorf("it ended with %v", err)
	}
}

// A process of another parent: nobody here can reap it.
func TestWaitForStranger(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(out), &pid); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := Wait(ctx, id); err != nil {
		t.Error(err)
	}
}

func TestWaitCancelled(t *testing.T) {
	id := identify(t, start(t))
	ended, cancelEnded := context.WithCancel(t.Context())
	cancelEnded()
	if err := Wait(ended, id); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := Wait(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at its deadline: %v", err)
	}
	if !Alive(id) {
		t.Error("giving up ended the process")
	}
}

// Many waits at once cost no threads and leave no descriptor or goroutine.
func TestWaitIsLight(t *testing.T) {
	id := identify(t, start(t))
	fds := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	goroutines, descriptors, threads := runtime.NumGoroutine(), fds(), pprof.Lookup("threadcreate").Count()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 200 { // one by one: many at once would make threads by opening at once, not by waiting
		wg.Go(func() { _ = Wait(ctx, id) })
		for fds() <= descriptors+i {
			runtime.Gosched()
		}
	}
	if n := pprof.Lookup("threadcreate").Count(); n > threads+50 {
		t.Errorf("200 waits made %d threads", n-threads)
	}
	cancel()
	wg.Wait()
	if n := fds(); n > descriptors {
		t.Errorf("%d descriptors, %d before", n, descriptors)
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines+20; runtime.Gosched() { // they may not be quite gone
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
}

func TestFind(t *testing.T) {
	// Seconds that no other process sleeps, and a second argument that must be compared whole.
	mark := fmt.Sprintf("60.%09d", os.Getpid())
	a, b := start(t, "sleep", mark), start(t, "sleep", "0", mark)
	match := func(args []string) bool { return slices.Contains(args, mark) }
	found, err := Find(match)
	want := []Identity{identify(t, a), identify(t, b)}
	slices.SortFunc(want, func(x, y Identity) int { return x.PID - y.PID })
	if err != nil || !slices.Equal(found, want) {
		t.Errorf("found %+v, %v; want %+v", found, err, want)
	}
	becomeZombie(t, a)
	if found, err := Find(match); err != nil || len(found) != 1 || found[0] != identify(t, b) {
		t.Errorf("with one a zombie: %+v, %v", found, err)
	}
	if found, err := Find(func([]string) bool { return false }); err != nil || len(found) != 0 {
		t.Errorf("found %+v, %v", found, err)
	}
}

// This makes the test binary, when it is run for that, a process whose first thread has ended while others
// live. Variables are set up on the first thread, before anything else of the program runs.
var _ = func() bool {
	if os.Getenv("BANGER_TEST_FIRST_THREAD") == "ends" {
		go time.Sleep(1000 * time.Second)
		_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // of the thread; of the process it is exit_group
	}
	return true
}()

func TestAProcessLivesAsLongAsItsLastThread(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BANGER_TEST_FIRST_THREAD=ends")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id.PID))
		if err != nil {
			t.Fatal(err)
		}
		if s, _ := parseStat(stat); s.state == 'Z' {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the first thread does not end")
		}
	}
	if !Alive(id) {
		t.Error("taken for dead while a thread lives")
	}
	if err := Signal(id, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := Wait(t.Context(), id); err != nil || Alive(id) {
		t.Errorf("after the kill: %v", err)
	}
}

func BenchmarkFind(b *testing.B) {
	for b.Loop() {
		if _, err := Find(func([]string) bool { return false }); err != nil {
			b.Fatal(err)
		}
	}
}
