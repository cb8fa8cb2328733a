package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWaitingForAStartIsShown: commands that wait for a VM that starts show how it does.
func TestWaitingForAStartIsShown(t *testing.T) {
	t.Parallel()
	_, env := sandbox(t)
	piped(t, env, "banger: image", "vm", "run", "--image", "slow", "--name", "slow", "--", "true")
	for _, args := range [][]string{
		{"vm", "exec", "slow", "true"}, {"vm", "cp", "slow:/etc", "."}, {"vm", "cp", ".", "slow:/etc"}, {"vm", "proxy", "slow"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			cmd, _, s := onTerminal(t, env, args...)
			s.wait(t, " boot ")                // the stage that is under way
			cmd.Process.Signal(syscall.SIGINT) // not a typed Ctrl-C: with that the kernel may drop what is written next
			wantExit(t, cmd, 130)
			// The last of it may be read after the end. The live line is gone from the screen.
			s.waitFor(t, "\r\x1b[K at its end", func(text string) bool { return strings.HasSuffix(text, "\r\x1b[K") })
		})
	}
}

// A signal often comes twice: to this process and to its group, or from the terminal and from a parent that passes it on.
// Interrupted like that, a run removes its VM all the same.
func TestASignalThatComesTwiceIsOne(t *testing.T) {
	t.Parallel()
	_, env := sandbox(t)
	cmd, _ := piped(t, env, "boot", "vm", "run", "--image", "slow", "--name", "slow", "--", "true")
	check(t, cmd.Process.Signal(syscall.SIGINT))
	check(t, cmd.Process.Signal(syscall.SIGTERM)) // of another kind, so that the kernel keeps both
	wantExit(t, cmd, 130)
	if left := mustRun(t, env, "vm", "list", "-q"); left != "" {
		t.Errorf("%q is left", left)
	}
}

func TestACopyIsShown(t *testing.T) {
	t.Parallel()
	root, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	// The stream stops after the file's bytes (a header of 512 before them) until a line is typed.
	stream := "cd " + root + " && head -c 3145728 /dev/zero > big && tar cf t big && " +
		"(head -c 3146240 t; read line < /dev/tty; tail -c +3146241 t) | "
	for _, flag := range []string{"", "-q "} {
		t.Run("flags "+flag, func(t *testing.T) {
			cmd, tty, s := onTerminalRun(t, env, "sh", "-c", stream+"banger vm cp "+flag+"- web:/etc; echo all of it")
			if flag == "" {
				s.wait(t, " copy ")
				s.wait(t, "  3M")
			}
			tty.WriteString("\n")
			s.wait(t, "all of it")
			wantExit(t, cmd, 0)
			if shown := strings.Contains(s.String(), " copy "); shown != (flag == "") {
				t.Errorf("with flags %q the terminal shows %q", flag, s.String())
			}
		})
	}
	if got := mustRun(t, env, "vm", "exec", "web", "--", "wc", "-c", "etc/big"); got != "3145728 etc/big\n" {
		t.Errorf("the copy has %q", got)
	}
}

// TestNoColor: NO_COLOR set to anything means no colours; the line is drawn all the same.
func TestNoColor(t *testing.T) {
	t.Parallel()
	for value, colored := range map[string]bool{"": true, "1": false, "0": false} {
		t.Run("NO_COLOR="+value, func(t *testing.T) {
			_, env := sandbox(t)
			cmd, _, s := onTerminal(t, append(env, "NO_COLOR="+value), "vm", "run", "--image", "slow", "--name", "slow", "--", "true")
			s.wait(t, " boot ")
			cmd.Process.Signal(syscall.SIGINT)
			wantExit(t, cmd, 130)
			if strings.Contains(s.String(), "\x1b[36m") != colored || strings.Contains(s.String(), "\x1b[32m") != colored {
				t.Errorf("coloured is to be %v: %q", colored, s.String())
			}
		})
	}
}

func TestLogsFollow(t *testing.T) {
	root, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, s := piped(t, env, "two\nthree\n", "vm", "logs", "-f", "-n", "2", "web")
	logs, err := filepath.Glob(filepath.Join(root, "vms", "*", "console.log"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("console logs: %v, %v", logs, err)
	}
	f, err := os.OpenFile(logs[0], os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	defer f.Close()
	for _, line := range []string{"four\n", "five\n"} {
		_, err = f.WriteString(line)
		check(t, err)
		s.wait(t, line)
	}
	cmd.Process.Signal(syscall.SIGINT)
	wantExit(t, cmd, 130)
	if got := s.String(); got != "two\nthree\nfour\nfive\n" {
		t.Errorf("printed %q", got)
	}
}

// A proxy that is joined to a guest ends when it is told to, whatever the guest does.
func TestAProxyHeedsSignals(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd := exec.Command("banger", "vm", "proxy", "web")
	cmd.Env = env
	in, err := cmd.StdinPipe() // stays open
	check(t, err)
	s := &screen{more: make(chan struct{}, 1)}
	cmd.Stdout = s
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	_, err = in.Write([]byte("hello\n"))
	check(t, err)
	s.wait(t, "ello") // it is joined
	check(t, cmd.Process.Signal(syscall.SIGINT))
	wantExit(t, cmd, 130)
}

// idleCopy is a copy of a stream of which nothing comes and that does not end. Its request is under way.
func idleCopy(t *testing.T, env []string, flag, dst string) (*exec.Cmd, *screen) {
	t.Helper()
	cmd := exec.Command("banger", "-v", "vm", "cp", flag, "-", dst)
	cmd.Env = env
	_, err := cmd.StdinPipe() // stays open
	check(t, err)
	s := &screen{more: make(chan struct{}, 1)}
	cmd.Stderr = s
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	s.wait(t, "> PUT ")
	return cmd, s
}

// A copy whose input says nothing ends when it is told to.
func TestACopyWithAnIdleInputHeedsSignals(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	for _, c := range []struct {
		sig  syscall.Signal
		flag string
		want int
	}{{syscall.SIGINT, "-q", 130}, {syscall.SIGTERM, "-q", 143}, {syscall.SIGINT, "-a", 130}} {
		cmd, _ := idleCopy(t, env, c.flag, "web:/etc")
		check(t, cmd.Process.Signal(c.sig))
		wantExit(t, cmd, c.want)
	}
}

// A copy whose input says nothing ends with the daemon that it went to.
func TestACopyWithAnIdleInputEndsWithTheDaemon(t *testing.T) {
	for _, flag := range []string{"-q", "-a"} {
		_, env := sandbox(t)
		mustRun(t, env, "vm", "run", "-d", "--name", "web")
		mustRun(t, env, "vm", "exec", "web", "--", "mkdir", "daemon-dies")
		cmd, s := idleCopy(t, env, flag, "web:/daemon-dies")
		wantExit(t, cmd, 125)
		if text := s.String(); !strings.Contains(text, "the daemon went away while copying to web:/daemon-dies; VMs keep running: the connection ended") {
			t.Errorf("it says %q", text)
		}
	}
}

// Nobody types a tar stream.
func TestACopyOfATerminalIsRefused(t *testing.T) {
	root, env := sandbox(t)
	cmd, _, s := onTerminal(t, env, "vm", "cp", "-", "web:/srv")
	s.wait(t, "standard input is a terminal")
	wantExit(t, cmd, 125)
	if made, err := os.ReadDir(root); err != nil || len(made) > 0 {
		t.Errorf("a daemon was started for it: %v, %v", made, err)
	}
}
