package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	patience    = 10 * time.Second // for a command that was told to end
	commandTime = 5 * time.Minute  // for a command whose context has no deadline: the first QEMU guest in a lab takes two
	failed      = 125              // exit code of banger's own failures
)

// limited gives ctx a deadline where it has none: no command may hang a test.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, commandTime, fmt.Errorf("no end after %v", commandTime))
}

// where a command runs in the lab.
type where struct {
	dir   string
	env   []string // KEY=VALUE
	stdin io.Reader
}

// command runs on the last processor, and so does whatever it starts: the lab's kernel panicked only where a guest's processor
// ran on the first one (docs/adr/0004).
func (l *Lab) command(ctx context.Context, w where, argv ...string) *exec.Cmd {
	argv = append([]string{"taskset", "--cpu-list", l.last()}, argv...)
	args := []string{"vm", "exec", "-q"}
	if w.dir != "" {
		args = append(args, "-w", w.dir)
	}
	for _, e := range w.env {
		args = append(args, "-e", e)
	}
	if w.stdin != nil {
		args = append(args, "-i")
	}
	cmd := exec.CommandContext(ctx, l.program(), append(append(args, name, "--"), argv...)...)
	cmd.Env = l.env()
	cmd.Stdin = w.stdin
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // passed on to the guest's command
	cmd.WaitDelay = patience
	return cmd
}

// Exec runs a command in the lab as root to its end. A command that ends with an exit code is no error; one that was
// not run, or did not end in time (ctx, or five minutes), is.
func (l *Lab) Exec(ctx context.Context, argv ...string) (stdout, stderr string, code int, err error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := l.command(ctx, where{}, argv...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	code, err = exitCode(ctx, cmd, cmd.Run())
	if err == nil && code == failed {
		err = errors.New(strings.TrimSpace(errs.String()))
	}
	if err != nil {
		err = fmt.Errorf("in the lab: %s: %w", strings.Join(argv, " "), err)
	}
	return out.String(), errs.String(), code, err
}

// exitCode tells a command that ended by itself from one that did not.
func exitCode(ctx context.Context, cmd *exec.Cmd, err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err != nil && ctx.Err() != nil:
		return -1, context.Cause(ctx)
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case err != nil:
		return -1, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// Run runs a command in the lab as root, with what it prints in the log as it comes. Any exit code but 0 is an error.
func (l *Lab) Run(ctx context.Context, argv ...string) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	cmd := l.command(ctx, where{}, argv...)
	lines := &lineWriter{line: func(s string) { l.Log("lab: %s", s) }}
	cmd.Stdout, cmd.Stderr = lines, lines // one writer, so that os/exec writes to it from one goroutine
	code, err := exitCode(ctx, cmd, cmd.Run())
	lines.flush()
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	if err != nil {
		return fmt.Errorf("in the lab: %s: %w", strings.Join(argv, " "), err)
	}
	return nil
}

// output is Exec for a command that must succeed, and whose output is one word or line.
func (l *Lab) output(ctx context.Context, argv ...string) (string, error) {
	stdout, stderr, code, err := l.Exec(ctx, argv...)
	if err == nil && code != 0 {
		err = fmt.Errorf("in the lab: %s: exit code %d\n%s", strings.Join(argv, " "), code, stderr)
	}
	return strings.TrimSpace(stdout), err
}

// Put copies a file or directory into the lab, as banger vm cp does.
func (l *Lab) Put(ctx context.Context, local, remote string) error {
	_, err := l.banger(ctx, "vm", "cp", "-q", local, name+":"+remote)
	return err
}

// Get copies a file or directory out of the lab.
func (l *Lab) Get(ctx context.Context, remote, local string) error {
	_, err := l.banger(ctx, "vm", "cp", "-q", name+":"+remote, local)
	return err
}

// SSH is a session in the lab as a person has it, a shell without a command. The caller connects and runs it.
func (l *Lab) SSH(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.program(), append([]string{"vm", "ssh", name, "--"}, argv...)...)
	cmd.Env = l.env()
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = patience
	return cmd
}

// lineWriter calls line for each line that is written to it.
type lineWriter struct {
	line func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		w.line(string(line))
		w.rest = rest
	}
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.line(string(w.rest))
	}
	w.rest = nil
}
