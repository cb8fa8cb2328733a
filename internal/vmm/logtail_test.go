package vmm

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLogTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, max int64
		want      string
	}{
		{0, 100, "one\ntwo\nthree"},
		{4, 100, "two\nthree"},
		{0, 8, "three"}, // begins within two
		{0, 14, "one\ntwo\nthree"},
		{14, 100, ""},
		{99, 100, "one\ntwo\nthree"}, // cut off and begun anew
		{0, 3, "ee"},                 // no line fits
	} {
		if got := LogTail(path, c.from, c.max); got != c.want {
			t.Errorf("from %d, at most %d: %q, want %q", c.from, c.max, got, c.want)
		}
	}
	if err := os.WriteFile(path, append(make([]byte, 4096), "one\ntwo\n"...), 0o600); err != nil { // cut off under who does not append
		t.Fatal(err)
	}
	if got := LogTail(path, 0, 4<<10); got != "one\ntwo" {
		t.Errorf("behind a hole: %q", got)
	}
	if got := LogTail(path+"x", 0, 100); got != "" {
		t.Errorf("of a missing log: %q", got)
	}
}
