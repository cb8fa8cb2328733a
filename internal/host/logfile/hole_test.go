package logfile

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A writer that does not append goes on where it was: only what it writes from then on counts.
func TestCutUnderAWriterThatDoesNotAppend(t *testing.T) {
	const most = 64 << 10 // of many pages: less than one makes no hole
	path := filepath.Join(t.TempDir(), "metrics.json")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	look := func(last string) {
		t.Helper()
		if err := cut(t.Context(), path, most); err != nil {
			t.Fatal(err)
		}
		old, err := os.ReadFile(Old(path))
		if err != nil || !bytes.HasPrefix(old, []byte("line ")) || !bytes.HasSuffix(old, []byte(last)) || bytes.Contains(old, []byte{0}) {
			t.Errorf("kept %d bytes: %.20q ... %.20q, %v", len(old), old, old[max(0, len(old)-20):], err)
		}
	}
	writeLines(t, f, 0, 7000)
	look("line 6999\n")
	writeLines(t, f, 7000, 7010)
	look("line 6999\n") // little is there yet
	if b, err := os.ReadFile(path); err != nil || !bytes.Contains(b, []byte("\x00line 7000\n")) || !bytes.HasSuffix(b, []byte("line 7009\n")) {
		t.Errorf("lost what came after: %v", err)
	}
	writeLines(t, f, 7010, 9999)
	look("line 6999\n")
	for range 3 {
		writeLines(t, f, 1000, 8000)
		look("line 7999\n")
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || st.Blocks*512 > most {
		t.Errorf("takes %d bytes, %v", st.Blocks*512, err)
	}
}
