package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

// TestLeaveWithoutInput: the same keys leave a command that gets nothing of the terminal, which is then as it was. Ctrl-C and
// Ctrl-Z stay what they are, and whoever is not alone at the terminal reads none of it.
func TestLeaveWithoutInput(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	const stays = `trap 'echo got-int; exit 9' INT; echo begun; while :; do sleep 0.05; done`
	// watched runs a shell that has jobs; $0 is the command, and same tells of a terminal that was left as it was. A key that is
	// a signal drops nothing there of what is on its way (noflsh), as answers to it may be.
	watched := func(script string) (*exec.Cmd, *os.File, *screen) {
		t.Helper()
		return onTerminalRun(t, env, "sh", "-c", `set -m; stty noflsh; before=$(stty -g); same() { [ "$before" = "$(stty -g)" ] && echo "$1 same"; }; `+script, stays)
	}
	const detached = "banger: detached; 'banger vm attach web 01a0b1c2d3e4' attaches again\r\n"

	cmd, tty, s := watched(`banger vm exec --keep web sh -c "$0"; same "left $?"`)
	s.wait(t, "begun\r\n")
	tty.WriteString("unseen\x10\x10\x11")
	s.wait(t, detached+"left 0 same\r\n")
	wantExit(t, cmd, 0)
	if strings.Contains(s.String(), "unseen") {
		t.Errorf("keys that nobody gets are shown: %q", s.String())
	}

	// Stopped by Ctrl-Z it gives the terminal back, and takes it again.
	cmd, tty, s = watched(`banger vm attach web 01; same stopped; fg; same "left $?"`)
	s.wait(t, "begun\r\n")
	tty.WriteString("\x1a")
	s.wait(t, "stopped same\r\n")
	waitFor(t, func() bool { return single(t, tty) })
	tty.WriteString("\x10\x11")
	s.wait(t, detached+"left 0 same\r\n")
	wantExit(t, cmd, 0)

	// Where no shell could have it go on, Ctrl-Z does nothing.
	cmd, tty, s = onTerminalRun(t, env, "sh", "-c", "stty noflsh; exec banger vm attach web 01")
	s.wait(t, "begun\r\n")
	tty.WriteString("\x1a\x10\x11")
	s.wait(t, detached)
	wantExit(t, cmd, 0)

	// In the background, begun there or brought there, it is not stopped for want of the terminal, and leaves it alone.
	cmd, _, s = watched(`banger vm attach web 01 & same started; wait $!; same "ended $?"`)
	s.wait(t, "started same\r\n")
	s.wait(t, "begun\r\n")
	mustRun(t, env, "vm", "signal", "web", "01", "INT")
	s.wait(t, "ended 9 same\r\n")
	wantExit(t, cmd, 0)

	mustRun(t, env, "vm", "exec", "-d", "web", "sh", "-c", stays)
	cmd, tty, s = watched(`banger vm attach web 02; bg; echo brought; wait`)
	s.wait(t, "begun\r\n")
	tty.WriteString("\x1a")
	s.wait(t, "brought\r\n")
	mustRun(t, env, "vm", "signal", "web", "02", "INT")
	s.wait(t, "got-int\r\n")
	wantExit(t, cmd, 0)

	// Ctrl-C is the command's.
	mustRun(t, env, "vm", "exec", "-d", "web", "sh", "-c", stays)
	cmd, tty, s = watched(`banger vm attach web 03; same "ended $?"`)
	s.wait(t, "begun\r\n")
	tty.WriteString("\x03")
	s.wait(t, "got-int\r\nended 9 same\r\n")
	wantExit(t, cmd, 0)

	// Who reads the output may read the keys as well, as a pager does: they are not taken from it.
	mustRun(t, env, "vm", "exec", "-d", "web", "sh", "-c", stays)
	cmd, tty, s = watched(`banger vm attach web 04 | cat; read line; echo "read <$line>"`)
	s.wait(t, "begun\r\n")
	tty.WriteString("ahead\n")
	s.wait(t, "ahead\r\n")
	mustRun(t, env, "vm", "signal", "web", "04", "INT")
	s.wait(t, "read <ahead>\r\n")
	wantExit(t, cmd, 0)

	// A terminal that was made so by somebody else is left alone: another of us would take that for how it was.
	mustRun(t, env, "vm", "exec", "-d", "web", "sh", "-c", stays)
	cmd, tty, s = watched(`stty -echo -icanon; banger vm attach web 05; stty sane; echo over`)
	s.wait(t, "begun\r\n")
	if termios(t, tty).Iflag&unix.IXON == 0 {
		t.Error("a terminal that is somebody else's was changed")
	}
	mustRun(t, env, "vm", "signal", "web", "05", "INT")
	s.wait(t, "over\r\n")
	wantExit(t, cmd, 0)
}

// TestKeysAfterTheBackground: who was in the background and is brought back heeds the keys again, however it came there.
// Of the two shells bash tells nothing to a command that it brings back and that ran meanwhile.
func TestKeysAfterTheBackground(t *testing.T) {
	testhost.Need(t, testhost.Bash)
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	mustRun(t, env, "vm", "exec", "-d", "web", "sh", "-c", "echo begun; exec sleep 1000")
	for _, shell := range []string{"sh", "bash"} {
		for _, tt := range []struct{ name, begin, stop string }{
			{"stopped by a key", "banger vm attach web 01; bg", "\x1a"},
			{"stopped by a signal", "banger vm attach web 01; bg", "STOP"},
			{"begun there", "banger vm attach web 01 &", ""},
		} {
			t.Run(shell+", "+tt.name, func(t *testing.T) {
				cmd, tty, s := onTerminalRun(t, env, shell, "-c", `set -m; before=$(stty -g); `+tt.begin+`
					echo behind; read line; fg; echo "left $?$([ "$before" = "$(stty -g)" ] && echo " same")"`)
				s.wait(t, "begun\r\n")
				switch tt.stop {
				case "":
				case "STOP":
					if err := unix.Kill(onlyChild(t, cmd), unix.SIGSTOP); err != nil {
						t.Fatal(err)
					}
				default:
					tty.WriteString(tt.stop)
				}
				s.wait(t, "behind\r\n")
				pid := onlyChild(t, cmd)
				waitFor(t, func() bool { return !reads(t, pid) }) // it has found out that the terminal is not its own
				tty.WriteString("go\n")
				waitFor(t, func() bool { return single(t, tty) && reads(t, pid) })
				tty.WriteString("\x10\x11")
				s.wait(t, "banger: detached; 'banger vm attach web 01a0b1c2d3e4' attaches again\r\n")
				s.wait(t, "left 0")
				wantExit(t, cmd, 0)
				// A shell that finds the terminal as somebody left it who could not give it back may bring that back itself.
				if tt.stop != "STOP" && !strings.Contains(s.String(), "left 0 same\r\n") {
					t.Errorf("the terminal is not as it was: %q", s.String())
				}
			})
		}
	}
}

// TestStoppedOnATerminal: who is stopped by a signal and brought back has the terminal as before, whatever its shell made of it.
func TestStoppedOnATerminal(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, tty, s := onTerminalRun(t, env, "sh", "-c", `set -m; stty -g >$HOME/before
		banger vm exec -t --keep web sh -c 'stty -echo; echo begun; trap "stty size" WINCH; while :; do read line; echo "got <$line>"; done'
		stty $(cat $HOME/before); echo stopped; read line; fg; echo "left $?"`)
	s.wait(t, "begun\r\n")
	if err := unix.Kill(onlyChild(t, cmd), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.wait(t, "stopped\r\n")
	pty.Setsize(tty, &pty.Winsize{Rows: 50, Cols: 132}) // it is not told of that while it is in the background
	tty.WriteString("go\n")
	waitFor(t, func() bool { return single(t, tty) })
	s.wait(t, "50 132\r\n")
	tty.WriteString("hello\r")
	s.wait(t, "got <hello>\r\n")
	if strings.Contains(strings.ReplaceAll(s.String(), "got <hello>", ""), "hello") {
		t.Errorf("this side echoes what is typed: %q", s.String())
	}
	tty.WriteString("\x10\x11")
	s.wait(t, "banger: detached; 'banger vm attach web 01a0b1c2d3e4' attaches again\r\n")
	s.wait(t, "left 0\r\n")
	wantExit(t, cmd, 0)
}

// onlyChild is the one process that a shell has begun.
func onlyChild(t *testing.T, shell *exec.Cmd) int {
	t.Helper()
	pid := strconv.Itoa(shell.Process.Pid)
	b, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatalf("the shell has not one child: %q", b)
	}
	return child
}

// reads says that a process waits in a read of its standard input.
func reads(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/syscall")
	if err != nil || len(threads) == 0 {
		t.Fatalf("process %d has no threads: %v", pid, err)
	}
	for _, thread := range threads {
		b, _ := os.ReadFile(thread) //nolint:gosec // a thread may have ended
		if strings.HasPrefix(string(b), strconv.Itoa(unix.SYS_READ)+" 0x0 ") {
			return true
		}
	}
	return false
}

// single says that a terminal gives its keys one by one.
func single(t *testing.T, tty *os.File) bool { return termios(t, tty).Lflag&unix.ICANON == 0 }

func termios(t *testing.T, tty *os.File) *unix.Termios {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state
}
