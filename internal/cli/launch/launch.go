// Package launch starts bangerd for a CLI that found none, and returns when it answers.
//
// Two CLIs that start at once get one daemon: a lock file serializes them. Readiness is told by the daemon through an
// inherited pipe, death by the pipe's end; nothing sleeps or polls. It never stops or signals a daemon.
package launch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"banger/internal/act"
	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/host/fds"
	"banger/internal/host/lockfile"
	"banger/internal/paths"
	"banger/internal/vm"
)

// readyFD is where exec.Cmd puts the first of its ExtraFiles.
const readyFD = 3

// goingDown bounds the wait for an old daemon that has closed its socket but still holds its lock.
const goingDown = 10 * time.Second

// lookAgain is how often it is looked meanwhile whether the old daemon listens: a lock and a socket cannot be waited for at
// once.
const lookAgain = 100 * time.Millisecond

// Launcher starts the daemon of Paths.
type Launcher struct {
	Paths paths.Paths
	// Find returns the path of the daemon's binary; nil = FindDaemon.
	Find func() (string, error)
	// Spawned is told of a daemon that was started here; nil = nobody asks.
	Spawned func(binary string, pid int)
}

// Start returns nil once a daemon listens, its own or one that another process started meanwhile. The daemon outlives
// the caller: own session, no terminal, output to Paths.DaemonLog. ctx bounds the wait, not the daemon.
func (l Launcher) Start(ctx context.Context) error {
	err := l.start(act.In(ctx, "launch"))
	if err == nil || ctx.Err() != nil || errors.As(err, new(*vm.Error)) {
		return err
	}
	// A read-only file system, no descriptors left: nothing of a daemon's, which there is none of.
	return vm.Errorf(vm.CodeUnavailable, "start the daemon: %w", err).
		WithHint("it has to be able to write in %s; BANGER_ROOT=DIR puts everything under another directory", l.Paths.Root)
}

func (l Launcher) start(ctx context.Context) error {
	p := l.Paths
	if err := p.CheckSockets(); err != nil {
		return err
	}
	if err := p.Make(ctx); err != nil {
		return err
	}
	unlock, err := lockfile.Take(ctx, p.StartLock())
	if err != nil {
		return err
	}
	defer unlock()
	if listens(ctx, p.Socket()) {
		return nil
	}
	if err := l.waitForOld(ctx); err != nil {
		return err
	}
	if listens(ctx, p.Socket()) {
		return nil
	}
	err = l.spawn(ctx)
	// One that was begun before, by hand or by somebody who was killed then, may not have had its lock yet when we looked.
	if err != nil && listens(ctx, p.Socket()) {
		return nil
	}
	return err
}

// waitForOld waits until no daemon holds the lock: one that is stopping takes a moment after it closed its socket. Or until
// it listens after all: one whose socket was removed makes another.
func (l Launcher) waitForOld(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, goingDown)
	defer cancel()
	gone := make(chan error, 1)
	go func() { gone <- WaitGone(ctx, l.Paths) }()
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-gone:
			waiting = false
		case <-look.C:
			if listens(ctx, l.Paths.Socket()) {
				return nil
			}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return vm.Errorf(vm.CodeUnavailable, "a daemon holds %s but does not listen on %s", l.Paths.DaemonLock(), l.Paths.Socket()).
			WithHint("see %s", l.Paths.DaemonLog())
	}
	return err
}

// WaitGone returns when no daemon of p is running: the kernel drops a daemon's lock with its last breath.
func WaitGone(ctx context.Context, p paths.Paths) error {
	unlock, err := lockfile.Take(ctx, p.DaemonLock())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no directory, no daemon
	}
	if err != nil {
		return err
	}
	unlock()
	return nil
}

// listens says whether a daemon answers: one that was killed a moment ago may still be connected to.
func listens(ctx context.Context, socket string) bool {
	conn, err := client.Dial(ctx, socket)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (l Launcher) spawn(ctx context.Context) error {
	find := l.Find
	if find == nil {
		find = FindDaemon
	}
	binary, err := find()
	if err != nil {
		return err
	}
	var log *os.File
	err = act.Do(ctx, "log", func() (err error) {
		log, err = os.OpenFile(l.Paths.DaemonLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		return err
	})
	if err != nil {
		return vm.Errorf(vm.CodeInternal, "open the daemon's log: %w", err)
	}
	defer log.Close()
	var from int64 // where this daemon's words begin in the log
	if fi, err := log.Stat(); err == nil {
		from = fi.Size()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return vm.Errorf(vm.CodeInternal, "make the daemon's ready pipe: %w", err)
	}
	defer r.Close()

	cmd := exec.Command(binary)
	cmd.Dir = "/" // never keep the user's directory busy
	cmd.Env = append(os.Environ(), api.ReadyEnv+"="+strconv.Itoa(readyFD))
	if os.Getenv("BANGER_ROOT") != "" {
		cmd.Env = append(cmd.Env, "BANGER_ROOT="+l.Paths.Root) // absolute: the daemon works in another directory
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := fds.CloseOnExec(); err != nil { // what the caller's shell holds open is not the daemon's to keep
		w.Close()
		return err
	}
	err = act.Do(ctx, "daemon", cmd.Start)
	w.Close()
	if err != nil {
		return vm.Errorf(vm.CodeMissing, "start the daemon %s: %w", binary, err)
	}
	if l.Spawned != nil {
		l.Spawned(binary, cmd.Process.Pid)
	}
	defer context.AfterFunc(ctx, func() { r.Close() })()

	var ready api.Ready
	line, err := bufio.NewReader(r).ReadBytes('\n')
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return died(cmd, l.Paths.DaemonLog(), from)
	case json.Unmarshal(line, &ready) != nil:
		return vm.Errorf(vm.CodeInternal, "the daemon %s said %q instead of whether it is ready", binary, line).
			WithHint("banger and bangerd must come from the same build")
	case ready.Error != nil:
		return ready.Error.Err()
	}
	return cmd.Process.Release()
}

// died tells how the daemon ended and what it last said.
func died(cmd *exec.Cmd, log string, from int64) error {
	err := cmd.Wait()
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	e := vm.Errorf(vm.CodeUnavailable, "start the daemon %s: it ended at once (%s)", cmd.Path, how)
	if tail := tailOf(log, from); tail != "" {
		return e.WithHint("its last words, from %s:\n%s", log, tail)
	}
	return e.WithHint("it left no word in %s", log)
}

// FindDaemon looks for bangerd beside this program, then in PATH.
func FindDaemon() (string, error) {
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		beside := filepath.Join(filepath.Dir(self), "bangerd")
		if fi, err := os.Stat(beside); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	found, err := exec.LookPath("bangerd")
	if err != nil {
		return "", vm.Errorf(vm.CodeMissing, "find the daemon bangerd: %w", err).
			WithHint("put bangerd beside banger, or in a directory of PATH")
	}
	if found, err = filepath.Abs(found); err != nil {
		return "", fmt.Errorf("resolve %s: %w", found, err)
	}
	return found, nil
}
