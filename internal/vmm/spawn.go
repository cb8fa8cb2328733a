package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"banger/internal/act"
	"banger/internal/host/proc"
)

// Spawn is a VMM's process to be. Paths absolute.
type Spawn struct {
	Binary string
	Args   []string
	Log    string     // file its own words are appended to
	Stdout string     // file its standard output is appended to; empty: Log
	Files  []*os.File // handed on as descriptors 3 and up
	Cgroup string     // cgroup v2 directory to start in; empty = the caller's
}

// Start runs the process detached: own session, nothing inherited but Files, no working directory held, not bound to ctx
// once it returned. exited delivers one value when the process has ended and been reaped: how ("exit status 0",
// "signal: killed"), and with an error status the last lines of its log.
func (s Spawn) Start(ctx context.Context) (id proc.Identity, exited <-chan string, err error) {
	log, err := OpenLog(ctx, s.Log)
	if err != nil {
		return id, nil, err
	}
	defer func() { _ = log.Close() }()
	begin, err := log.Seek(0, 2)
	if err != nil {
		return id, nil, fmt.Errorf("open log: %w", err)
	}
	cmd := exec.Command(s.Binary, s.Args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = log, log
	if s.Stdout != "" {
		out, err := OpenLog(ctx, s.Stdout)
		if err != nil {
			return id, nil, err
		}
		defer func() { _ = out.Close() }()
		cmd.Stdout = out
	}
	cmd.ExtraFiles = s.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.Cgroup != "" {
		dir, err := os.Open(s.Cgroup)
		if err != nil {
			return id, nil, fmt.Errorf("open cgroup: %w", err)
		}
		defer func() { _ = dir.Close() }()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := ctx.Err(); err != nil {
		return id, nil, err
	}
	if err := act.Do(ctx, "process", cmd.Start); err != nil {
		return id, nil, err
	}
	// Not reaped yet, its pid cannot be another's: this is its identity or it has ended already.
	id, err = proc.Identify(cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
		return proc.Identity{}, nil, errors.New(ending(cmd, s.Log, begin))
	}
	told := make(chan string, 1)
	go func() { told <- ending(cmd, s.Log, begin) }()
	return id, told, nil
}

// OpenLog opens a file to append to, readable by its owner only.
func OpenLog(ctx context.Context, path string) (*os.File, error) {
	var f *os.File
	err := act.Do(ctx, "log", func() (err error) {
		f, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// ending reaps the process and tells how it ended.
func ending(cmd *exec.Cmd, log string, begin int64) string {
	err := cmd.Wait()
	if err == nil {
		return cmd.ProcessState.String()
	}
	words := lastLines(LogTail(log, begin, 4<<10), 3)
	if cmd.ProcessState == nil || !cmd.ProcessState.Exited() || words == "" {
		return err.Error()
	}
	return err.Error() + ": " + words
}

// lastLines joins the last n lines of a text into one: an error's second line often explains the first.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
