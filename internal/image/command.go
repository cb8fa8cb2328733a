package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/file"
	"banger/internal/vm"
)

// command is one program's run as a step of a build.
type command struct {
	args   []string
	env    []string // beside the daemon's own; shown in errors
	stdin  io.Reader
	stdout io.Writer
	line   func(string) // gets each line of stderr; may be nil
	// enclosed gives it mount and process namespaces of its own, as root: what it mounts nobody else sees, and all that it
	// started ends with it, whoever dies first. Programs that mount into a chroot leave it so when they are cut off.
	enclosed bool
}

// commandError says which command failed, so that it can be pasted into a shell, and what it said last.
type commandError struct {
	command string
	output  string
	err     error
}

func (e *commandError) Error() string {
	s := "run " + e.command + ": " + e.err.Error()
	if e.output != "" {
		s += "\n" + e.output
	}
	return s
}

func (e *commandError) Unwrap() error { return e.err }

const (
	// killDelay is how long a cancelled command may clean up. mmdebstrap needs a second.
	killDelay = 10 * time.Second
	// drainDelay is how long the output of a command that has ended may take to be read: on a busy host whoever reads it
	// is slow too.
	drainDelay = 5 * time.Minute
)

// run waits for the program's end. A cancelled ctx ends it and all of its process group.
func (c command) run(ctx context.Context) error {
	tail := lines{each: c.line}
	cmd := c.prepare(ctx, &tail)
	// The kernel kills an enclosed command when the thread that started it ends: that must not be before the daemon's end.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if c.enclosed && errors.Is(err, unix.EPERM) && cmd.Process == nil { // root of a container that may not: as good as it gets
		c.enclosed = false
		cmd = c.prepare(ctx, &tail)
		err = cmd.Run()
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		if cmd.Process != nil {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what of the group has not ended by itself
		}
		return context.Cause(ctx)
	}
	output := tail.text()
	if strings.Contains(output, "No space left on device") || strings.Contains(output, "Disk quota exceeded") {
		err = fmt.Errorf("%w: %w", err, unix.ENOSPC) // programs tell it in words only
	}
	return &commandError{command: quote(append(slices.Clone(c.env), c.args...)), output: output, err: err}
}

func (c command) prepare(ctx context.Context, stderr io.Writer) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(append(os.Environ(), "LC_ALL=C.UTF-8", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin"), c.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = drainDelay
	cmd.Cancel = func() error {
		cmd.WaitDelay = killDelay // read after this, by the same goroutine: only who is cancelled is hurried
		return unix.Kill(-cmd.Process.Pid, unix.SIGTERM)
	}
	if c.enclosed {
		cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWPID, unix.CLONE_NEWNS
		cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
		cmd.Cancel = func() error { return cmd.Process.Kill() } // PID 1 of its namespace: the rest goes with it
	}
	return cmd
}

// explain says what was being done when a step failed, and gives that its code and its hint.
func explain(what, dir string, err error) error {
	if file.NoSpace(err) {
		return vm.Errorf(vm.CodeNoSpace, "%s: %w", what, err).WithHint("it needs about 1 GB, or twice what the image holds, on the file system of %s", dir)
	}
	if errors.Is(err, context.Canceled) {
		return vm.Errorf(vm.CodeCanceled, "%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// lines is a writer that hands on whole lines and keeps the last ones.
type lines struct {
	each func(string)
	part []byte
	last []string
}

const (
	keepLines = 15
	keepBytes = 4096 // of one line
)

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		l.end(append(l.part, p[:i]...))
		l.part, p = l.part[:0], p[i+1:]
	}
	if room := keepBytes - len(l.part); room > 0 {
		l.part = append(l.part, p[:min(len(p), room)]...)
	}
	return n, nil
}

func (l *lines) end(b []byte) {
	if i := bytes.LastIndexByte(bytes.TrimRight(b, "\r"), '\r'); i >= 0 {
		b = b[i+1:] // what a terminal would still show of a progress display
	}
	s := strings.TrimRight(string(b[:min(len(b), keepBytes)]), "\r ")
	if s == "" {
		return
	}
	if l.each != nil {
		l.each(s)
	}
	if l.last = append(l.last, s); len(l.last) > keepLines {
		l.last = l.last[1:]
	}
}

func (l *lines) text() string {
	l.end(l.part)
	l.part = nil
	return strings.Join(l.last, "\n")
}

// quote writes a command line as a POSIX shell reads it.
func quote(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		plain := func(r rune) bool {
			return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,+@%", r)
		}
		if w != "" && strings.IndexFunc(w, func(r rune) bool { return !plain(r) }) < 0 {
			b.WriteString(w)
			continue
		}
		b.WriteString("'" + strings.ReplaceAll(w, "'", `'\''`) + "'")
	}
	return b.String()
}
