package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const limit = 1000

// run bounds path until the test's end and returns where its error will come.
func run(t *testing.T, path string) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		ended <- Bound(ctx, path, limit)
	}()
	t.Cleanup(func() { cancel(); <-over }) // what is unmounted next must not be open
	return ended
}

// writer is another process's descriptor.
func writer(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func writeLines(t *testing.T, f *os.File, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := fmt.Fprintf(f, "line %04d\n", i); err != nil { // 10 bytes
			t.Fatal(err)
		}
	}
}

// awaitCut waits for old to change, woken by the directory's events.
func awaitCut(t *testing.T, path string, accept func(old []byte) bool) []byte {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer func() { _ = events.Close() }()
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MOVED_TO|unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	if err := events.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		old, _ := os.ReadFile(Old(path))
		info, err := os.Stat(path)
		if accept(old) && err == nil && info.Size() <= limit {
			return old
		}
		if _, err := events.Read(make([]byte, 4096)); err != nil {
			t.Fatalf("no cut: %v; old is %q", err, old)
		}
	}
}

func TestBoundKeepsTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	f := writer(t, path)
	writeLines(t, f, 0, 150) // too large before it begins
	run(t, path)
	old := awaitCut(t, path, func(b []byte) bool { return bytes.HasSuffix(b, []byte("line 0149\n")) })
	if len(old) > limit/2 || !bytes.HasPrefix(old, []byte("line ")) {
		t.Errorf("kept %d bytes: %q", len(old), old)
	}
	writeLines(t, f, 150, 160) // not too large: stays, at the new beginning
	if b, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(b, []byte("line 0150\n")) || len(b) != 100 {
		t.Errorf("the writer went on with %q, %v", b, err)
	}
	writeLines(t, f, 160, 260)
	awaitCut(t, path, func(b []byte) bool { return bytes.Contains(b, []byte("line 02")) })
}

func TestBoundFollowsWhatComesLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	run(t, path)
	f := writer(t, path)
	writeLines(t, f, 0, 101)
	awaitCut(t, path, func(b []byte) bool { return bytes.HasSuffix(b, []byte("line 0100\n")) })

	if err := os.Rename(path, path+".moved"); err != nil { // replaced by somebody
		t.Fatal(err)
	}
	writeLines(t, writer(t, path), 1000, 1101)
	awaitCut(t, path, func(b []byte) bool { return bytes.HasSuffix(b, []byte("line 1100\n")) })
	writeLines(t, f, 101, 301) // the moved one is no business of ours
	if info, err := os.Stat(path + ".moved"); err != nil || info.Size() < 2000 {
		t.Errorf("the moved log was cut: %v, %v", info, err)
	}
}

func TestBoundEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "log")
	writer(t, path)
	ended := make(chan error, 1)
	go func() { ended <- Bound(ctx, path, limit) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ends with %v", err)
	}
	if n := runtime.NumGoroutine(); n > before+1 { // the one above may not be quite gone
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

func TestBoundRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := Bound(t.Context(), filepath.Join(dir, "missing", "log"), limit); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing directory: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	if err := Bound(t.Context(), link, limit); !errors.Is(err, unix.ELOOP) {
		t.Errorf("symbolic link: %v", err)
	}
}

func TestKeepWholeLines(t *testing.T) {
	for in, want := range map[string]string{
		"e 1\nline 2\n": "line 2\n", "no end": "no end", "one\n": "one\n", "": "", "\nx": "x",
	} {
		if got := string(afterLineEnd([]byte(in))); got != want {
			t.Errorf("of %q keeps %q, want %q", in, got, want)
		}
	}
}
