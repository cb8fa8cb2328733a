package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestArgs(t *testing.T) {
	want := []string{"tail", "-f", "/dev/null", "with space", ""}
	pid := start(t, want...).Process.Pid
	got, err := Args(pid)
	// On Linux 6.12 an exec closes what it has to, which is what Start waits for, while the arguments are still this program's.
	for end := time.Now().Add(time.Minute); slices.Equal(got, os.Args) && time.Now().Before(end); got, err = Args(pid) {
		time.Sleep(time.Millisecond)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("arguments are %q, %v; want %q", got, err, want)
	}
	if got, err := Args(os.Getpid()); err != nil || !slices.Equal(got, os.Args) {
		t.Errorf("own arguments are %q, %v", got, err)
	}
	if _, err := Args(1 << 30); !errors.Is(err, ErrGone) {
		t.Errorf("of no process: %v", err)
	}
}

// In the middle of an exec a process has no command line: it is not to be taken for gone.
func TestArgsDuringExec(t *testing.T) {
	for i := range 300 {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil { // returns while the kernel still makes the new process
			t.Fatal(err)
		}
		got, err := Args(cmd.Process.Pid)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err != nil || !slices.Equal(got, []string{"sleep", "60"}) {
			t.Fatalf("exec %d: arguments are %q, %v", i, got, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for in, want := range map[string]struct {
		state byte
		start uint64
		ok    bool
	}{
		"12 (qemu) S" + rest:       {'S', 4242, true},
		"12 (a b) c) R" + rest:     {'R', 4242, true},
		"12 (x) Z 1 2 3) S" + rest: {'S', 4242, true},
		"12 (\n) S" + rest + "\n":  {'S', 4242, true},
		"12 (qemu) S 1 2 3":        {},
		"12 qemu S" + rest:         {},
		"12 (qemu)":                {},
		"":                         {},
		"1 (q) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -1 20": {},
	} {
		got, err := parseStat([]byte(in))
		state, start := got.state, got.start
		if (err == nil) != want.ok || want.ok && (state != want.state || start != want.start) {
			t.Errorf("%q: %q, %d, %v", in, state, start, err)
		}
	}
}

// Whatever a process is called, and whatever a file has in it.
func FuzzParseStat(f *testing.F) {
	f.Add("qemu", uint64(4242), []byte("12 (qemu) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"))
	f.Add("a) b) c (d", uint64(1<<63), []byte("12 (a) b) c (d"))
	f.Add(") Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1", uint64(0), []byte(")"))
	f.Fuzz(func(t *testing.T, name string, start uint64, raw []byte) {
		_, _ = parseStat(raw)
		stat := fmt.Sprintf("12 (%s) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %d 20 21\n", name, start)
		if got, err := parseStat([]byte(stat)); err != nil || got.state != 'S' || got.start != start {
			t.Errorf("%q: %q, %d, %v", stat, got.state, got.start, err)
		}
	})
}

// Long command lines come whole: a page and more, and the edges of the buffer.
func TestReadIsWhole(t *testing.T) {
	for _, n := range []int{0, 1023, 1024, 1025, 4096, 100_000} {
		path := filepath.Join(t.TempDir(), "f")
		want := bytes.Repeat([]byte("x"), n)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := read(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
	if _, err := read("/proc/0/stat"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
}
