package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

// On a full disk a log must not grow for ever: it is what fills the disk.
func TestBoundOnAFullDisk(t *testing.T) {
	testhost.Need(t, testhost.Root)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "console.log")
	f := writer(t, path)
	fill := func(f *os.File) {
		t.Helper()
		var err error
		for err == nil {
			_, err = f.WriteString("the console of a guest\n")
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	filler := writer(t, filepath.Join(dir, "filler"))
	writeLines(t, f, 0, 2*limit/10)
	fill(filler)
	ended := run(t, path)
	empty := func() {
		t.Helper()
		for end := time.After(5 * time.Second); ; {
			if fi, err := os.Stat(path); err == nil && fi.Size() == 0 {
				return
			}
			select {
			case err := <-ended:
				t.Fatalf("the bound ended: %v", err)
			case <-end:
				t.Fatal("the log was not cut")
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	empty() // its end cannot be kept
	fill(f)
	empty() // and again
	if err := filler.Truncate(0); err != nil {
		t.Fatal(err)
	}
	writeLines(t, f, 0, 2*limit/10)
	awaitCut(t, path, func(b []byte) bool { return bytes.HasSuffix(b, []byte("line 0199\n")) })
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// inotifies counts this process's instances.
func inotifies(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.Contains(to, "inotify") {
			n++
		}
	}
	return n
}

// A user has 128 instances, and a VM two logs.
func TestAllShareOneInstance(t *testing.T) {
	before := inotifies(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var ends []<-chan error
	const n = 20
	for i := range n {
		path := filepath.Join(dir, string(rune('a'+i)))
		f := writer(t, path)
		writeLines(t, f, 0, 200)
		bounded := make(chan error, 1)
		go func() { bounded <- Bound(ctx, path, limit) }()
		awaitCut(t, path, func(b []byte) bool { return bytes.HasSuffix(b, []byte("line 0199\n")) })

		r, w := io.Pipe()
		followed := make(chan error, 1)
		go func() { followed <- Read(ctx, path, ReadOptions{Follow: true}, w) }()
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != nil { // it has begun
			t.Fatalf("%d, %v", n, err)
		}
		writeLines(t, f, 200, 201)
		if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "line 0200\n" {
			t.Fatalf("follows with %q, %v", line, err)
		}
		ends = append(ends, bounded, followed)
	}
	if got := inotifies(t); got != before+1 {
		t.Errorf("%d inotify instances for %d logs, want 1", got-before, n)
	}
	cancel()
	for _, e := range ends {
		select {
		case <-e:
		case <-time.After(5 * time.Second):
			t.Fatal("one does not end")
		}
	}
	if got := inotifies(t); got != before {
		t.Errorf("%d inotify instances are left", got-before)
	}
}

func TestFollowEndsWithTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "console.log")
	writeLines(t, writer(t, path), 0, 1)
	other := run(t, filepath.Join(t.TempDir(), "log")) // of another VM: goes on
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Read(t.Context(), path, ReadOptions{Tail: -1, Follow: true}, w); w.Close() }()
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "line 0000\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the log is followed after it went")
	}
	select {
	case err := <-other:
		t.Errorf("another one ended too: %v", err)
	default:
	}
}

func TestFollowAwaitsTheDirectory(t *testing.T) {
	vms := t.TempDir()
	dir := filepath.Join(vms, "vm")
	path := filepath.Join(dir, "console.log")
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Read(t.Context(), path, ReadOptions{Tail: 0, Follow: true}, w); w.Close() }()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != nil { // tells that it has begun
		t.Fatalf("%d, %v", n, err)
	}
	if err := os.Mkdir(filepath.Join(vms, "another"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := writer(t, path)
	lines := bufio.NewReader(r)
	for i := range 3 {
		writeLines(t, f, i, i+1)
		if line, err := lines.ReadString('\n'); err != nil || line != []string{"line 0000\n", "line 0001\n", "line 0002\n"}[i] {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Where nothing can be watched that is said before anything is written.
func TestFollowRefusesBeforeItBegins(t *testing.T) {
	var b writes
	path := filepath.Join(t.TempDir(), "absent", "vm", "console.log")
	if err := Read(t.Context(), path, ReadOptions{Follow: true}, &b); !errors.Is(err, unix.ENOENT) || b != 0 {
		t.Errorf("%v after %d writes", err, b)
	}
}

type writes int

func (w *writes) Write(p []byte) (int, error) { *w++; return len(p), nil }
