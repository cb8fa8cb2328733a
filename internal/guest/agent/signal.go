package agent

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// defaultHangupGrace is between SIGHUP and SIGKILL when the client went away, and between SIGTERM and SIGKILL when the
// command's time was over.
const defaultHangupGrace = 5 * time.Second

// Signal sends a signal ("SIGINT") to the process group, with a TTY to the foreground one.
func (p *process) Signal(name string) error {
	sig, err := parseSignal(name)
	if err != nil {
		return err
	}
	if p.Pty != nil {
		if group, err := p.foreground(); err == nil && group > 0 && group != p.pid {
			return unix.Kill(-group, sig)
		}
	}
	return p.s.reaper.signalGroup(p.pid, sig)
}

// parseSignal reads "SIGINT", "INT" (as SSH writes it) or "2".
func parseSignal(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	upper := strings.ToUpper(name)
	if sig := unix.SignalNum("SIG" + strings.TrimPrefix(upper, "SIG")); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("no signal is called %q", name)
}

// Resize sets the terminal's size; no-op without a TTY.
func (p *process) Resize(rows, cols uint16) error {
	return p.onPty(func(fd int) error { return resize(fd, rows, cols) })
}

func (p *process) foreground() (group int, err error) {
	err = p.onPty(func(fd int) error {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return group, err
}

// onPty runs f on the open terminal; no-op without one.
func (p *process) onPty(f func(fd int) error) error {
	if p.Pty == nil {
		return nil
	}
	raw, err := p.Pty.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err // closed: the command has ended
	}
	return ferr
}

// Hangup is for a client that went away: SIGHUP to the group now, SIGKILL to everything left of it after 5 s if the
// command is still there. What outlives a command that did end at the hang-up (nohup) is meant to. It returns at once;
// Wait still has to be called (by whoever runs it). Safe to call several times.
func (p *process) Hangup() { p.end(unix.SIGHUP) }

// Terminate is Hangup with SIGTERM. It reports whether that is what ends the command, and not something before it.
func (p *process) Terminate() bool { return p.end(unix.SIGTERM) }

func (p *process) end(sig syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending || p.released {
		return false
	}
	p.ending = true
	if p.Pty != nil {
		_ = p.Signal(unix.SignalName(sig)) // the foreground, where it is not the shell itself
	}
	if err := p.s.reaper.signalGroup(p.pid, sig); err != nil {
		return false // it has ended
	}
	_ = p.s.reaper.signalGroup(p.pid, unix.SIGCONT) // a stopped one must wake to hear it
	p.killer = time.AfterFunc(p.s.hangupGrace, p.kill)
	return true
}

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return
	}
	if p.group != nil && p.group.kill() == nil {
		return
	}
	_ = p.s.reaper.signalGroup(p.pid, unix.SIGKILL)
}
