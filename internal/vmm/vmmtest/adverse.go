package vmmtest

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/testhost"
)

// quitWait is the time that Quit gets where the VMM answers nothing.
const quitWait = 2 * time.Second

// A VMM that is stopped, or hangs, answers nothing and hears no signal but one: who asks it to quit must get away.
func quitOfAStopped(t *testing.T, e Env) {
	c := e.Config(t)
	id, exited := launch(t, e, c)
	await(t, "the API is not there", func() error { _, err := os.Stat(c.APISock); return err }) // else a signal would ask it
	if err := e.Processes.Signal(id, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), quitWait)
	defer cancel()
	begin := time.Now()
	err := e.Driver.Quit(ctx, c.Ref()) // taken on or not: it cannot be done yet
	if took := time.Since(begin); took > quitWait+patience/4 {
		t.Errorf("quit took %v and gave %v", took, err)
	}
	if !e.Processes.Alive(id) {
		t.Error("a stopped process ended")
	}
	if found, ok := find(t, e, c.Ref()); !ok || found != id {
		t.Errorf("found %+v (%v), launched %+v", found, ok, id)
	}
	if err := e.Processes.Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if how := toldExit(t, exited); how != "signal: killed" {
		t.Errorf("told %q", how)
	}
	if err := e.Driver.Quit(t.Context(), c.Ref()); err != nil {
		t.Errorf("quit of what is gone: %v", err)
	}
}

func launchOutlivesItsContext(t *testing.T, e Env) {
	c := e.Config(t)
	ctx, cancel := context.WithCancel(t.Context())
	id, exited, err := e.Driver.Launch(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, e, id)
	cancel()
	awaitAgentSock(t, e, c)
	select {
	case how := <-exited:
		t.Errorf("it ended with its context: %s", how)
	default:
	}
	if !e.Processes.Alive(id) {
		t.Error("it ended with its context")
	}
	if id, _, err := e.Driver.Launch(ctx, e.Config(t)); err == nil {
		end(t, e, id)
		t.Error("launched with a context that had ended")
	}
}

func outlivesTheLauncher(t *testing.T, e Env) {
	c := e.Config(t)
	e.LaunchAndDie(t, c)
	id, ok := find(t, e, c.Ref())
	if !ok {
		t.Fatal("it is gone with its launcher")
	}
	defer end(t, e, id)
	if !e.Processes.Alive(id) {
		t.Error("found, but not alive")
	}
	awaitAgentSock(t, e, c)
	if err := e.Processes.Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := e.Processes.Wait(ctx, id); err != nil {
		t.Errorf("wait for a process of another parent: %v", err)
	}
	if _, ok := find(t, e, c.Ref()); ok {
		t.Error("found after its end")
	}
}

// impostorEnv makes the test binary a process that waits for the end of its input, whatever its arguments.
const impostorEnv = "BANGER_TEST_IMPOSTOR"

// Impostor does not return in a process that Suite started to look like a VMM. TestMain calls it before anything looks
// at the arguments.
func Impostor() {
	if os.Getenv(impostorEnv) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
}

// nobody is a user that no daemon and no jail runs as.
const nobody = 65534

// Anybody can give a process of theirs the command line of a VMM. It must not be adopted, nor told to end.
func findLeavesOtherUsersAlone(t *testing.T, e Env) {
	c := e.Config(t)
	id, exited := launch(t, e, c)
	args, err := ownArgs(id.PID)
	if err != nil {
		t.Log("this driver's processes are in memory: none of another user can be among them")
		return
	}
	testhost.Need(t, testhost.Root)
	if err := e.Processes.Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	toldExit(t, exited)
	other := impostor(t, args)
	if found, ok := find(t, e, c.Ref()); ok {
		t.Errorf("found %+v of another user (%+v)", found, other)
	}
	if err := e.Driver.Quit(t.Context(), c.Ref()); err != nil {
		t.Errorf("quit of what is gone: %v", err)
	}
	if again, err := proc.Identify(other.PID); err != nil || again != other {
		t.Errorf("another user's process was ended: %+v, %v", again, err)
	}
	// Beside it, the real one is found.
	id, _ = launch(t, e, c)
	if found, ok := find(t, e, c.Ref()); !ok || found != id {
		t.Errorf("found %+v (%v), launched %+v", found, ok, id)
	}
}

// ownArgs are the arguments of a process that was just started: it may still show its parent's, ours.
func ownArgs(pid int) ([]string, error) {
	for end := time.Now().Add(patience); ; <-time.After(time.Millisecond) {
		args, err := proc.Args(pid)
		if err != nil || !slices.Equal(args, os.Args) || time.Now().After(end) {
			return args, err
		}
	}
}

// impostor is a process of nobody's with this command line.
func impostor(t *testing.T, args []string) proc.Identity {
	t.Helper()
	program, err := os.Open("/proc/self/exe") // by its descriptor: nobody may not look into the directory it lies in
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	cmd := &exec.Cmd{Path: "/proc/self/fd/3", Args: args, Env: []string{impostorEnv + "=1"}, Dir: "/", ExtraFiles: []*os.File{program}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s as nobody: %v", filepath.Base(os.Args[0]), err)
	}
	t.Cleanup(func() { _ = input.Close(); _ = cmd.Wait() })
	id, err := proc.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	is, err := ownArgs(id.PID)
	uid, uerr := proc.UID(id.PID)
	if err != nil || uerr != nil || uid != nobody || len(is) != len(args) || is[0] != args[0] {
		t.Fatalf("the impostor is %q of %d: %v, %v", is, uid, err, uerr)
	}
	return id
}
