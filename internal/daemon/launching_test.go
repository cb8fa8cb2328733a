package daemon

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestLaunching: a process that looks like a daemon without a lock is one that is being launched, until its exec.
func TestLaunching(t *testing.T) {
	dir := t.TempDir()
	lock, err := os.Create(filepath.Join(dir, "bangerd.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	script := "read x; exec sleep 600 # " + dir // no other test's
	own := []string{"/usr/bin/bangerd", "-c", script}
	begin := func(session bool, files ...*os.File) io.Writer {
		t.Helper()
		cmd := &exec.Cmd{Path: "/bin/sh", Args: []string{"bangerd", "-c", script}, ExtraFiles: files, SysProcAttr: &syscall.SysProcAttr{Setsid: session}}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		return in
	}
	begin(true, lock) // a daemon
	begin(false)      // a command of somebody's
	if launching(own, lock.Name()) {
		t.Error("a daemon that holds its lock, or what has no session of its own, is taken for a launch")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if launching(own, lock.Name()) {
		t.Error("a daemon whose directory somebody removed is taken for a launch")
	}
	in := begin(true)
	until := func(want bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); launching(own, lock.Name()) != want; <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("launching: %v", !want)
			}
		}
	}
	until(true)
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	until(false)
}
