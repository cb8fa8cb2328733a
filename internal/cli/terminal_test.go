package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/api/client"
	"banger/internal/paths"
)

// sandbox gives a test a daemon of its own, and returns the environment for commands that use it.
func sandbox(t *testing.T) (root string, env []string) {
	t.Helper()
	root, err := os.MkdirTemp("", "banger-cli") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stopDaemon(t, root)
		os.RemoveAll(root)
	})
	// The shell is not the developer's own, with his profile.
	return root, append(os.Environ(), "BANGER_ROOT="+root, "TERM=xterm", "NO_COLOR=", "SHELL=/bin/sh", "HOME="+root, "ENV=")
}

// screen collects what a terminal shows, and lets a test wait for a text.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.text.Write(p)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) wait(t *testing.T, text string) {
	t.Helper()
	s.waitFor(t, text, func(shown string) bool { return strings.Contains(shown, text) })
}

func (s *screen) waitFor(t *testing.T, what string, there func(shown string) bool) {
	t.Helper()
	deadline := time.After(soon)
	for !there(s.String()) {
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("the terminal does not show %q but %q", what, s.String())
		}
	}
}

// onTerminal runs banger on a terminal of 24 rows and 80 columns.
func onTerminal(t *testing.T, env []string, args ...string) (*exec.Cmd, *os.File, *screen) {
	t.Helper()
	return onTerminalRun(t, env, "banger", args...)
}

func onTerminalRun(t *testing.T, env []string, program string, args ...string) (*exec.Cmd, *os.File, *screen) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = env
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{more: make(chan struct{}, 1)}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			s.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		tty.Close()
	})
	return cmd, tty, s
}

func wantExit(t *testing.T, cmd *exec.Cmd, want int) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(soon):
		cmd.Process.Kill()
		t.Fatal("it does not end")
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Errorf("exit code %d, want %d", got, want)
	}
}

func mustRun(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("banger", args...)
	cmd.Env = env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("banger %v: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

func TestTerminal(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")

	cmd, tty, s := onTerminal(t, env, "vm", "exec", "-t", "web", "sh", "-c",
		`stty noflsh; echo "term $TERM"; trap 'stty size' WINCH; trap 'echo interrupted; exit 3' INT; stty size; while :; do read line; echo "got <$line>"; done`)
	s.wait(t, "term xterm\r\n24 80\r\n")
	pty.Setsize(tty, &pty.Winsize{Rows: 50, Cols: 132})
	s.wait(t, "50 132\r\n")
	tty.WriteString("hello\n")
	s.wait(t, "got <hello>\r\n")
	if strings.Count(s.String(), "hello") != 2 {
		t.Errorf("the input is not echoed exactly once, by the guest: %q", s.String())
	}
	tty.WriteString("\x03") // Ctrl-C goes to the guest as a byte: its own terminal makes the signal of it
	s.wait(t, "interrupted\r\n")
	wantExit(t, cmd, 3)
}

func TestShellOnATerminal(t *testing.T) {
	_, env := sandbox(t)
	cmd, tty, s := onTerminal(t, env, "vm", "run", "--name", "web")
	tty.WriteString("echo $((6*7))\n")
	s.wait(t, "42\r\n")
	tty.WriteString("exit 5\n")                                              // apart: a shell's end hangs its terminal up, and the kernel may drop what was just written there
	s.wait(t, "banger: VM web stays; 'banger vm delete web' removes it\r\n") // the carriage return says that raw mode is off
	wantExit(t, cmd, 5)
}

// TestTerminalIsRestored: whatever ends a session, the terminal must be usable again.
func TestTerminalIsRestored(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	for _, end := range []string{"guest-dies", "daemon-dies", "no-such-command"} {
		t.Run(end, func(t *testing.T) {
			if end == "daemon-dies" {
				defer mustRun(t, env, "vm", "run", "-d", "--name", "web") // the fake forgets its VMs
			}
			cmd, _, s := onTerminalRun(t, env, "sh", "-c", `before=$(stty -g); banger vm exec -t web `+end+`; [ "$before" = "$(stty -g)" ] && echo restored`)
			s.wait(t, "restored")
			wantExit(t, cmd, 0)
		})
	}
}

// piped runs banger without a terminal and waits until it has printed a text.
func piped(t *testing.T, env []string, text string, args ...string) (*exec.Cmd, *screen) {
	t.Helper()
	cmd := exec.Command("banger", args...)
	cmd.Env = env
	s := &screen{more: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = s, s
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // what it runs in the guest goes with it
	s.wait(t, text)
	return cmd, s
}

func TestSignalsReachTheCommand(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	for _, c := range []struct {
		signal syscall.Signal
		name   string
	}{{syscall.SIGINT, "INT"}, {syscall.SIGTERM, "TERM"}, {syscall.SIGHUP, "HUP"}, {syscall.SIGQUIT, "QUIT"}, {syscall.SIGUSR1, "USR1"}, {syscall.SIGUSR2, "USR2"}} {
		t.Run(c.name, func(t *testing.T) {
			cmd, s := piped(t, env, "ready", "vm", "exec", "web", "sh", "-c",
				`trap 'echo "got $0"; exit 9' `+c.name+`; echo ready; while :; do sleep 0.05; done`, c.name)
			cmd.Process.Signal(c.signal)
			s.wait(t, "got "+c.name)
			wantExit(t, cmd, 9)
		})
	}
}

// Who loses a terminal loses no command that was to be kept.
func TestAKeptCommandHearsNoHangUp(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, s := piped(t, env, "ready", "vm", "exec", "--keep", "web", "sh", "-c", `trap 'echo got; exit 9' HUP; echo ready; while :; do sleep 0.05; done`)
	cmd.Process.Signal(syscall.SIGHUP)
	wantExit(t, cmd, 129)
	if strings.Contains(s.String(), "got") {
		t.Errorf("it heard of it: %q", s.String())
	}
	job := strings.TrimSpace(mustRun(t, env, "vm", "jobs", "-q", "web"))
	mustRun(t, env, "vm", "signal", "web", job, "KILL")
}

func TestSecondCtrlCLeaves(t *testing.T) {
	_, env := sandbox(t)
	cmd, s := piped(t, env, "ready", "vm", "run", "--rm", "--", "sh", "-c", `trap 'echo int' INT; echo ready; while :; do sleep 0.05; done`)
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	// The next one is sent when the guest has the last: two that come together may arrive as one, and one that comes while
	// the VM is being removed ends that. On a slow machine the second may come too late to be one; then the third is.
	for sent := 1; !closed(done); sent++ {
		if sent > 20 {
			t.Fatal("it heeds no second Ctrl-C")
		}
		cmd.Process.Signal(syscall.SIGINT)
		waitFor(t, func() bool { return closed(done) || strings.Count(s.String(), "int\n") >= sent })
	}
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("exit code %d, want 130", got)
	}
	if left := mustRun(t, env, "vm", "list", "-q"); left != "" {
		t.Errorf("--rm left %q", left)
	}
}

// TestInterruptedStart: Ctrl-C before the command began removes what was begun.
func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	root, env := sandbox(t)
	mustRun(t, env, "ps")
	c := client.New(paths.Under(root).Socket())
	defer c.Close()
	for _, args := range [][]string{{"--", "true"}, {"--rm", "--", "true"}, {"-d"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			// The line of the stage "image" says that banger knows of the VM.
			cmd, out := piped(t, env, "banger: image", append([]string{"vm", "run", "--image", "slow", "--name", "slow"}, args...)...)
			waitFor(t, func() bool {
				v, err := c.VM(context.Background(), "slow")
				return err == nil && v.State == "starting"
			})
			cmd.Process.Signal(os.Interrupt)
			wantExit(t, cmd, 130)
			if strings.Contains(out.String(), "stays") {
				t.Errorf("it says that the VM stays: %q", out.String())
			}
			if left := mustRun(t, env, "vm", "list", "-q"); left != "" {
				t.Errorf("it left %q", left)
			}
		})
	}
}

// TestInterruptedBuild: Ctrl-C while the script of an image runs returns when its VM is gone.
func TestInterruptedBuild(t *testing.T) {
	t.Parallel()
	_, env := sandbox(t)
	script := filepath.Join(t.TempDir(), "provision")
	if err := os.WriteFile(script, []byte("sleep infinity\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The line of the stage "script" says that banger knows of the VM.
	cmd, _ := piped(t, env, "banger: script", "image", "build", "--name", "slow", "--script", script)
	if there := mustRun(t, env, "vm", "list", "-q"); there != "builder\n" {
		t.Fatalf("it is built in %q", there)
	}
	cmd.Process.Signal(os.Interrupt)
	wantExit(t, cmd, 130)
	if left := mustRun(t, env, "vm", "list", "-q"); left != "" {
		t.Errorf("it left %q", left)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(soon); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(errors.New("it does not happen"))
		}
	}
}

// TestDetach: keys leave a command that is kept, and somebody attaches to it again.
func TestDetach(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, tty, s := onTerminal(t, env, "vm", "exec", "-t", "--keep", "web", "sh", "-c", `echo begun; while read line; do echo "got <$line>"; done; exit 4`)
	s.wait(t, "begun")
	tty.WriteString("hello\n")
	s.wait(t, "got <hello>")
	tty.WriteString("\x10\x11")
	s.wait(t, "banger: detached; 'banger vm attach web 01a0b1c2d3e4' attaches again\r\n")
	wantExit(t, cmd, 0)

	cmd, tty, s = onTerminal(t, env, "vm", "attach", "-i", "web", "01")
	s.wait(t, "got <hello>\r\n")
	tty.WriteString("again\n")
	s.wait(t, "got <again>\r\n")
	tty.WriteString("\x04")
	wantExit(t, cmd, 4)

	// Without --keep they are the command's.
	cmd, tty, s = onTerminal(t, env, "vm", "exec", "-t", "web", "sh", "-c", `stty raw -echo; echo begun; head -c 2 | od -An -tx1`)
	s.wait(t, "begun")
	tty.WriteString("\x10\x11")
	s.wait(t, "10 11")
	wantExit(t, cmd, 0)
}

// TestCutOffSession: who is cut off learns how to come back, and from where.
func TestCutOffSession(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, s := piped(t, env, "hello", "vm", "exec", "web", "--", "sh", "-c", "echo hello; exec sleep 1000")
	var status struct{ PID int }
	if err := json.Unmarshal([]byte(mustRun(t, env, "daemon", "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(status.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.wait(t, "hint: if the VM still runs, so does the command, for 5 minutes: banger vm attach --from 6 web 01a0b1c2d3e4\n")
	wantExit(t, cmd, 125)
}
