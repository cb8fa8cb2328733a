package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary run again as something else: what an agent runs itself as, and roles.
func TestMain(m *testing.M) {
	if os.Args[0] == sftpName {
		Main(os.Args)
		os.Exit(0)
	}
	if role := os.Getenv("BANGER_TEST_ROLE"); role != "" {
		if err := roles[role](); err != nil {
			fmt.Println(err)
			if errors.Is(err, errors.ErrUnsupported) {
				os.Exit(exitUnsupported)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Under nohup the hang-up is ignored, here and in what is started from here, unless somebody listens to it.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	os.Exit(m.Run())
}

// exitUnsupported says that a role cannot be played on this host.
const exitUnsupported = 77

// roles run in a process of their own: each changes what the whole process is.
var roles = map[string]func() error{"init": actAsInit, "network": actAsNetworked}

// runRole runs a role in new namespaces, and fails the test with what it says when it fails.
func runRole(t *testing.T, role string, namespaces uintptr) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BANGER_TEST_ROLE="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("needs namespaces: %v", err)
	}
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() == exitUnsupported {
		t.Skip(out.String())
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
}

// As PID 1 every child is reaped, ours with its status to whoever waits, others without a trace.
func TestReaperAsInit(t *testing.T) { runRole(t, "init", unix.CLONE_NEWPID) }

func actAsInit() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("pid is %d", os.Getpid())
	}
	r, stop := newReaper(true)
	defer stop()
	start := func(script string) (<-chan syscall.WaitStatus, error) {
		_, exited, err := r.start(func() (int, error) {
			return syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Env: os.Environ()})
		})
		return exited, err
	}
	var wg sync.WaitGroup
	errs := make(chan error, 1000)
	for i := range 40 {
		wg.Go(func() {
			for j := range 5 {
				want := (i + j) % 250
				// Each leaves two orphans, one of which is dead at once, and some children cannot be started at all.
				exited, err := start("(exit 7) & (sleep 0.05 &) ; exit " + strconv.Itoa(want))
				if err != nil {
					errs <- err
					return
				}
				if _, _, err := r.start(func() (int, error) { return syscall.ForkExec("/no/such", []string{"x"}, &syscall.ProcAttr{}) }); err == nil {
					errs <- fmt.Errorf("started what does not exist")
				}
				if status := <-exited; status.ExitStatus() != want {
					errs <- fmt.Errorf("status %d, want %d", status.ExitStatus(), want)
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	select {
	case <-r.childless():
	case <-time.After(10 * time.Second):
		return fmt.Errorf("there still are children")
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		return fmt.Errorf("after childless, wait4: %w", err)
	}
	// And it works on after a time without children.
	exited, err := start("exit 3")
	if err != nil {
		return err
	}
	if status := <-exited; status.ExitStatus() != 3 {
		return fmt.Errorf("later status %v", status)
	}
	return nil
}
