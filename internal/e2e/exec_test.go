package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

func TestInOneVM(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("web")
	in := func(args ...string) []string { return append([]string{"vm", "exec", "web", "--"}, args...) }

	t.Run("exec", func(t *testing.T) {
		b := b.with(t)
		if got := b.ok(in("uname", "-r")...); !strings.HasPrefix(got, "6.12") {
			t.Errorf("kernel %q", got)
		}
		if got := b.ok("vm", "exec", "-e", "A=x y", "-w", "/usr", "web", "sh", "-c", `echo "$A|$PWD|$HOME"`); got != "x y|/usr|/root\n" {
			t.Errorf("environment and directory: %q", got)
		}
		if got := b.ok("vm", "exec", "-u", "nobody", "web", "--", "id", "-un"); got != "nobody\n" {
			t.Errorf("user: %q", got)
		}
		b.fails(127, "no-such", in("no-such")...)
		b.fails(126, "/etc/passwd", in("/etc/passwd")...)
		b.fails(126, "/nowhere", "vm", "exec", "-w", "/nowhere", "web", "--", "true")
		b.fails(126, "nobody-else", "vm", "exec", "-u", "nobody-else", "web", "--", "true")
		b.fails(137, "", in("sh", "-c", "kill -9 $$")...)
		b.fails(3, "", in("sh", "-c", "exit 3")...)
		b.fails(125, "no VM named", "vm", "exec", "nope", "--", "true")
		if out, _, _ := b.run(strings.NewReader("unread"), in("cat")...); out != "" {
			t.Errorf("exec without -i read its input: %q", out)
		}
	})
	t.Run("much output, and binary input", func(t *testing.T) {
		b := b.with(t)
		size := 100_000_000
		if testhost.Alone() { // a guest within a guest, all of it emulated, brings some 300 kB/s
			size = 8_000_000
		}
		got, errs, code := b.run(nil, in("sh", "-c", fmt.Sprintf("seq 20000000 | head -c %d", size))...)
		if sha256.Sum256([]byte(got)) != sha256.Sum256(numbers(size)) || code != 0 {
			t.Errorf("%d bytes, or others than were written; stderr %q, exit code %d", len(got), errs, code)
		}
		data := make([]byte, size/5)
		_, _ = rand.Read(data)
		got, _, _ = b.run(bytes.NewReader(data), "vm", "exec", "-i", "web", "--", "sha256sum")
		if want := fmt.Sprintf("%x  -\n", sha256.Sum256(data)); got != want {
			t.Errorf("digest in the guest %q, want %q", got, want)
		}
	})
	t.Run("a child that stays does not hold the command", func(t *testing.T) {
		b := b.with(t)
		if got := b.ok(in("sh", "-c", "sleep 1000 & echo hi")...); got != "hi\n" {
			t.Errorf("%q", got)
		}
	})
	t.Run("twenty at once", func(t *testing.T) {
		b := b.with(t)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if out, errs, code := b.run(nil, in("echo", fmt.Sprint(i))...); out != fmt.Sprintln(i) || code != 0 {
					t.Errorf("%d: %q %q %d", i, out, errs, code)
				}
			})
		}
		wg.Wait()
	})
	t.Run("twenty at once, much each way", func(t *testing.T) { testManyStreams(t, b.with(t)) })
	t.Run("pty", func(t *testing.T) {
		b := b.with(t)
		cmd := b.command("vm", "exec", "-it", "web", "--", "sh", "-c", "stty size; trap 'echo got-int; exit 7' INT; echo ready; while :; do sleep 0.1; done")
		tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		var seen lockedBuffer
		go func() { _, _ = io.Copy(&seen, tty) }()
		seen.until(t, "33 77")
		seen.until(t, "ready")
		if _, err := tty.Write([]byte{3}); err != nil { // Ctrl-C
			t.Fatal(err)
		}
		_ = cmd.Wait()
		seen.until(t, "got-int")
		if code := cmd.ProcessState.ExitCode(); code != 7 {
			t.Errorf("exit code %d, want 7: %q", code, seen.String())
		}
	})
	t.Run("a signal reaches the command", func(t *testing.T) {
		b := b.with(t)
		cmd := b.command(in("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done")...)
		var seen lockedBuffer
		cmd.Stdout = &seen
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seen.until(t, "ready")
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 9 { // the trap's own: banger itself would end with 143
			t.Errorf("after SIGTERM: exit code %d, want 9", code)
		}
	})
	t.Run("orphans are reaped, a fork bomb is survived", func(t *testing.T) {
		b := b.with(t)
		b.ok(in("sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done; sleep 1")...)
		_, _, _ = b.run(nil, in("timeout", "-s", "KILL", "5", "sh", "-c", "f() { f | f & }; f; sleep 4")...)
		_, _, _ = b.run(nil, in("sh", "-c", "kill -9 -1")...)
		for end := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
			out, _, code := b.run(nil, in("sh", "-c", "ls -d /proc/[0-9]* | wc -l; grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")...)
			f := strings.Fields(out)
			if code == 0 && len(f) == 2 && f[1] == "0" {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("zombies are left: %q, exit code %d", out, code)
			}
		}
	})
	t.Run("modules of the kernel", func(t *testing.T) {
		b := b.with(t)
		b.ok(in("modprobe", "overlay")...)
		if got := b.ok(in("cat", "/proc/filesystems")...); !strings.Contains(got, "overlay") {
			t.Errorf("%q", got)
		}
	})
	t.Run("network", func(t *testing.T) { testNetwork(t, b.with(t), "web") })
	t.Run("disks", func(t *testing.T) {
		b := b.with(t)
		got := b.ok(in("sh", "-c", "stat -f -c '%S %b' /root; findmnt -no FSTYPE /root 2>/dev/null || grep ' /root ' /proc/mounts")...)
		if !strings.Contains(got, "ext4") {
			t.Errorf("%q", got)
		}
		if got := b.ok(in("stat", "-c", "%U:%G %a", "/usr/bin/passwd", "/tmp", "/etc/shadow")...); got != "root:root 4755\nroot:root 1777\nroot:shadow 640\n" {
			t.Errorf("ownership and modes: %q", got)
		}
	})
	t.Run("ssh", func(t *testing.T) {
		b := b.with(t)
		testhost.Need(t, testhost.SSH)
		if out, errs, code := b.run(nil, "vm", "ssh", "web", "--", "sh", "-c", "echo 'a  b'; exit 42"); out != "a  b\n" || code != 42 {
			t.Errorf("stdout %q, stderr %q, exit code %d", out, errs, code)
		}
		if out, errs, code := b.run(strings.NewReader("through ssh"), "vm", "ssh", "web", "--", "cat"); out != "through ssh" || code != 0 {
			t.Errorf("stdout %q, stderr %q, exit code %d", out, errs, code)
		}
	})
	t.Run("ssh by host name", func(t *testing.T) { testSSHConfig(t, b.with(t)) })
	t.Run("cp", func(t *testing.T) { testCopy(t, b.with(t)) })
	t.Run("copies that are cut off", func(t *testing.T) { testCutOffCopies(t, b.with(t)) })
	t.Run("large copies", func(t *testing.T) { testLargeCopies(t, b.with(t)) })
	t.Run("load", func(t *testing.T) { testLoad(t, b.with(t)) })
	t.Run("logs", func(t *testing.T) {
		b := b.with(t)
		b.ok(in("sh", "-c", "echo words-on-the-console > /dev/console")...)
		if got := b.ok("vm", "logs", "web"); !strings.Contains(got, "words-on-the-console") {
			t.Errorf("%q", got)
		}
	})
}

// numbers is what seq prints, n bytes of it: no two parts are alike, so none can be lost, doubled or moved unseen.
func numbers(n int) []byte {
	b := make([]byte, 0, n+20)
	for i := int64(1); len(b) < n; i++ {
		b = append(strconv.AppendInt(b, i, 10), '\n')
	}
	return b[:n]
}

func testCopy(t *testing.T, b *box) {
	dir := t.TempDir()
	src := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(src, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	for name, mode := range map[string]os.FileMode{"run.sh": 0o755, "sub/data": 0o640} {
		if err := os.WriteFile(filepath.Join(src, name), data, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sub/data", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	b.ok("vm", "cp", src, "web:/srv")
	if got := b.ok("vm", "exec", "web", "--", "stat", "-c", "%n %F %a %U", "/srv/tree/run.sh", "/srv/tree/sub/data", "/srv/tree/link"); got !=
		"/srv/tree/run.sh regular file 755 root\n/srv/tree/sub/data regular file 640 root\n/srv/tree/link symbolic link 777 root\n" {
		t.Errorf("in the guest: %q", got)
	}
	back := filepath.Join(dir, "back")
	b.ok("vm", "cp", "web:/srv/tree", back)
	if out, err := exec.Command("diff", "-r", "--no-dereference", src, back).CombinedOutput(); err != nil {
		t.Errorf("there and back: %v\n%s", err, out)
	}
	if got := b.ok("vm", "cp", "web:/etc/hostname", "-"); !strings.Contains(got, "web\n") || !strings.Contains(got, "ustar") {
		t.Errorf("to stdout: %q", got)
	}
	b.fails(125, "/no/such", "vm", "cp", "web:/no/such", dir)
	b.fails(125, "/no/such", "vm", "cp", src, "web:/no/such/dir/")
}

// lockedBuffer collects output while a test looks for words in it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) until(t *testing.T, words string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !strings.Contains(l.String(), words); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q in %q", words, l.String())
		}
	}
}
