package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRemembered: whatever is done to a file is seen at the next read, and a file that rests is not read again.
func TestRemembered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	r := &remembered{file: file}
	want := func(content string) {
		t.Helper()
		if got, err := r.read(); got != content || err != nil {
			t.Errorf("read %q, %v; want %q", got, err, content)
		}
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want("")
	for _, content := range []string{"one", "two", "six", ""} { // of one size, and within one tick
		write(content)
		want(content)
	}
	write("old")
	r.was.Ctim, r.known = unix.Timespec{}, false
	r.content = "what was read before"
	want("old")
	if r.known {
		t.Error("a file that was just written is remembered")
	}
	rests := &remembered{file: "/bin/sh"}
	if _, err := rests.read(); err != nil || !rests.known {
		t.Fatalf("a file that rests is not remembered: %v", err)
	}
	rests.content = "mark"
	if got, err := rests.read(); got != "mark" || err != nil {
		t.Error("it is read again")
	}
	rests.was.Ctim = unix.NsecToTimespec(time.Now().UnixNano())
	if got, err := rests.read(); got == "mark" || err != nil {
		t.Errorf("what has changed is not read again: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	want("")
}
