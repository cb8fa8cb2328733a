package daemon

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bangerd.log")
	if err := os.WriteFile(path, []byte("of the last daemon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLog(path)
	defer l.close()
	line := bytes.Repeat([]byte("x"), 64<<10)
	line[len(line)-1] = '\n'
	for i := range 4 * logMax / len(line) {
		copy(line, fmt.Sprintf("%06d", i))
		if n, err := l.Write(line); n != len(line) || err != nil {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
		for _, f := range []string{path, path + ".1"} {
			if fi, err := os.Stat(f); err == nil && (fi.Size() > logMax || fi.Mode().Perm() != 0o600) {
				t.Fatalf("%s has %d bytes, mode %v, after write %d", f, fi.Size(), fi.Mode(), i)
			}
		}
		if i == 0 {
			if b, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(b, []byte("of the last daemon\n000000")) {
				t.Errorf("begins with %.30q, %v", b, err)
			}
		}
	}
	// Nothing of the last lines is lost at a change of files.
	old, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := 4*logMax/len(line) - 1
	lines := bytes.Split(bytes.TrimSuffix(append(old, now...), []byte("\n")), []byte("\n"))
	for i, l := range lines {
		if want := fmt.Sprintf("%06d", last-len(lines)+1+i); !bytes.HasPrefix(l, []byte(want)) {
			t.Fatalf("line %d of %d begins with %.6q, want %s", i, len(lines), l, want)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 2 {
		t.Errorf("%d files", len(entries))
	}
}

// A log that cannot be written must not stop the daemon, and one that was removed comes back.
func TestLogNeverFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "absent")
	l := newLog(filepath.Join(dir, "log"))
	defer l.close()
	if n, err := l.Write([]byte("lost\n")); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("kept\n")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || string(b) != "kept\n" {
		t.Errorf("%q, %v", b, err)
	}
}
