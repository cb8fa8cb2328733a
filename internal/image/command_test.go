package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

func TestCommandFailureCanBePasted(t *testing.T) {
	var seen []string
	c := command{
		args: []string{"sh", "-c", `i=0; while [ $i -lt 40 ]; do echo "line $i" >&2; i=$((i+1)); done; printf 'no newline' >&2; exit 7`},
		env:  []string{"WHY=it's so"}, line: func(s string) { seen = append(seen, s) },
	}
	err := c.run(t.Context())
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Fatalf("error %v", err)
	}
	head, tail, _ := strings.Cut(err.Error(), "\n")
	if want := `run 'WHY=it'\''s so' sh -c '`; !strings.HasPrefix(head, want) {
		t.Errorf("error begins %q, want %q", head, want)
	}
	if !strings.HasSuffix(tail, "line 39\nno newline") || strings.Count(tail, "\n") != keepLines-1 {
		t.Errorf("last lines %q", tail)
	}
	if len(seen) != 41 {
		t.Errorf("%d lines handed on, want 41", len(seen))
	}
}

func TestCommandTellsAFullDisk(t *testing.T) {
	err := command{args: []string{"sh", "-c", "echo 'tar: f: Cannot write: No space left on device' >&2; exit 2"}}.run(t.Context())
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v is not ENOSPC", err)
	}
}

func TestCancelledCommandTakesItsChildrenAlong(t *testing.T) {
	testhost.Leaks(t, "sleep 987654")
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	err := command{args: []string{"sh", "-c", "sleep 987654 & echo up >&2; wait"}, line: func(string) { cancel() }}.run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
	if d := time.Since(start); d > killDelay/2 {
		t.Errorf("took %s", d)
	}
}

// On a busy host whoever reads a command's output may lag behind its end: that is no failure of the command.
func TestSlowReaderIsWaitedFor(t *testing.T) {
	testhost.Need(t, testhost.Real) // longer than a cancelled command is given
	w := &slowWriter{pause: killDelay + time.Second}
	if err := (command{args: []string{"echo", "last words"}, stdout: w}).run(t.Context()); err != nil || w.String() != "last words\n" {
		t.Errorf("%q, %v", w.String(), err)
	}
}

type slowWriter struct {
	strings.Builder
	pause time.Duration
}

func (w *slowWriter) Write(p []byte) (int, error) {
	<-time.After(w.pause)
	return w.Builder.Write(p)
}

// What an enclosed command mounts and starts goes with it: when it is cancelled, and when the daemon is killed.
func TestEnclosedCommandLeavesNothing(t *testing.T) {
	testhost.Need(t, testhost.Root)
	const mark, dirVariable = "987655", "BANGER_TEST_ENCLOSED"
	run := func(ctx context.Context, dir string, line func(string)) error {
		script := `mount -t tmpfs enclosed "$0" && setsid sleep ` + mark + ` & sleep ` + mark + ` & echo up >&2; wait`
		return command{args: []string{"sh", "-c", script, dir}, line: line, enclosed: true}.run(ctx)
	}
	if dir := os.Getenv(dirVariable); dir != "" { // the daemon that is killed
		_ = run(t.Context(), dir, func(s string) { fmt.Println(s) })
		return
	}
	testhost.Leaks(t, "sleep "+mark)
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		if err := run(ctx, t.TempDir(), func(string) { cancel() }); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want canceled", err)
		}
		if d := time.Since(start); d > killDelay/2 {
			t.Errorf("took %s", d)
		}
	})
	t.Run("its daemon is killed", func(t *testing.T) {
		daemon := exec.Command(os.Args[0], "-test.run=^TestEnclosedCommandLeavesNothing$")
		daemon.Env = append(os.Environ(), dirVariable+"="+t.TempDir())
		out, err := daemon.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it is up
			t.Error(err)
		}
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
}

func TestLines(t *testing.T) {
	var l lines
	for _, p := range []string{"a", "b\nReading 5%\rReading 100%\r\n\n", strings.Repeat("x", 3*keepBytes), "\nend"} {
		if n, err := l.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write: %d %v", n, err)
		}
	}
	if got, want := l.text(), "ab\nReading 100%\n"+strings.Repeat("x", keepBytes)+"\nend"; got != want {
		t.Errorf("got %q", got)
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, parts := lines{}, lines{}
		_, _ = whole.Write(b)
		cut = max(0, min(cut, len(b)))
		_, _ = parts.Write(b[:cut])
		_, _ = parts.Write(b[cut:])
		if w, p := whole.text(), parts.text(); w != p {
			t.Errorf("written whole %q, in parts %q", w, p)
		}
		if len(whole.last) > keepLines {
			t.Errorf("kept %d lines", len(whole.last))
		}
	})
}

func TestQuoteIsReadBackByTheShell(t *testing.T) {
	words := []string{"mmdebstrap", "", "it's", "a b", "$HOME", "--x=`id`", "new\nline", "*", "~", "deb [a=b] http://m/ s main"}
	out, err := exec.Command("sh", "-c", `for w in `+quote(words)+`; do printf '%s\0' "$w"; done`).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, words) {
		t.Errorf("got %q, want %q", got, words)
	}
}

func TestScrub(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(dir+"/"+name[:strings.LastIndex(name, "/")], 0o755), os.WriteFile(dir+"/"+name, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for round, names := range [][]string{{}, {"etc/hostname", "etc/resolv.conf", "etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub", "etc/passwd"}} {
		for _, n := range names {
			write(n)
		}
		if out, err := exec.Command("sh", "-c", scrub, "exec", dir).CombinedOutput(); err != nil { // as mmdebstrap runs it
			t.Fatalf("round %d: %v: %s", round, err, out)
		}
	}
	var left []string
	for _, sub := range []string{"etc", "etc/ssh"} {
		for _, n := range ls(t, dir+"/"+sub) {
			st, err := os.Stat(dir + "/" + sub + "/" + n)
			if err != nil {
				t.Fatal(err)
			}
			if !st.IsDir() {
				left = append(left, fmt.Sprintf("%s/%s %d", sub, n, st.Size()))
			}
		}
	}
	if want := []string{"etc/machine-id 0", "etc/passwd 1"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}
