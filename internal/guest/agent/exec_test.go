package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

func TestExecExit(t *testing.T) {
	_, socket := serveAgent(t)
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	garbage := file("garbage", "\x00\x01 no program", 0o755)
	plain := file("plain", "text", 0o644)
	orphaned := file("orphaned", "#!/no/such/interpreter\n", 0o755)
	for _, c := range []struct {
		name   string
		req    guest.ExecRequest
		code   int
		signal string
		reason string // part of it
	}{
		{"success", sh("exit 0"), 0, "", ""},
		{"status", sh("exit 42"), 42, "", ""},
		{"status 255", sh("exit 255"), 255, "", ""},
		{"killed", sh("kill -KILL $$"), 137, "SIGKILL", ""},
		{"terminated", sh("kill -TERM $$"), 143, "SIGTERM", ""},
		{"not found", guest.ExecRequest{Argv: []string{"no-such-command"}}, 127, "", "not found"},
		{"path not found", guest.ExecRequest{Argv: []string{"/no/such"}}, 127, "", "not found"},
		{"interpreter not found", guest.ExecRequest{Argv: []string{orphaned}}, 127, "", "interpreter"},
		{"not executable", guest.ExecRequest{Argv: []string{plain}}, 126, "", "not executable"},
		{"not executable in PATH", guest.ExecRequest{Argv: []string{"plain"}, Env: []string{"PATH=" + dir}}, 126, "", "not executable"},
		{"directory", guest.ExecRequest{Argv: []string{"/etc"}}, 126, "", "is a directory"},
		{"format", guest.ExecRequest{Argv: []string{garbage}}, 126, "", "exec format error"},
		{"bad directory", guest.ExecRequest{Argv: []string{"true"}, Dir: "/no/such"}, 126, "", "no such file"},
		{"file as directory", guest.ExecRequest{Argv: []string{"true"}, Dir: plain}, 126, "", "not a directory"},
		{"unknown user", guest.ExecRequest{Argv: []string{"true"}, User: "nobody-of-that-name"}, 126, "", "no user"},
		{"unknown group", guest.ExecRequest{Argv: []string{"true"}, User: "root:no-such-group"}, 126, "", "no group"},
		{"empty name", guest.ExecRequest{Argv: []string{""}}, 126, "", "no command"},
		{"NUL in argument", guest.ExecRequest{Argv: []string{"true", "a\x00b"}}, 126, "", "invalid argument"},
		{"search path", guest.ExecRequest{Argv: []string{"true"}, Env: []string{"PATH=/nowhere"}}, 127, "", "/nowhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, socket, c.req)
			if r.exit.Code != c.code || r.exit.Signal != c.signal || !strings.Contains(r.exit.Reason, c.reason) || (r.exit.Reason == "") != (c.reason == "") {
				t.Errorf("got %+v, want code %d, signal %q, reason with %q", r.exit, c.code, c.signal, c.reason)
			}
			if r.started != (c.reason == "") {
				t.Errorf("started: %v", r.started)
			}
		})
	}
}

func TestExecStreamsApart(t *testing.T) {
	_, socket := serveAgent(t)
	r := run(t, socket, sh("echo out; echo err >&2; pwd; readlink /proc/self/fd/0"))
	if r.stdout.String() != "out\n/\n/dev/null\n" || r.stderr.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", r.stdout.String(), r.stderr.String())
	}
}

func TestExecEnvironment(t *testing.T) {
	s, socket := serveAgent(t)
	s.conf.Store(&guest.Configure{ID: "x", Env: []string{"FROM=image", "BOTH=image"}})
	req := sh(`echo "$FROM $BOTH $MINE $USER $LOGNAME ${TERM:-none}"`)
	req.Env = []string{"BOTH=request", "MINE=a b"}
	if got := run(t, socket, req).stdout.String(); got != "image request a b root root none\n" {
		t.Errorf("got %q", got)
	}
}

func TestExecStdin(t *testing.T) {
	_, socket := serveAgent(t)
	e := dialExec(t, socket, guest.ExecRequest{Argv: []string{"cat"}, Dir: "/", Stdin: true})
	want := make([]byte, 3<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	go func() {
		_ = e.out.Write(guest.FrameStdin, want)
		_ = e.out.Write(guest.FrameStdinClose, nil)
	}()
	if r := e.wait(t); r.exit.Code != 0 || !bytes.Equal(r.stdout.Bytes(), want) {
		t.Errorf("exit %+v, %d bytes came back of %d", r.exit, r.stdout.Len(), len(want))
	}
}

// A hundred megabytes, to a reader that stops for a while in the middle, arrive whole.
func TestExecOutputIntact(t *testing.T) {
	_, socket := serveAgent(t)
	const size = 100 << 20
	e := dialExec(t, socket, guest.ExecRequest{Argv: []string{"sh", "-c", "yes 0123456789abcdef | head -c " + strconv.Itoa(size)}, Dir: "/"})
	sum, n := sha256.New(), 0
	var exit bool
	for !exit {
		kind, b, err := e.in.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch kind {
		case guest.FrameStdout:
			if n < size/2 && n+len(b) >= size/2 {
				<-time.After(2 * outputGrace)
			}
			n += len(b)
			sum.Write(b)
		case guest.FrameExit:
			exit = true
		}
	}
	want := sha256.Sum256(bytes.Repeat([]byte("0123456789abcdef\n"), size/17+1)[:size])
	if n != size || !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Errorf("%d bytes of %d, sum %x", n, size, sum.Sum(nil))
	}
}

// The last pipe full, written just before the end, survives a client that reads late and a child that holds the pipe.
func TestExecOutputAfterExit(t *testing.T) {
	_, socket := serveAgent(t)
	e := dialExec(t, socket, guest.ExecRequest{Argv: []string{"sh", "-c", "sleep 100 & echo $! >&2; head -c 60000 /dev/zero; exit 3"}, Dir: "/"})
	<-time.After(2 * outputGrace)
	begun := time.Now()
	r := e.wait(t)
	if r.stdout.Len() != 60000 || r.exit.Code != 3 {
		t.Errorf("%d bytes of 60000, exit %+v", r.stdout.Len(), r.exit)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the background child held the exec for %v", took)
	}
	endProcess(t, r.stderr.String())
}

// A child that writes for ever does not hold the exec either.
func TestExecNoisyBackgroundChild(t *testing.T) {
	_, socket := serveAgent(t)
	r := run(t, socket, sh("yes >&1 & echo $! >&2; exit 0"))
	if r.exit.Code != 0 {
		t.Errorf("exit %+v", r.exit)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(r.stderr.String()))
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Kill(pid, unix.SIGKILL) // most likely gone by SIGPIPE
}

func TestExecSignal(t *testing.T) {
	_, socket := serveAgent(t)
	for _, name := range []string{"SIGINT", "INT", "2"} {
		e := dialExec(t, socket, guest.ExecRequest{Argv: []string{"sh", "-c", "sleep 100 & trap 'kill $!; echo caught; exit 9' INT; echo ready; wait"}, Dir: "/"})
		e.readUntil(t, "ready")
		if err := e.out.Write(guest.FrameSignal, []byte(name)); err != nil {
			t.Fatal(err)
		}
		if r := e.wait(t); r.exit.Code != 9 || r.stdout.String() != "caught\n" {
			t.Errorf("%s: exit %+v, stdout %q", name, r.exit, r.stdout.String())
		}
	}
}

func TestExecTerminal(t *testing.T) {
	_, socket := serveAgent(t)
	e := dialExec(t, socket, guest.ExecRequest{
		Argv: []string{"sh", "-c", "stty size; echo $TERM; tty; trap 'stty size; echo changed' WINCH; while :; do read line; echo got:$line; done"},
		Dir:  "/", TTY: true, Rows: 33, Cols: 77,
	})
	first := e.readUntil(t, "/dev/pts/")
	if !strings.Contains(first, "33 77") || !strings.Contains(first, "xterm") {
		t.Errorf("first output %q", first)
	}
	if err := e.out.Write(guest.FrameStdin, []byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	e.readUntil(t, "got:hello")
	e.resize(t, 40, 100)
	if err := e.out.Write(guest.FrameStdin, []byte("more\n")); err != nil {
		t.Fatal(err)
	}
	if got := e.readUntil(t, "changed"); !strings.Contains(got, "40 100") {
		t.Errorf("after the resize: %q", got)
	}
	if err := e.out.Write(guest.FrameStdin, []byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	if r := e.wait(t); r.exit.Signal != "SIGINT" || r.exit.Code != 130 {
		t.Errorf("after Ctrl-C: %+v", r.exit)
	}
}

func TestExecHangup(t *testing.T) {
	s, socket := serveAgent(t)
	s.hangupGrace = 500 * time.Millisecond
	for _, c := range []struct {
		name, script string
		tty          bool
	}{
		{"group", "sleep 100 & echo pids $$ $! end; wait", false},
		{"terminal", "sleep 100 & echo pids $$ $! end; wait", true},
		{"ignored", "trap '' HUP; sleep 100 & echo pids $$ $! end; wait", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := dialExec(t, socket, guest.ExecRequest{Argv: []string{"sh", "-c", c.script}, Dir: "/", TTY: c.tty})
			f := strings.Fields(e.readUntil(t, "end"))
			_ = e.Close()
			for _, text := range f[1:3] {
				awaitGone(t, text, 5*time.Second)
			}
		})
	}
}

// A client that goes away behind input nobody reads is noticed all the same.
func TestExecHangupBehindInput(t *testing.T) {
	t.Parallel()
	s, socket := serveAgent(t)
	s.stuckInput = 200 * time.Millisecond
	e := dialExec(t, socket, guest.ExecRequest{Argv: []string{"sh", "-c", "echo pids $$ end; exec sleep 100"}, Dir: "/", Stdin: true})
	f := strings.Fields(e.readUntil(t, "end"))
	_ = e.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	if err := e.out.Write(guest.FrameStdin, make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("64 MiB went to a command that does not read: %v", err)
	}
	_ = e.Close()
	awaitGone(t, f[1], 5*time.Second)
}

func TestExecParallel(t *testing.T) {
	_, socket := serveAgent(t)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 4 {
				want := fmt.Sprint(i, j)
				if r := run(t, socket, sh("echo "+want+"; exit "+strconv.Itoa(i))); r.exit.Code != i || r.stdout.String() != want+"\n" {
					t.Errorf("%s: exit %+v, stdout %q", want, r.exit, r.stdout.String())
				}
			}
		})
	}
	wg.Wait()
}

// Nothing of an exec stays open in the agent.
func TestExecLeaksNothing(t *testing.T) {
	_, socket := serveAgent(t)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	one := func() {
		req := sh("true")
		req.Stdin = true
		run(t, socket, req)
		run(t, socket, guest.ExecRequest{Argv: []string{"true"}, TTY: true})
		run(t, socket, guest.ExecRequest{Argv: []string{"no-such-command"}})
	}
	one()
	before := count()
	for range 5 {
		one()
	}
	deadline := time.After(5 * time.Second)
	for count() > before {
		select {
		case <-deadline:
			t.Fatalf("%d descriptors before, %d after", before, count())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func endProcess(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(n, unix.SIGKILL); err != nil {
		t.Errorf("the background child is gone: %v", err)
	}
}

// awaitGone waits on a pidfd until the process has ended.
func awaitGone(t *testing.T, text string, within time.Duration) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(within); ; {
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 {
			t.Errorf("process %d lives on after %v", pid, within)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return
	}
}
